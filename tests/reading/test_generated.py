"""Every program of our own generator is read back to the genome that it was written from."""

from __future__ import annotations

from collections.abc import Iterator
from importlib.metadata import PackageNotFoundError, version
from typing import Any

import numpy as np
import pytest

from engine import catalogue, presets
from engine.genome import canonical, context_fields
from engine.program import Subject, generate
from engine.reading import Reading, effective_key, read
from engine.results import Genome
from engine.search.space import space
from engine.specification import SOLVERS
from engine.strategy import Strategy, registry

MEASURED = {
    "first_block_cache": {"changes": [0.1, 0.2, 0.4]},
    "magcache": {"ratios": [1.0, 0.99, 0.97, 0.98, 0.96, 0.99, 0.95, 0.9]},
}
"""As a calibration of the two caches with thresholds would leave it."""
CALIBRATED = {"quantile"}
"""Genes that a program holds as the number that was measured for them."""
MODELS = ("sd15", "sd21-img2img", "sdxl", "sdxl-controlnet", "pixart-sigma", "dit", "sd3", "flux")
SOLVER_NAMES = {
    ("sampler", "dpmpp_sde"): "DPMSolverMultistepScheduler",
    ("flow_sampler", "dpmpp_2m"): "DPMSolverMultistepScheduler",
    ("flow_sampler", "unipc"): "UniPCMultistepScheduler",
    **{solver: cls for cls, solver in SOLVERS.items()},
}


def subject_of(name: str, **changes: Any) -> Subject:
    entry = catalogue.entry(name)
    keys = ("id", "revision", "pipeline", "denoiser", "steps", "guidance_scale", "height", "width")
    same = {key: entry[key] for key in (*keys, "task", "controlnet")}
    fixed = {"name": name, "miniature": False, "device": "cuda", "dtype": "float32"}
    return Subject(**{**same, **fixed, **changes})


def installed(strategy: Strategy) -> bool:
    """Whether a program may name it: it pins the versions of its libraries."""
    try:
        for spec in strategy.needs.libraries:
            version(spec.partition("=")[0].rstrip("><~!"))
    except PackageNotFoundError:
        return False
    return True


def legal(model: str) -> dict[str, Strategy]:
    """The strategies that fit a model by what they declare."""
    entry = catalogue.entry(model)
    flow = entry["prediction"] == "flow"
    return {
        name: one
        for name, one in registry().items()
        if installed(one)
        and (not one.needs.backbone or entry["backbone"] in one.needs.backbone)
        and (not one.needs.prediction or entry["prediction"] in one.needs.prediction)
        and not (flow and name == "sampler")
    }


def genomes(model: str, count: int) -> Iterator[Genome]:
    rng = np.random.default_rng(3)
    here = space(legal(model))
    for _ in range(count):
        yield here.sample(rng)


def check(model: str, genome: Genome, reading: Reading) -> None:
    entry = catalogue.entry(model)
    fields = context_fields(genome)
    assert reading.unread == ()
    assert reading.dead == ()
    assert reading.pipeline == entry["pipeline"]
    assert reading.model_id == entry["id"]
    assert reading.revision == entry["revision"]
    assert reading.controlnet == entry["controlnet"]
    assert reading.steps == fields.get("steps", entry["steps"])
    assert reading.guidance_scale == entry["guidance_scale"]
    assert reading.dtype == fields.get("dtype", "float32")
    if entry["task"] in ("text", "control"):
        assert (reading.height, reading.width) == (entry["height"], entry["width"])
    sampler = next((name for name in genome if name in ("sampler", "flow_sampler")), None)
    if sampler is None:
        assert reading.scheduler is None
    else:
        assert reading.scheduler == SOLVER_NAMES[sampler, str(genome[sampler]["name"])]
    found = {method.name: dict(method.settings) for method in reading.methods}
    assert found.keys() == genome.keys()
    for name, genes in genome.items():
        written = {gene: value for gene, value in genes.items() if gene not in CALIBRATED}
        assert written.items() <= found[name].items()


@pytest.mark.parametrize("model", MODELS)
def test_a_sample_of_legal_genomes_is_read_back(model: str) -> None:
    for genome in genomes(model, 10):
        text = generate(subject_of(model), genome, "sample", MEASURED)
        check(model, genome, read(text))


def test_every_technique_is_read_back_with_its_genes_at_both_ends() -> None:
    seen = set()
    for model in MODELS:
        for name, strategy in legal(model).items():
            if name in seen:
                continue
            seen.add(name)
            for end in (0, -1):
                genes = {gene.name: gene.values()[end] for gene in strategy.genes.values()}
                genome = canonical({name: genes})
                check(model, genome, read(generate(subject_of(model), genome, "one", MEASURED)))
    assert seen == {name for name, one in registry().items() if installed(one)}


@pytest.mark.parametrize("name", presets.names())
def test_every_preset_is_read_back(name: str) -> None:
    preset = presets.load(name)
    if not all(installed(registry()[technique]) for technique in preset.technique):
        pytest.skip("a library of this preset is not installed")
    models = [
        model
        for model in MODELS
        if presets.family(catalogue.entry(model)["pipeline"]) in preset.families
    ]
    for model in models or [*preset.models][:1]:
        text = generate(subject_of(model), preset.technique, name, MEASURED)
        check(model, canonical(preset.technique), read(text))


def test_a_class_to_image_program_of_a_miniature_is_read() -> None:
    reading = read(generate(subject_of("dit-mini", miniature=True), {}, "plain"))
    assert (reading.pipeline, reading.model_id) == ("DiTPipeline", "dit-mini")
    assert reading.unread == ()


def test_different_genomes_have_different_keys_and_equal_ones_the_same() -> None:
    texts = [generate(subject_of("sd15"), genome, "x", MEASURED) for genome in genomes("sd15", 40)]
    keys = [effective_key(read(text)) for text in texts]
    assert keys == [effective_key(read(text.replace("x.", "y.", 1))) for text in texts]
    assert len(set(keys)) == len(set(texts))


def test_a_copied_function_that_was_emptied_is_dead() -> None:
    text = generate(subject_of("sd15"), {"tgate": {"gate": 0.5}, "deepcache": {}}, "x")
    start = text.index("def tgate_apply")
    head = text.index("\n", start)
    emptied = text[:head] + "\n    return\n" + text[head:]
    call = emptied.index("def tgate_call")
    head = emptied.index("\n", call)
    reading = read(emptied[:head] + "\n    return {}\n" + emptied[head:])
    assert reading.method("tgate") is None
    assert [method.name for method in reading.dead] == ["tgate"]
    assert reading.method("deepcache") is not None
    without = read(text.replace("    helper.enable()\n", ""))
    assert without.method("deepcache") is None
    assert [method.name for method in without.dead] == ["deepcache"]
