"""What every strategy promises, and every combination of the ones that must combine."""

from __future__ import annotations

import ast
import inspect
import itertools
import subprocess
import sys
from collections.abc import Callable
from functools import cache
from typing import Any

import pytest
import torch

from engine.strategy import FUNCTIONS, registry
from engine.worker.probe import inapplicable
from tests.strategies.tiny import ARCHITECTURES

NAMES = list(registry())
SAMPLERS = ("ddim", "dpmpp_2m", "dpmpp_sde", "unipc", "euler", "pndm")
COMBINING = ("deepcache", "tome", "tgate", "guidance")
ALL_SUBSETS = [c for n in range(5) for c in itertools.combinations(COMBINING, n)]

ENDS = [
    (name, gene.name, value)
    for name, strategy in registry().items()
    for gene in strategy.genes.values()
    for value in (gene.choices or dict.fromkeys(gene.values()[:: max(1, len(gene.values()) - 1)]))
]

# What acts on the decoding of a batch shows in its pixels only.
CALLS: dict[str, dict[str, Any]] = {"vae": {"prompt": ["a red circle"] * 2, "output_type": "pt"}}


MEASURED = {"changes": [0.1, 0.2, 0.3], "ratios": [1.0, 1.1, 0.9, 1.0]}
"""What the caches measure, in small."""
# Where the default of a gene has nothing to act on, which active() then says.
SETTINGS: dict[tuple[str, str], dict[str, Any]] = {
    ("sdxl", "tome"): {"max_downsample": 2},
    ("pixart", "attention"): {"where": "all"},
    ("dit", "attention"): {"where": "all"},
    ("sd3", "attention"): {"where": "all"},
    ("flux", "attention"): {"where": "all"},
}
EVERYWHERE = "precision dynamic_int8 layerwise_fp8 vae compile attention"
CACHED = "first_block_cache magcache taylorseer pab"
# Which technique applies to which architecture on a CPU; all others say why they do not.
APPLICABLE = {
    "sdxl": f"{EVERYWHERE} sampler qkv_fusion channels_last tgate tome deepcache guidance "
    "split_guidance",
    "pixart": f"{EVERYWHERE} {CACHED} sampler qkv_fusion channels_last tgate guidance "
    "split_guidance",
    "dit": f"{EVERYWHERE} {CACHED} sampler channels_last guidance split_guidance",
    "sd3": f"{EVERYWHERE} {CACHED} flow_sampler channels_last faster_cache guidance split_guidance",
    "flux": f"{EVERYWHERE} {CACHED} flow_sampler qkv_fusion faster_cache",
}
PAIRS = [(model, name) for model in ARCHITECTURES for name in NAMES]
APPLYING = [(model, name) for model, names in APPLICABLE.items() for name in names.split()]


@cache
def unchanged(model: str) -> Any:
    """A pipeline that is only looked at."""
    return ARCHITECTURES[model]()


def refused(name: str, pipe: Any) -> str | None:
    """Why the strategy cannot apply to this pipeline on a CPU, or None."""
    return inapplicable(
        registry()[name], pipe, "unet" if hasattr(pipe, "unet") else "transformer", "cpu"
    )


def skip_unless_it_applies(name: str, pipe: Any) -> None:
    """A strategy for another device or model, or without its weights, has tests of its own."""
    reason = refused(name, pipe)
    if reason is not None:
        pytest.skip(reason)


@pytest.mark.parametrize("name", NAMES)
def test_defaults_and_known_good_settings_are_legal(name: str) -> None:
    strategy = registry()[name]
    assert strategy.checked({}) == strategy.defaults()
    for setting in strategy.known_good:
        assert setting.source
        strategy.checked(setting.genes)


@pytest.mark.parametrize("name", NAMES)
def test_every_card_says_what_it_does_when_it_pays_and_how_it_fails(name: str) -> None:
    strategy = registry()[name]
    card = strategy.module.__doc__ or ""
    assert strategy.summary.endswith(".")
    for part in ("What it does:", "When it pays:", "How it fails:"):
        assert part in card
    for gene in strategy.genes:
        assert f"``{gene}``" in card


