"""Where weights are found, what is said when they are not, and the prompts."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import pytest
from huggingface_hub import constants

from engine import catalogue, hub, models
from engine.errors import UsageError
from engine.minis.scenes import held_out, parse
from engine.models import locate, prompts
from engine.schema import Config
from tests.test_weights import lose_a_shard, pipeline_folder, truncate

Composed = Callable[..., Config]


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
    with pytest.raises(UsageError, match=r"model=sdxl \(there are: sd-mini\)"):
        locate(composed("model=sdxl", "model.weights=mini").model)


def test_the_size_of_an_unknown_model_is_read_from_the_hub_and_announced(
    composed: Composed,
    offline: Path,
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    files = {
        "unet/diffusion_pytorch_model.safetensors": 3 * 2**30,
        "unet/diffusion_pytorch_model.fp16.safetensors": 2**30,
        "text_encoder/model-00001-of-00002.safetensors": 2**29,
        "text_encoder/model-00002-of-00002.safetensors": 2**29,
        "whole.safetensors": 8 * 2**30,
        "unet/config.json": 2**10,
    }
    siblings = [SimpleNamespace(rfilename=name, size=size) for name, size in files.items()]
    about = SimpleNamespace(siblings=siblings)
    assert hub.listed_gib(about) == 4.0
    assert hub.listed_gib(SimpleNamespace(siblings=None)) == 0
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr("huggingface_hub.HfApi.model_info", lambda *_, **__: about)
    copy = pipeline_folder(tmp_path / "copy")
    monkeypatch.setattr(hub, "_fetch", lambda *_: copy)
    locate(composed("model=sd15", "model.download_gib=0").model)
    assert "downloading stable-diffusion-v1-5" in (said := capsys.readouterr().out)
    assert "about 4 GiB, once" in said
    usage = type("Usage", (), {"free": 2**30})
    monkeypatch.setattr("shutil.disk_usage", lambda _: usage)
    with pytest.raises(UsageError, match=r"needs 4 GiB in .*has 1\.0 GiB"):
        locate(composed("model=sd15", "model.download_gib=0").model)


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
    with pytest.raises(UsageError, match=r"lacks unet/\*\.safetensors; only safetensors are read"):
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
        return str(pipeline_folder(own / name))

    monkeypatch.setattr("diffusers.DiffusionPipeline.download", download)
    monkeypatch.setattr(hub, "_check_disk", lambda cache, *_: told.update(checked=str(cache)))
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


# --- miniatures that stand for published models


MINI = ("height", "width", "prompts", "scorer", "prediction")


@pytest.mark.parametrize(
    "name", [n for n in catalogue.names() if catalogue.entry(n)["weights"] == "hub" and n != "auto"]
)
def test_a_miniature_brings_its_size_prompts_and_scorer_and_the_published_steps_stay(
    composed: Composed, name: str
) -> None:
    published = composed(f"model={name}").model
    found = composed(f"model={name}", "model.weights=mini").model
    mini = dict(catalogue.entry(str(found.mini)))
    if models.unmeasured(found) is not None:
        # Weights of random numbers have no scorer.
        mini["scorer"] = None
    assert {key: getattr(found, key) for key in MINI} == {key: mini[key] for key in MINI}
    for key in ("steps", "guidance_scale", "pipeline", "id"):
        assert getattr(found, key) == getattr(published, key)


def test_what_is_asked_for_wins_over_the_miniatures_own(composed: Composed) -> None:
    found = composed("model=sd15", "model.weights=mini", "model.height=96", "model.steps=7").model
    assert (found.height, found.width, found.steps) == (96, 64, 7)


def test_a_model_of_the_same_class_runs_its_miniature_under_its_published_id(
    composed: Composed,
) -> None:
    model = composed("model=sd15", "model.weights=mini").model
    found = locate(model)
    assert (found.path_or_id, found.is_mini) == (str(models.CHECKPOINTS / "sd-mini"), True)
    assert model.id.startswith("stable-diffusion-v1-5/")


def test_the_quality_of_random_numbers_is_measured_nowhere(
    composed: Composed, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(models, "CHECKPOINTS", tmp_path)
    folder = pipeline_folder(tmp_path / "sd-mini")
    (folder / "training.json").write_text('{"preset": "cpu"}')
    assert composed().model.scorer == "mini"
    (folder / "training.json").write_text('{"random": true}')
    for override in ("model=sd-mini", "model=sd15"):
        config = composed(override, "model.weights=mini", "model.scorer=mini")
        assert config.model.scorer is None
        assert (config.goal.max_loss, config.goal.accuracy_drop) == (None, None)
        assert "sd-mini is not trained yet" in str(models.unmeasured(config.model))
    config = composed("model=sdxl", "model.weights=random", "model.scorer=mini")
    assert (config.model.scorer, config.goal.max_loss) == (None, None)
    with pytest.raises(UsageError, match=r"goal\.quality=same_image needs trained weights"):
        composed("model=sdxl", "model.weights=random", "goal.quality=same_image")


# --- layouts and damage


def test_a_folder_of_the_hubs_cache_is_taken_at_its_main_revision(
    composed: Composed, tmp_path: Path
) -> None:
    cached = tmp_path / "models--me--mine"
    for revision in ("a" * 40, "b" * 40):
        pipeline_folder(cached / "snapshots" / revision)
    (cached / "refs").mkdir()
    (cached / "refs" / "main").write_text("a" * 40)
    found = locate(composed("model=sd15", f"model.weights={cached}").model)
    assert found.path_or_id == str(cached / "snapshots" / ("a" * 40))


def test_a_damaged_file_of_the_cache_is_named_and_a_lost_one_is_fetched_again(
    composed: Composed, offline: Path
) -> None:
    cached = offline / "models--stable-diffusion-v1-5--stable-diffusion-v1-5"
    folder = pipeline_folder(cached / "snapshots" / ("a" * 40))
    (cached / "refs").mkdir()
    (cached / "refs" / "main").write_text("a" * 40)
    truncate(folder)
    with pytest.raises(UsageError, match="is damaged"):
        locate(composed("model=sd15").model)
    lose_a_shard(folder)
    with pytest.raises(UsageError, match="is not in the local cache"):
        locate(composed("model=sd15").model)


@pytest.mark.parametrize(
    ("error", "words"),
    [
        ("GatedRepoError", "is gated: accept its terms at .* and run `hf auth login`"),
        ("RepositoryNotFoundError", "the hub has no .* at revision main; check model.id"),
        ("RevisionNotFoundError", "at revision main; check model.id and model.revision"),
    ],
)
def test_what_the_hub_answers_is_said_with_what_to_do(
    composed: Composed, offline: Path, monkeypatch: pytest.MonkeyPatch, error: str, words: str
) -> None:
    import httpx
    from huggingface_hub import errors

    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    response = httpx.Response(404, request=httpx.Request("GET", "https://huggingface.co"))

    def refuse(self: object, *_: object, **__: object) -> None:
        raise getattr(errors, error)("no", response=response)

    monkeypatch.setattr("huggingface_hub.HfApi.model_info", refuse)
    with pytest.raises(UsageError, match=words):
        locate(composed("model=sd15").model)


def test_an_id_that_is_none_is_refused(composed: Composed, offline: Path) -> None:
    with pytest.raises(UsageError, match=r"'a/b/c' is no id of the hub; type model\.id=ORG/NAME"):
        locate(composed("model=sd15", "model.id=a/b/c").model)
