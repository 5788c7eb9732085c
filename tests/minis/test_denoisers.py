"""Training of the miniatures beside sd-mini: objectives, data, and every name's smallest run."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch

from engine.minis import denoisers, edges, families, folders, pipelines, scenes, tasks, train
from engine.minis.checker import check
from engine.minis.stages import Place
from engine.minis.train import CHECKPOINTS


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Place:
    return Place("cpu", False, tmp_path_factory.mktemp("work") / "one")


@pytest.fixture(scope="module")
def shared(place: Place) -> tasks.Shared:
    return tasks.load_shared(CHECKPOINTS, place)


def test_the_target_and_the_noisy_latent_give_back_the_clean_one() -> None:
    clean, noise = torch.randn(2, 8, 4, 16, 16)
    share = torch.arange(8) / 8
    kept = torch.linspace(0.99, 0.01, 1000)
    noisy, times, target = denoisers.mixed(clean, noise, share, kept)
    a = kept[times].sqrt().view(-1, 1, 1, 1)
    s = (1 - kept[times]).sqrt().view(-1, 1, 1, 1)
    assert torch.allclose(a * noisy - s * target, clean, atol=1e-3)


def test_a_flows_target_points_from_the_clean_latent_to_the_noise() -> None:
    clean, noise = torch.randn(2, 8, 4, 16, 16)
    noisy, times, target = denoisers.mixed(clean, noise, torch.rand(8), None)
    sigma = (times / 1000).view(-1, 1, 1, 1)
    assert torch.allclose(noisy - sigma * target, clean, atol=1e-4)


def test_the_class_model_sees_every_class_and_the_others_no_held_out_caption() -> None:
    classes = {scene.caption for scene in denoisers.pool_scenes("dit-mini", 200)}
    assert classes == set(scenes.captions(1))
    assert not any(scenes.held_out(s.caption) for s in denoisers.pool_scenes("sdxl-mini", 200))


def test_latents_are_encoded_once_and_belong_to_their_captions(
    shared: tasks.Shared, place: Place, tmp_path: Path
) -> None:
    pool = denoisers.pool_scenes("sdxl-mini", 6)
    latents, owners, captions = denoisers.encoded(pool, shared, place, tmp_path)
    files = list(tmp_path.iterdir())
    again, _, _ = denoisers.encoded(pool, shared, place, tmp_path)
    assert list(tmp_path.iterdir()) == files
    assert torch.equal(latents, again)
    denoisers.encoded(denoisers.pool_scenes("sdxl-mini", 5), shared, place, tmp_path)
    assert len(list(tmp_path.iterdir())) == 2
    with torch.no_grad():
        decoded = shared.vae.decode(latents.float() / shared.vae.config.scaling_factor).sample
    images = (255 * (decoded / 2 + 0.5).clamp(0, 1)).byte().permute(0, 2, 3, 1).numpy()
    for image, owner in zip(images, owners, strict=True):
        assert check(image, captions[owner]).ok


def test_edges_lie_on_the_outlines_and_nowhere_else() -> None:
    scene = edges.placed("a red circle left of a blue ring on a white background", 3)
    lines = edges.of(scene)[..., 0]
    on = [scenes.distance(i.shape, i.x, i.y, i.radius) for i in scene.items]
    near = (abs(on[0]) < 1) | (abs(on[1]) < 1)
    far = (abs(on[0]) > 2) & (abs(on[1]) > 2)
    assert lines[near].min() >= 0.5
    assert lines[far].max() == 0
    picture = (255 * scenes.render(scene)).round().astype("uint8")
    assert edges.overlap(picture, scene) == 1.0
    other = edges.placed(scene.caption, 4)
    assert edges.overlap((255 * scenes.render(other)).round().astype("uint8"), scene) < 0.9


def test_a_quiet_transformer_says_nothing_at_first_and_its_variance_learns_nothing(
    shared: tasks.Shared, place: Place
) -> None:
    task = tasks.build("dit-mini", shared, [], list(scenes.captions(1)), place, CHECKPOINTS)
    noisy, times = torch.randn(2, 4, 16, 16), torch.tensor([10, 900])
    rows = {"classes": task.table["classes"][[0, 5]]}
    assert rows["classes"].tolist() == [families.NULL_CLASS, 4]
    guess = task.predict(noisy, times, rows)
    assert guess.shape == noisy.shape
    assert not guess.any()
    loss = (guess - noisy).square().sum()
    (gradient,) = torch.autograd.grad(loss, [task.module.proj_out_2.weight])
    weight = gradient.view(4, 8, -1)
    assert weight[:, :4].any()
    assert not weight[:, 4:].any()


def test_a_projection_is_stored_beside_the_towers_own_file(
    shared: tasks.Shared, place: Place, tmp_path: Path
) -> None:
    from transformers import CLIPTextModelWithProjection

    pipeline = denoisers.untrained("sdxl-mini", place, CHECKPOINTS)
    out = tmp_path / "sdxl-mini"
    folders.write("sdxl-mini", pipeline, out, CHECKPOINTS)
    tower = (CHECKPOINTS / "sd-mini" / "text_encoder" / "model.safetensors").read_bytes()
    assert (out / "text_encoder_2" / folders.SHARDS[0]).read_bytes() == tower
    assert (out / "text_encoder" / "model.safetensors").read_bytes() == tower
    opened: Any = CLIPTextModelWithProjection.from_pretrained(
        out / "text_encoder_2", dtype=torch.float32
    )
    ids = torch.tensor([[581, 3, 582]])
    with torch.no_grad():
        assert torch.allclose(opened(ids).text_embeds, shared.text(ids).text_embeds, atol=1e-3)
    new = set(folders.distinct(out)) - set(folders.distinct(CHECKPOINTS / "sd-mini"))
    assert len(new) == 2, "the network itself and the projection"


@pytest.mark.slow
@pytest.mark.parametrize("name", [n for n in pipelines.NAMES if n != "sd-mini"])
def test_the_smallest_preset_trains_and_writes_a_folder_with_its_card(
    name: str, tmp_path: Path
) -> None:
    out = tmp_path / name
    assert train.main([name, "preset=smoke", f"out={out}", f"work={tmp_path / 'work'}"]) == 0
    card = json.loads((out / "card.json").read_text())
    assert card["pipeline"]["captions"] == 20
    assert not card["random"]
    readme = (out / "README.md").read_text()
    assert "checker accuracy" in readme
    assert "preset=smoke` on " in readme
    assert (out / "samples.png").exists()
    pipelines.open_pipeline(name, out)


@pytest.mark.slow
def test_a_random_miniature_says_so(tmp_path: Path) -> None:
    out = tmp_path / "dit-mini"
    assert train.main(["dit-mini", "preset=random", f"out={out}"]) == 0
    assert json.loads((out / "training.json").read_text())["random"] is True
    assert json.loads((out / "card.json").read_text()) == {"random": True}
    readme = (out / "README.md").read_text()
    assert "Random weights" in readme
    assert "Quality: not measured" in readme
