"""LoRAs: what the configuration takes, which file is meant, and that techniques keep them."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from PIL import Image
from safetensors.torch import save_file

from engine.errors import UsageError
from engine.lora import Lora, located, loras_of
from engine.program import Subject, generate
from engine.results import Genome
from engine.strategy import find, registry
from engine.worker import probe
from tests.test_program import loaded
from tests.tiny import KINDS, ONE, case, saved, subject

RANK = 2


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("models")


@pytest.fixture(autouse=True)
def _traced_only(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Everything of torch.compile but its code generation, which takes minutes."""
    compile: Callable[..., Any] = torch.compile

    def traced(function: Any, *, mode: str, dynamic: bool, fullgraph: bool, **_more: Any) -> Any:
        return compile(function, backend="eager", dynamic=dynamic, fullgraph=fullgraph)

    monkeypatch.setattr(torch, "compile", traced)
    yield
    reset: Callable[[], None] = import_module("torch._dynamo").reset
    reset()


def pipeline_of(kind: str, root: Path) -> Any:
    """The plain pipeline of a kind."""
    return loaded(generate(subject(kind, saved(kind, root)), {}, "test"))["load_pipeline"]()


def written(kind: str, root: Path) -> Path:
    """A LoRA for every query of the denoiser, in the form that diffusers and peft share."""
    known = KINDS[kind]
    path = root / f"{kind}-lora" / "change.safetensors"
    if not path.exists():
        pipe = pipeline_of(kind, root)
        random = torch.Generator().manual_seed(5)
        tensors = {}
        for name, module in getattr(pipe, known.denoiser).named_modules():
            if name.endswith((".to_q", ".to_v")):
                rows, columns = module.weight.shape
                down = torch.randn(RANK, columns, generator=random)
                up = torch.randn(rows, RANK, generator=random)
                tensors[f"{known.denoiser}.{name}.lora_A.weight"] = down / columns**0.5
                tensors[f"{known.denoiser}.{name}.lora_B.weight"] = up
        path.parent.mkdir()
        save_file(tensors, path)
    return path


def drawn(kind: str, root: Path, genome: Genome, *loras: Lora, steps: int = 3) -> NDArray[np.int64]:
    """The pixels of a program with these LoRAs."""
    given = subject(kind, saved(kind, root), loras=located(loras), steps=steps)
    scope = loaded(generate(given, genome, "test", calibrated(given, genome)))
    pipe = scope["accelerate"](scope["load_pipeline"]())
    asked = case(kind, ONE, root)
    image = None if asked.image is None else Image.open(asked.image)
    images = scope["generate"](pipe, asked.prompt, seed=1, image=image)
    for name in genome:
        active = find(name).function("active")
        assert active is not None
        assert active(pipe) is None
    return np.asarray(images[0], np.int64)


def calibrated(given: Subject, genome: Genome) -> dict[str, Any]:
    """What techniques that must be calibrated measure of that model with its LoRAs."""
    asking = {name: find(name).function("calibrate") for name in genome}
    found = {}
    for name, calibrate in asking.items():
        if calibrate is not None:
            scope = loaded(generate(given, {}, "test"))
            pipe = scope["accelerate"](scope["load_pipeline"]())
            runs = [partial(scope["generate"], pipe, ONE, seed=seed) for seed in range(2)]
            found[name] = calibrate(pipe, scope["CTX"], runs)
    return found


def gap(first: NDArray[np.int64], second: NDArray[np.int64]) -> float:
    return float(np.abs(first - second).mean())


def test_a_row_may_be_an_id_alone_and_has_a_scale_and_is_fused() -> None:
    assert loras_of(["a/b", {"id": "c/d", "scale": 1, "fuse": False}]) == (
        Lora("a/b", 1.0, True),
        Lora("c/d", 1.0, False),
    )


