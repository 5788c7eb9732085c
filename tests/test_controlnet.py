"""Where a ControlNet is looked for."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from engine.controlnet import Beside, beside
from engine.errors import UsageError
from engine.models import Location
from engine.schema import Config

Composed = Callable[..., Config]


def pipeline(folder: Path, **parts: list[str]) -> Location:
    folder.mkdir(exist_ok=True)
    (folder / "model_index.json").write_text(json.dumps(parts))
    return Location(str(folder), None, is_mini=False)


def test_one_in_the_pipelines_own_folder_is_taken_with_it(
    composed: Composed, tmp_path: Path
) -> None:
    model = composed("model=sd15-controlnet").model
    whole = pipeline(tmp_path, controlnet=["diffusers", "ControlNetModel"])
    assert beside(model, whole) is None


def test_other_tasks_have_none(composed: Composed, tmp_path: Path) -> None:
    assert beside(composed("model=sd15").model, pipeline(tmp_path)) is None


def test_a_folder_of_its_own_stands_beside_the_pipeline(composed: Composed, tmp_path: Path) -> None:
    own = tmp_path / "canny"
    own.mkdir()
    model = composed("model=sd15-controlnet", f"model.controlnet={own}").model
    with pytest.raises(UsageError, match=r"has no \.safetensors file"):
        beside(model, pipeline(tmp_path / "sd"))
    (own / "diffusion_pytorch_model.safetensors").touch()
    assert beside(model, pipeline(tmp_path / "sd")) == Beside(str(own), None, str(own))


def test_none_at_all_and_one_that_cannot_be_downloaded_are_one_line(
    composed: Composed, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import huggingface_hub

    location = pipeline(tmp_path / "sd")
    none = composed("model=sd-mini-controlnet").model
    with pytest.raises(UsageError, match=r"no ControlNet; type model\.controlnet=ORG/NAME"):
        beside(none, location)
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    published = composed("model=sd15-controlnet").model
    with pytest.raises(UsageError, match="cannot download the ControlNet lllyasviel"):
        beside(published, location, str(tmp_path / "cache"))
