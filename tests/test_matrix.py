"""``+list=matrix``: its answers, its filters, its table, and no torch (see also test_cli)."""

from __future__ import annotations

import io
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from engine import capabilities, catalogue, matrix, needs
from engine.arms import Arms
from engine.cli import main
from engine.hardware import inspect
from engine.matrix import Cell
from engine.schema import Config
from engine.strategy import Needs, find, registry

Composed = Callable[..., Config]


@pytest.mark.parametrize(
    ("model", "device", "technique", "applies", "words"),
    [
        ("sd15", "cuda", "deepcache", "yes", ""),
        ("sd-mini", "cpu", "tgate", "yes", ""),
        ("sdxl-controlnet", "cuda", "guidance", "yes", ""),
        ("pixart-sigma", "cpu", "sampler", "yes", ""),
        ("flux", "cuda", "deepcache", "no", "it needs a unet, this model has a transformer"),
        ("dit", "cpu", "tgate", "no", "DiTTransformer2DModel has no cross-attention"),
        ("sd15", "cpu", "flow_sampler", "no", "it needs a model that predicts flow"),
        ("flux", "cuda", "split_guidance", "no", "distilled"),
        ("sdxl-turbo", "cuda", "tgate", "no", "without guidance (model.guidance_scale=0)"),
        ("sdxl-turbo", "cuda", "sampler", "no", "it takes at least 3 steps, this model 1"),
        ("sd15", "cpu", "fused_attention", "no", "it needs cuda, this runs on cpu"),
        ("sd15", "cuda", "dynamic_int8", "no", "it needs cpu, this runs on cuda"),
        ("sd-mini", "cpu", "tiny_vae", "no", "this model's own 4 times"),
        # What its miniature refuses the published model takes, as its architecture says.
        ("sd15", "cpu", "tiny_vae", "no", "madebyollin/taesd is not in the hub's cache"),
        ("flux", "cuda", "tiny_vae", "no", "madebyollin/taef1 is not in the hub's cache"),
    ],
)
def test_answers_and_reasons(
    model: str, device: str, technique: str, applies: str, words: str
) -> None:
    found, reason = matrix.judged(find(technique), catalogue.entry(model), device)
    assert found == applies, reason
    assert words in reason
    assert bool(reason) == (applies != "yes")


def test_a_strategy_of_another_package_is_not_probed_until_somebody_does() -> None:
    other = replace(find("precision"), name="theirs")
    entry = catalogue.entry("sd15")
    assert matrix.judged(other, entry, "cpu") == ("open", matrix.NOT_PROBED)
    # What the machine lacks is known all the same.
    here = replace(other, needs=Needs(devices=("cuda",)))
    assert matrix.judged(here, entry, "cpu")[0] == "no"


def test_a_model_that_is_only_known_when_it_is_read_stays_open() -> None:
    entry = {**catalogue.entry("sd15"), "pipeline": None, "steps": None}
    assert matrix.judged(find("tome"), entry, "cpu") == ("open", matrix.NOT_READ)