@pytest.mark.parametrize(
    ("row", "words"),
    [
        ({"scale": 1.0}, "names no id"),
        ({"id": "a/b", "scael": 1.0}, "did you mean scale"),
        ({"id": "a/b", "scale": "big"}, "it takes a number"),
        ({"id": "a/b", "scale": True}, "it takes a number"),
        ({"id": "a/b", "scale": 100}, "it takes -10 to 10"),
        ({"id": "a/b", "fuse": 1}, "it takes true or false"),
        (3, "names no id"),
    ],
)
def test_a_wrong_row_is_named(row: object, words: str) -> None:
    with pytest.raises(UsageError, match=words):
        loras_of([row])


def test_a_file_and_a_folder_with_one_file_mean_the_same(root: Path) -> None:
    path = written("sd", root)
    (path.parent / "scheduler.safetensors").touch()
    file, folder = located([Lora(str(path)), Lora(str(path.parent))])
    assert file == folder
    assert (file.id, file.file) == (str(path.parent), "change.safetensors")


def test_which_file_is_meant_must_be_clear_and_it_must_be_safe(tmp_path: Path) -> None:
    (tmp_path / "weights.bin").touch()
    with pytest.raises(UsageError, match=r"has no \.safetensors file"):
        located([Lora(str(tmp_path))])
    with pytest.raises(UsageError, match="only safetensors are read"):
        located([Lora(str(tmp_path / "weights.bin"))])
    for name in ("one", "two"):
        (tmp_path / f"{name}.safetensors").touch()
    with pytest.raises(UsageError, match=r"several files .one\.safetensors, two.*; name"):
        located([Lora(str(tmp_path))])
    assert located([Lora(str(tmp_path), file="two.safetensors")])[0].file == "two.safetensors"
    with pytest.raises(UsageError, match=r"no file or folder \./none"):
        located([Lora("./none")])


def test_a_lora_of_the_hub_without_a_network_is_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    import huggingface_hub

    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    with pytest.raises(UsageError, match="cannot download the LoRA nobody/nothing"):
        located([Lora("nobody/nothing")])


GENOMES: dict[str, Genome] = {
    "plain": {},
    "dynamic_int8": {"dynamic_int8": {}},
    "deepcache": {"deepcache": {"interval": 2}},
    "compile": {"compile": {"scope": "regional"}},
    "tome and tgate": {"tome": {}, "tgate": {"gate": 0.6}},
}


@pytest.mark.parametrize("name", GENOMES)
def test_a_lora_changes_the_pixels_under_every_technique(name: str, root: Path) -> None:
    genome = GENOMES[name]
    path = str(written("sd", root))
    without = drawn("sd", root, genome)
    fused, beside = (drawn("sd", root, genome, Lora(path, fuse=fuse)) for fuse in (True, False))
    assert gap(without, fused) > 1.0
    # Fused it is part of the weights; where a technique lost it beside them, the two would differ.
    assert gap(fused, beside) < 0.3 * gap(without, fused)


TAKING = ("sd", "sdxl", "sd3", "flux")
"""One kind of each family that takes LoRAs."""
SETTINGS: dict[tuple[str, str], dict[str, Any]] = {
    # Where the default of a gene has nothing to act on.
    ("sdxl", "tome"): {"max_downsample": 2},
    ("sd3", "attention"): {"where": "all"},
    ("flux", "attention"): {"where": "all"},
}