@pytest.mark.parametrize("name", NAMES)
def test_functions_take_exactly_the_genes_as_keywords(name: str) -> None:
    strategy = registry()[name]
    assert strategy.function("active") is not None
    wanted = set(strategy.genes)
    if written := strategy.function("calibrated"):
        # Some genes are turned into numbers of the model; these two say how.
        assert strategy.function("calibrate") is not None
        wanted = set(written(MEASURED, **strategy.defaults()))
    for kind in FUNCTIONS:
        if function := strategy.function(kind):
            keywords = {
                p.name
                for p in inspect.signature(function).parameters.values()
                if p.kind is p.KEYWORD_ONLY
            }
            assert keywords == (set() if kind == "reset" else wanted)


def copied_names(module: Any) -> set[str]:
    """Every module-level name that the copied functions reach, as the generator finds them."""
    top: dict[str, ast.stmt] = {}
    for node in ast.parse(inspect.getsource(module)).body:
        if isinstance(node, ast.FunctionDef | ast.ClassDef):
            top[node.name] = node
        elif isinstance(node, ast.Assign | ast.AnnAssign):
            target = node.targets[0] if isinstance(node, ast.Assign) else node.target
            assert isinstance(target, ast.Name)
            top[target.id] = node
        elif isinstance(node, ast.Import | ast.ImportFrom):
            top |= {(alias.asname or alias.name): node for alias in node.names}
    reached: set[str] = set()
    waiting = [name for name in FUNCTIONS if name in top]
    while waiting:
        name = waiting.pop()
        if name not in reached:
            reached.add(name)
            used = {n.id for n in ast.walk(top[name]) if isinstance(n, ast.Name)}
            waiting += used & set(top)
    return reached


@pytest.mark.parametrize("name", NAMES)
def test_copied_code_needs_nothing_of_the_engine(name: str) -> None:
    module = registry()[name].module
    for reached in copied_names(module):
        home = getattr(vars(module)[reached], "__module__", None) or ""
        assert not home.startswith("engine"), reached
        assert not hasattr(vars(module)[reached], "__strategy__"), reached


