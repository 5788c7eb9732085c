"""Where weights are found, what is said when they are not, and the prompts."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
from huggingface_hub import constants

from engine import models
from engine.errors import UsageError
from engine.minis.scenes import held_out, parse
from engine.models import locate, missing_weights, prompts
from engine.schema import Config

Composed = Callable[..., Config]


def pipeline_folder(folder: Path, *, weights: bool = True) -> Path:
    """A folder that looks like a stored pipeline."""
    index = {
        "_class_name": "StableDiffusionPipeline",
        "unet": ["diffusers", "UNet2DConditionModel"],
        "scheduler": ["diffusers", "DDIMScheduler"],
        "tokenizer": ["transformers", "CLIPTokenizer"],
        "safety_checker": [None, None],
        "feature_extractor": ["transformers", "CLIPImageProcessor"],
    }
    (folder / "unet").mkdir(parents=True)
    (folder / "model_index.json").write_text(json.dumps(index))
    suffix = "safetensors" if weights else "bin"
    (folder / "unet" / f"diffusion_pytorch_model.{suffix}").write_bytes(b"")
    return folder


@pytest.fixture
def offline(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """No network and an empty cache of the hub."""
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
    return tmp_path / "hub"


def test_miniature_is_found_by_its_name(
    composed: Composed, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(models, "CHECKPOINTS", tmp_path)
    folder = pipeline_folder(tmp_path / "sd-mini")
    found = locate(composed().model)
    assert (found.path_or_id, found.revision, found.is_mini) == (str(folder), None, True)


def test_a_model_without_miniature_names_those_that_are(
    composed: Composed, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(models, "CHECKPOINTS", tmp_path)
    pipeline_folder(tmp_path / "sd-mini")
    with pytest.raises(UsageError, match="there are: sd-mini"):
        locate(composed("model=sd15", "model.weights=mini").model)


def test_a_folder_of_a_pipeline_is_taken(composed: Composed, tmp_path: Path) -> None:
    folder = pipeline_folder(tmp_path / "copy")
    found = locate(composed("model=sd15", f"model.weights={folder}").model)
    assert (found.path_or_id, found.is_mini) == (str(folder), False)


def test_a_folder_without_pipeline_or_without_safetensors_is_refused(
    composed: Composed, tmp_path: Path
) -> None:
    with pytest.raises(UsageError, match=r"no folder with a model_index\.json"):
        locate(composed(f"model.weights={tmp_path}").model)
    folder = pipeline_folder(tmp_path / "old", weights=False)
    assert missing_weights(folder) == ["unet/*.safetensors"]
    with pytest.raises(UsageError, match="only safetensors are read"):
        locate(composed(f"model.weights={folder}").model)


def test_a_cached_model_is_found_offline_with_its_commit(composed: Composed, offline: Path) -> None:
    commit = "a" * 40
    cached = offline / "models--stable-diffusion-v1-5--stable-diffusion-v1-5"
    folder = pipeline_folder(cached / "snapshots" / commit)
    (cached / "refs").mkdir()
    (cached / "refs" / "main").write_text(commit)
    found = locate(composed("model=sd15").model)
    assert (found.path_or_id, found.revision) == (str(folder), commit)
    (folder / "unet" / "diffusion_pytorch_model.safetensors").unlink()
    with pytest.raises(UsageError, match="model=sd-mini runs offline"):
        locate(composed("model=sd15").model)


def test_offline_and_unreachable_hub_say_what_to_do(
    composed: Composed, offline: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = composed("model=sd15").model
    with pytest.raises(UsageError, match=r"HF_HUB_OFFLINE is set.*model=sd-mini runs offline"):
        locate(model)
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)

    def unreachable(self: object, *_: object, **__: object) -> None:
        raise ConnectionError("no route")

    monkeypatch.setattr("huggingface_hub.HfApi.model_info", unreachable)
    with pytest.raises(UsageError, match=r"check the network.*model=sd-mini runs offline"):
        locate(model)


def test_gated_model_without_token_names_the_login(
    composed: Composed, offline: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr("huggingface_hub.get_token", lambda: None)
    with pytest.raises(UsageError, match="hf auth login"):
        locate(composed("model=sd15", "model.gated=true").model)


def test_a_download_that_cannot_fit_is_refused_before_it_starts(
    composed: Composed, offline: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr("huggingface_hub.HfApi.model_info", lambda *_, **__: None)
    usage = type("Usage", (), {"free": 2**30})
    monkeypatch.setattr("shutil.disk_usage", lambda _: usage)
    with pytest.raises(UsageError, match=r"needs 5\.1 GiB.*has 1\.0 GiB"):
        locate(composed("model=sd15").model)


@pytest.mark.parametrize("name", ["sd-mini", "sd15"])
def test_search_and_acceptance_share_no_prompt(composed: Composed, name: str) -> None:
    model = composed(f"model={name}").model
    search, acceptance = (set(prompts(model, 36, 1, p)) for p in ("search", "acceptance"))
    assert not search & acceptance
    assert len(acceptance) == 36
    assert not set(prompts(model, 36, 2, "search")) & acceptance


@pytest.mark.parametrize("name", ["sd-mini", "sd15"])
def test_prompts_repeat_with_the_seed_and_grow_from_the_shorter_list(
    composed: Composed, name: str
) -> None:
    model = composed(f"model={name}").model
    assert prompts(model, 8, 3, "search")[:2] == prompts(model, 2, 3, "search")
    assert prompts(model, 8, 3, "search") != prompts(model, 8, 4, "search")
    assert len(prompts(model, 100, 0, "search")) == 100


def test_scene_prompts_for_search_were_trained_on_and_two_in_five_have_one_object(
    composed: Composed,
) -> None:
    captions = prompts(composed().model, 20, 0, "search")
    assert not any(map(held_out, captions))
    assert all(map(held_out, prompts(composed().model, 20, 0, "acceptance")))
    scenes = [parse(text) for text in captions]
    assert sum(scene is not None and len(scene.items) == 1 for scene in scenes) == 8


def test_unknown_part_is_an_error(composed: Composed) -> None:
    with pytest.raises(ValueError, match="search, acceptance"):
        prompts(composed().model, 1, 0, "final")


def test_models_are_looked_for_and_kept_in_the_cache_that_paths_names(
    composed: Composed, offline: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    own = tmp_path / "own"
    model = composed("model=sd15").model
    name = "models--stable-diffusion-v1-5--stable-diffusion-v1-5"
    elsewhere = pipeline_folder(offline / name / "snapshots" / ("a" * 40))
    (elsewhere.parents[1] / "refs").mkdir()
    (elsewhere.parents[1] / "refs" / "main").write_text("a" * 40)
    with pytest.raises(UsageError, match=f"is not in {own}"):
        locate(model, str(own))
    shutil.move(offline / name, own / name)
    assert locate(model, str(own)).path_or_id == str(own / name / "snapshots" / ("a" * 40))
    with pytest.raises(UsageError, match="HF_HUB_OFFLINE is set"):
        locate(model)
    # Downloads are told the same place.
    shutil.rmtree(own)
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr("huggingface_hub.HfApi.model_info", lambda *_, **__: None)
    told: dict[str, object] = {}

    def download(name: str, **keywords: object) -> str:
        told.update(keywords)
        return str(own)

    monkeypatch.setattr("diffusers.DiffusionPipeline.download", download)
    monkeypatch.setattr(models, "_check_disk", lambda cache, _: told.update(checked=str(cache)))
    locate(model, str(own))
    assert (told["cache_dir"], told["checked"]) == (str(own), str(own))


def test_the_scorer_is_looked_for_in_the_same_cache(
    composed: Composed, offline: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    told: list[object] = []

    def download(name: str, *, cache_dir: object, **_: object) -> str:
        told.append(cache_dir)
        return str(tmp_path)

    monkeypatch.setattr("huggingface_hub.snapshot_download", download)
    model = composed("model=sd15").model
    models.locate_scorer(model, str(tmp_path / "own"))
    models.locate_scorer(model)
    assert told == [str(tmp_path / "own"), None]