@pytest.mark.slow
@pytest.mark.parametrize("name", sorted(registry()))
@pytest.mark.parametrize("kind", TAKING)
def test_every_applicable_technique_keeps_a_lora_or_refuses_it(
    kind: str, name: str, root: Path
) -> None:
    """Fused or beside the weights it changes the pixels, by about as much as in the plain program;
    where a technique cannot work beside it, it says so and the fused one still works."""
    strategy = find(name)
    pipe = pipeline_of(kind, root)
    if reason := probe.inapplicable(strategy, pipe, KINDS[kind].denoiser, "cpu"):
        pytest.skip(reason)
    genome: Genome = {name: SETTINGS.get((kind, name), {})}
    path = str(written(kind, root))
    usual = gap(drawn(kind, root, {}, steps=8), drawn(kind, root, {}, Lora(path), steps=8))
    without = drawn(kind, root, genome, steps=8)
    fused = drawn(kind, root, genome, Lora(path), steps=8)
    assert gap(without, fused) > 0.3 * usual
    lora = Lora(path, fuse=False)
    given = subject(kind, saved(kind, root), loras=located([lora]))
    pipe = loaded(generate(given, {}, "test"))["load_pipeline"]()
    if probe.inapplicable(strategy, pipe, KINDS[kind].denoiser, "cpu") is None:
        beside = drawn(kind, root, genome, lora, steps=8)
        assert gap(without, beside) > 0.3 * usual
    else:
        assert strategy.needs.fused_lora


def test_a_scale_of_nothing_changes_nothing_and_a_larger_one_more(root: Path) -> None:
    path = str(written("sd", root))
    plain = drawn("sd", root, {})
    for fuse in (True, False):
        gaps = [gap(drawn("sd", root, {}, Lora(path, scale, fuse)), plain) for scale in (0, 0.5, 1)]
        assert gaps[0] < 0.05
        assert gaps[0] < gaps[1] < gaps[2]


def test_fused_and_separate_loras_come_together(root: Path) -> None:
    path = str(written("sd", root))
    whole = drawn("sd", root, {}, Lora(path, 1.0))
    halves = drawn("sd", root, {}, Lora(path, 0.5, fuse=False), Lora(path, 0.5))
    assert gap(whole, halves) < 0.1 * gap(whole, drawn("sd", root, {}))


@pytest.mark.parametrize("kind", ["sd-img2img", "sd-control", "sdxl", "sd3", "flux"])
def test_every_class_that_takes_a_lora_is_changed_by_it(kind: str, root: Path) -> None:
    plain = drawn(kind, root, {})
    changed = drawn(kind, root, {}, Lora(str(written(kind, root))))
    assert gap(plain, changed) > 0.05


@pytest.mark.parametrize("kind", ["pixart-alpha", "dit"])
def test_a_class_that_takes_none_says_so(kind: str, root: Path) -> None:
    with pytest.raises(ValueError, match=f"{KINDS[kind].pipeline} takes no LoRA"):
        drawn(kind, root, {}, Lora(str(written("sd", root))))


def test_weights_that_were_rounded_while_loading_take_no_fused_lora(root: Path) -> None:
    lora = Lora(str(written("sd", root)))
    scope = loaded(generate(subject("sd", root, loras=located([lora])), {}, "test"))
    pipe = pipeline_of("sd", root)
    pipe.unet.is_quantized = True
    with pytest.raises(ValueError, match="take no fused LoRA: fuse: false"):
        scope["_load_loras"](pipe)


def test_a_file_for_another_model_is_refused(root: Path) -> None:
    with pytest.raises(ValueError, match="changes no layer of this model"):
        drawn("sd", root, {}, Lora(str(written("flux", root))))


def test_what_would_lose_a_lora_beside_the_weights_is_refused(root: Path) -> None:
    for fuse in (True, False):
        lora = Lora(str(written("sd", root)), fuse=fuse)
        given = subject("sd", saved("sd", root), loras=located([lora]))
        pipe = loaded(generate(given, {}, "test"))["load_pipeline"]()
        reason = probe.inapplicable(find("qkv_fusion"), pipe, "unet", "cpu")
        assert (reason is None) == fuse
        assert fuse or "type fuse: true in model.lora" in str(reason)


def test_a_program_with_a_lora_pins_its_library(root: Path) -> None:
    given = subject("sd", saved("sd", root), loras=located([Lora(str(written("sd", root)))]))
    assert '"peft==' in generate(given, {}, "test")
    assert "peft" not in generate(subject("sd", root), {}, "test")