def test_listing_strategies_imports_no_heavy_library() -> None:
    code = (
        "import sys; from engine.strategy import registry; registry();"
        "print([m for m in ('torch', 'diffusers', 'tomesd', 'DeepCache') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


@pytest.mark.parametrize(("name", "gene", "value"), ENDS)
def test_both_ends_of_every_gene_run_and_take_effect(
    ready: Callable[..., Any], fresh: Callable[[], Any], name: str, gene: str, value: Any
) -> None:
    skip_unless_it_applies(name, fresh())
    made = ready({name: {gene: value}})
    assert torch.isfinite(made.latents(**CALLS.get(name, {}))).all()
    assert made.reasons() == {name: None}


@pytest.mark.parametrize("name", NAMES)
def test_the_second_image_does_not_depend_on_the_first(
    ready: Callable[..., Any], fresh: Callable[[], Any], name: str
) -> None:
    skip_unless_it_applies(name, fresh())
    used, new = ready({name: {}}), ready({name: {}})
    used.latents("a green ring on a black background", seed=5)
    used.latents(["a cyan square on a white background"] * 2, seed=6)
    torch.rand(7)
    assert torch.equal(used.latents(), new.latents())


@pytest.mark.parametrize("name", NAMES)
def test_exact_means_rounding_and_lossy_means_more(
    ready: Callable[..., Any], fresh: Callable[[], Any], name: str
) -> None:
    skip_unless_it_applies(name, fresh())
    call = CALLS.get(name, {})
    plain, changed = ready({}).latents(**call), ready({name: {}}).latents(**call)
    gap = (plain - changed).abs().max() / plain.abs().max()
    assert (gap < 1e-4) if registry()[name].exact else (gap > 1e-4)


@pytest.mark.parametrize(("model", "name"), PAIRS)
def test_a_technique_applies_to_an_architecture_or_says_why_not(model: str, name: str) -> None:
    reason = refused(name, unchanged(model))
    assert (reason is None) is ((model, name) in APPLYING), reason
    assert reason is None or len(reason) > 15


@pytest.mark.parametrize(
    ("model", "name"),
    [
        # Tracing is slow, and on SDXL most of it is what Stable Diffusion shows above.
        pytest.param(*pair, marks=pytest.mark.slow if "compile" in pair or "sdxl" in pair else ())
        for pair in APPLYING
    ],
)
def test_on_every_architecture_it_takes_effect_and_leaves_no_trace(
    ready: Callable[..., Any], model: str, name: str
) -> None:
    genome = {name: SETTINGS.get((model, name), {})}
    call = CALLS.get(name, {})
    used, new = (ready(genome, pipe=ARCHITECTURES[model]()) for _ in range(2))
    used.latents("a green ring on a black background", seed=5)
    used.latents(["a cyan square"] * 2, seed=6)
    torch.rand(7)
    changed = used.latents(**call)
    assert used.reasons() == {name: None}
    # Two pipelines lie at other addresses, by which the matrix library rounds differently.
    torch.testing.assert_close(changed, new.latents(**call), atol=1e-4, rtol=1e-4)
    plain = ready({}, pipe=ARCHITECTURES[model]()).latents(**call)
    gap = (plain - changed).abs().max() / plain.abs().max()
    assert (gap < 1e-4) if registry()[name].exact else (gap > 1e-5)


@pytest.mark.slow
@pytest.mark.parametrize(("model", "name"), APPLYING)
def test_on_every_architecture_both_ends_of_every_gene_run_or_say_why_not(
    ready: Callable[..., Any], model: str, name: str
) -> None:
    """An end may be refused by one line, or found inactive by one; anything else is an error."""
    for _, gene, value in [end for end in ENDS if end[0] == name]:
        genes = SETTINGS.get((model, name), {}) | {gene: value}
        said = outcome(ready, model, name, genes)
        assert "\n" not in said


def outcome(ready: Callable[..., Any], model: str, name: str, genes: dict[str, Any]) -> str:
    """What became of a technique with these genes: its refusal, or what ``active`` says."""
    try:
        made = ready({name: genes}, steps=8, pipe=ARCHITECTURES[model]())
    except ValueError as refusal:
        return str(refusal)
    assert torch.isfinite(made.latents(**CALLS.get(name, {}))).all()
    return str(made.reasons()[name])


def pipeline_of(model: str, fresh: Callable[[], Any]) -> Any:
    """Stable Diffusion that predicts noise, as its first version, or SDXL."""
    if model == "sdxl":
        return ARCHITECTURES[model]()
    pipe = fresh()
    pipe.scheduler = type(pipe.scheduler).from_config(
        pipe.scheduler.config, prediction_type="epsilon"
    )
    return pipe


@pytest.mark.slow
@pytest.mark.parametrize("model", ["noise", "sdxl"])
@pytest.mark.parametrize("sampler", SAMPLERS)
@pytest.mark.parametrize("subset", ALL_SUBSETS, ids="+".join)
def test_every_subset_runs_on_noise_predictions_and_on_sdxl(
    ready: Callable[..., Any],
    fresh: Callable[[], Any],
    subset: tuple[str, ...],
    sampler: str,
    model: str,
) -> None:
    genes: dict[str, dict[str, Any]] = {name: {} for name in subset}
    genes["sampler"] = {"name": sampler, "steps": 6}
    if "guidance" in subset:
        genes["guidance"] = {"stop": 0.2}
    if "tome" in subset:
        genes["tome"] = {"max_downsample": 2}
    made = ready(genes, pipe=pipeline_of(model, fresh))
    assert torch.isfinite(made.latents()).all()
    assert set(made.reasons().values()) == {None}
    assert len(made.batches) == 6 + (sampler == "pndm")


@pytest.mark.parametrize("sampler", SAMPLERS)
@pytest.mark.parametrize("subset", ALL_SUBSETS, ids="+".join)
def test_every_subset_of_techniques_runs_with_every_sampler(
    ready: Callable[..., Any], subset: tuple[str, ...], sampler: str
) -> None:
    genes: dict[str, dict[str, Any]] = {name: {} for name in subset}
    genes["sampler"] = {"name": sampler, "steps": 6}
    if "guidance" in subset:
        # Before the gate, so that both have something to do.
        genes["guidance"] = {"stop": 0.2}
    made = ready(genes)
    assert torch.isfinite(made.latents()).all()
    assert set(made.reasons().values()) == {None}
    assert len(made.batches) == 6 + (sampler == "pndm")