def test_a_miniatures_word_leaves_a_model_of_another_network_open(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    record = {"StableDiffusionPipeline": {"tome": {"unfit": "too small"}}}
    monkeypatch.setattr(capabilities, "recorded", lambda: record)
    said = {n: matrix.judged(find("tome"), catalogue.entry(n), "cpu") for n in ("sd15", "sd-mini")}
    assert said == {"sd15": ("open", "its miniature: too small"), "sd-mini": ("no", "too small")}


def test_weights_that_a_technique_brings_are_looked_for(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    record = {"StableDiffusionPipeline": {"tiny_vae": {"weights": "some/vae"}}}
    monkeypatch.setattr(capabilities, "recorded", lambda: record)
    entry = catalogue.entry("sd15")
    applies, reason = matrix.judged(find("tiny_vae"), entry, "cpu", str(tmp_path))
    assert (applies, reason) == ("no", "some/vae is not in the hub's cache: hf download some/vae")
    home = tmp_path / "models--some--vae"
    stored = home / "snapshots" / ("0" * 40)
    stored.mkdir(parents=True)
    (home / "refs").mkdir()
    (home / "refs" / "main").write_text("0" * 40)
    for file in ("config.json", "diffusion_pytorch_model.safetensors"):
        (stored / file).write_text("")
    assert matrix.judged(find("tiny_vae"), entry, "cpu", str(tmp_path)) == ("yes", "")


def test_what_the_machine_lacks_is_named() -> None:
    lacking = needs.unmet_by_machine
    assert lacking(Needs(), "cpu", "float32") is None
    assert lacking(Needs(tools=("no-such-tool", "sh")), "cpu", "float32") is None
    assert "no-such-tool" in str(lacking(Needs(tools=("no-such-tool",)), "cpu", "float32"))
    assert lacking(Needs(tools=("no-such-tool",)), "cuda", "float32") is None
    assert "the denoiser is float16" in str(lacking(Needs(dtypes=("float32",)), "cuda", "float16"))
    missing = lacking(Needs(libraries=("torch", "no-such-library>=1")), "cpu", "float32")
    assert missing == "no-such-library is not installed: pip install 'no-such-library>=1'"


def piped(capsys: pytest.CaptureFixture[str], *filters: str) -> list[list[str]]:
    assert main(["+list=matrix", *filters]) == 0
    head, *rows = [line.split("\t") for line in capsys.readouterr().out.splitlines()]
    assert head == ["model", "hw", "technique", "applies", "reason"]
    return rows


def test_a_program_gets_a_row_for_each_cell(capsys: pytest.CaptureFixture[str]) -> None:
    rows = piped(capsys)
    models = [name for name in catalogue.names() if catalogue.entry(name)["pipeline"] is not None]
    assert len(rows) == len(models) * len(matrix.KINDS) * len(registry())
    assert {"yes", "no"} <= {row[3] for row in rows} <= {"yes", "no", "open"}
    assert all(bool(row[4]) == (row[3] != "yes") for row in rows)


def test_a_yes_names_the_values_that_the_hardware_is_too_old_for() -> None:
    fused = find("fused_attention")
    assert matrix.without(fused, 8.0) == matrix.without(fused, None) == []
    old = "it needs compute capability 8, this device has 7.5"
    assert matrix.without(fused, 7.5) == [
        f"without kernel=flash: {old}",
        f"without kernel=cudnn: {old}",
    ]
    assert matrix.without(find("torchao"), matrix.capability_of("a100")) == [
        "without kind=fp8_dynamic: it needs compute capability 8.9, this device has 8"
    ]
    assert matrix.without(find("torchao"), matrix.capability_of("h100")) == []


def test_filters_choose_models_and_hardware(capsys: pytest.CaptureFixture[str]) -> None:
    rows = piped(capsys, "model=flux,sd15", "hw=h100")
    assert {(row[0], row[1]) for row in rows} == {("flux", "h100"), ("sd15", "h100")}
    assert piped(capsys, "model=[flux,sd15]", "hw=h100") == rows


def test_models_are_named_briefly() -> None:
    groups = matrix.families(["sd15", "sd21", "sd-mini", "sdxl", "sdxl-turbo", "dit"])
    assert groups == {
        "sd": ["sd15", "sd21", "sd-mini"],
        "sdxl": ["sdxl", "sdxl-turbo"],
        "dit": ["dit"],
    }
    assert (
        matrix.briefly(["sd15", "sd21", "sd-mini", "sdxl", "sdxl-turbo", "dit"], groups) == "all 6"
    )
    assert matrix.briefly(["sd15", "sd21", "sd-mini", "dit"], groups) == "all 6 but sdxl sdxl-turbo"
    assert matrix.briefly(["sd15", "sd21", "sd-mini"], groups) == "all sd"
    assert matrix.briefly(["sd15", "sd21", "sdxl"], groups) == "all sd but sd-mini, sdxl"
    assert matrix.briefly(["sd15", "sdxl-turbo"], groups) == "sd15, sdxl-turbo"
    assert matrix.families(["flux"]) == {"flux": ["flux"]}
    assert matrix.briefly(["flux"], {"flux": ["flux"]}) == "flux"


def test_answers_are_grouped_by_what_is_said_and_where() -> None:
    found = [
        Cell("a", "cpu", "one", "yes", ""),
        Cell("a", "cuda", "one", "no", "slow"),
        Cell("b", "cpu", "one", "yes", ""),
        Cell("b", "cuda", "one", "yes", ""),
        Cell("c", "cpu", "one", "open", "who knows"),
        Cell("a", "cpu", "two", "no", "slow"),
    ]
    assert list(matrix.grouped(found).items()) == [
        (("one", "yes", "", ("cpu",)), ["a"]),
        (("one", "yes", "", ("cpu", "cuda")), ["b"]),
        (("one", "open", "who knows", ("cpu",)), ["c"]),
        (("one", "no", "slow", ("cuda",)), ["a"]),
        (("two", "no", "slow", ("cpu",)), ["a"]),
    ]


@pytest.mark.parametrize("hardware", [("cpu", "cuda"), ("h100",)])
def test_a_person_reads_it_on_a_terminal_of_100_columns(hardware: tuple[str, ...]) -> None:
    from rich.console import Console

    devices = {"cpu": "cpu", "cuda": "cuda", "h100": "cuda"}
    models = [name for name in catalogue.names() if catalogue.entry(name)["pipeline"] is not None]
    found = matrix.cells(models, {name: devices[name] for name in hardware})
    page = io.StringIO()
    Console(width=100, file=page).print(matrix.drawn(found, models, hardware))
    lines = page.getvalue().splitlines()
    assert max(map(len, lines)) <= 100
    assert "…" not in page.getvalue()
    first = [line.split()[0] for line in lines if not line.startswith("  ")]
    assert [name for name in first if name in registry()] == list(registry())
    # No more than a person scrolls through.
    assert len(lines) < 7 * len(registry())


def test_a_search_leaves_guidance_alone_where_the_model_runs_without(
    composed: Composed, tmp_path: Path
) -> None:
    config = composed("model.guidance_scale=1", "model.steps=2", "objective=flops", "hw=cpu")
    arms: Any = Arms(config, inspect("cpu"), tmp_path)
    try:
        reasons = arms.applicable()
    finally:
        arms.close()
    for name in ("guidance", "split_guidance", "tgate"):
        assert reasons[name] == "this model runs without guidance (model.guidance_scale=1)"
    assert reasons["sampler"] == "it takes at least 3 steps, this model 2"
    assert reasons["tome"] is None
