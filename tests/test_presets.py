"""Presets: what their files say, whom they fit, and that they name a source."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from engine import capabilities, catalogue, presets
from engine.errors import UsageError
from engine.needs import idle
from engine.schema import Config
from engine.strategy import find

Composed = Callable[..., Config]
WORKS = ("README", "arXiv", "documentation", "blog", "card", "paper")
WHOLE = "family: [sd]\nhw: [cpu]\ntechnique: {tome: {ratio: 0.5}}\n"


@pytest.fixture
def written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[str], presets.Preset]:
    """Load a preset of that text."""
    monkeypatch.setattr(presets, "CONF", tmp_path)
    (tmp_path / "preset").mkdir()

    def load(text: str) -> presets.Preset:
        (tmp_path / "preset" / "mine.yaml").write_text(text, encoding="utf-8")
        return presets.load("mine")

    return load


def test_a_file_says_for_what_it_is(written: Callable[[str], presets.Preset]) -> None:
    found = written(f"# command\n# why\n{WHOLE}")
    assert (found.families, found.models, found.hw) == (("sd",), (), ("cpu",))
    assert found.technique["tome"] == {"ratio": 0.5, "max_downsample": 1}
    assert found.notes == ("command", "why")


@pytest.mark.parametrize(
    ("text", "words"),
    [
        (WHOLE.replace("family: [sd]", "family: [sdx]"), "family has 'sdx'; did you mean sdxl"),
        (WHOLE.replace("family: [sd]", "models: [sdxl-turb]"), "did you mean sdxl-turbo"),
        (WHOLE.replace("family: [sd]", "family: sd"), "family is 'sd'; write a list, as in"),
        (WHOLE.replace("[cpu]", "[h100]"), "hw has 'h100'"),
        (WHOLE.replace("hw: [cpu]\n", ""), "hw is None; write a list, as in [cpu]"),
        (WHOLE + "models: [sd15]\n", "must have either family or models"),
        (WHOLE.replace("family: [sd]\n", ""), "must have either family or models"),
        (WHOLE.replace("family", "familly"), "no key 'familly'; did you mean family"),
        (WHOLE.replace("tome", "tom"), "preset mine: unknown technique 'tom'"),
        (WHOLE.replace("0.5", "5"), "preset mine: technique.tome.ratio is 5; allowed"),
        ("family: [sd]\nhw: [cpu]\n", "has no technique"),
        ("family: [sd", "cannot be read"),
    ],
)
def test_a_wrong_file_is_refused_in_one_line(
    written: Callable[[str], presets.Preset], text: str, words: str
) -> None:
    with pytest.raises(UsageError) as caught:
        written(text)
    assert words in str(caught.value)
    assert "mine" in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("name", presets.names())
def test_every_preset_names_its_command_and_its_source(name: str) -> None:
    found = presets.load(name)
    assert found.technique
    assert f"search.start=[{name}]" in found.notes[0]
    assert any(word in " ".join(found.notes[2:]) for word in WORKS)


def test_every_model_belongs_to_a_family_and_a_fine_tune_to_its_parents() -> None:
    for name in catalogue.names():
        pipeline = catalogue.entry(name)["pipeline"]
        assert pipeline is None or presets.family(pipeline) is not None
    assert presets.family("StableDiffusionXLControlNetPipeline") == "sdxl"
    assert presets.family("StableDiffusionImg2ImgPipeline") == "sd"
    assert presets.family("StableDiffusion3Pipeline") == "sd3"
    assert presets.family("KandinskyPipeline") is None


def test_presets_fit_the_family_and_the_device(composed: Composed) -> None:
    def names(device: str, *overrides: str) -> set[str]:
        return {p.name for p in presets.fitting(composed(*overrides).model, device)[0]}

    assert {"unet-tome", "unet-deepcache", "cpu-int8"} <= names("cpu", "model=sd15")
    assert "cuda-native" not in names("cpu", "model=sd15")
    assert {"sdxl-tome", "cuda-native"} <= names("cuda", "model=sdxl")
    assert "unet-tome" not in names("cuda", "model=sdxl")
    # The same, whatever the weights stand for.
    assert names("cpu", "model=sdxl-mini") == names("cpu", "model=sdxl")
    # Only a single model's own, and what takes no more steps than it does.
    turbo = names("cuda", "model=sdxl-turbo")
    assert "turbo-tiny-vae" in turbo
    assert "turbo-tiny-vae" not in names("cuda", "model=sdxl")
    assert not {"unipc", "unet-tgate"} & turbo


def test_what_changes_nothing_is_said(composed: Composed) -> None:
    _, useless = presets.fitting(composed("model=sdxl-turbo").model, "cuda")
    assert useless["unipc"] == "it takes 10 steps, the model 1"
    _, useless = presets.fitting(composed("model=sd15").model, "cuda")
    assert useless["cuda-float16"] == "the model runs in float16 already"
    chosen, _ = presets.fitting(composed().model, "cuda")
    assert "cuda-float16" in {p.name for p in chosen}


@pytest.mark.parametrize("device", presets.DEVICES)
def test_a_quick_sweep_takes_minutes(device: str) -> None:
    for name in catalogue.names():
        model: Any = SimpleNamespace(**catalogue.entry(name))
        chosen, _ = presets.fitting(model, device)
        assert 1 <= len(chosen) <= 8 or model.pipeline is None, name


@pytest.mark.parametrize("name", presets.names())
def test_no_preset_has_a_technique_that_its_models_refuse(name: str) -> None:
    preset = presets.load(name)
    for entry in map(catalogue.entry, catalogue.names()):
        model: Any = SimpleNamespace(**entry)
        for device in preset.hw:
            if preset not in presets.fitting(model, device)[0]:
                continue
            for technique in map(find, preset.technique):
                said = capabilities.recorded()[model.pipeline].get(technique.name)
                assert "needs" not in (said or {}), (model.name, technique.name)
                assert idle(technique, model.steps, model.guidance_scale) is None
                assert device in (technique.needs.devices or presets.DEVICES)
