"""Scenes, captions and the exact checker."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from numpy.typing import NDArray

from engine.minis import damage, scenes
from engine.minis.checker import check, classify
from engine.minis.scenes import Item, Scene


def drawn(scene: Scene) -> NDArray[np.uint8]:
    return (255 * scenes.render(scene)).round().astype(np.uint8)


@pytest.fixture
def rng() -> np.random.Generator:
    return np.random.default_rng(0)


def test_every_caption_is_read_back_as_the_scene_that_it_names() -> None:
    for caption in (*scenes.captions(1), *scenes.captions(2)):
        scene = scenes.parse(caption)
        assert scene is not None
        assert scene.caption == caption
    assert scenes.parse("a photograph of a cat") is None


def test_training_and_evaluation_share_no_caption(rng: np.random.Generator) -> None:
    trained = {scenes.sample(rng).caption for _ in range(500)}
    assert not trained & set(scenes.evaluation_captions(300, rng))
    share = np.mean([scenes.held_out(c) for c in scenes.captions(2)])
    assert share == pytest.approx(scenes.HELD_OUT_SHARE, abs=0.02)


def test_every_rendered_scene_passes_the_checker(rng: np.random.Generator) -> None:
    for training in (True, False):
        for _ in range(150):
            scene = scenes.sample(rng, training=training)
            verdict = check(drawn(scene), scene.caption)
            assert verdict.ok, (scene.caption, verdict.reason)


@pytest.mark.parametrize("kind", damage.KINDS)
def test_one_thing_wrong_fails_the_checker(kind: str, rng: np.random.Generator) -> None:
    for _ in range(50):
        scene = scenes.sample(rng, two=1.0)
        assert not check(drawn(damage.wrong_scene(scene, kind, rng)), scene.caption).ok


def test_the_first_reason_is_named() -> None:
    red = Scene((Item("circle", "red"),), "white")
    picture = drawn(red)
    assert check(picture, red.caption).ok
    assert "background" in check(picture, replace(red, background="black").caption).reason
    blue = Scene((Item("circle", "blue"),), "white")
    assert check(picture, blue.caption).reason == "no blue object"
    square = Scene((Item("square", "red"),), "white")
    assert "is no square" in check(picture, square.caption).reason


def test_an_extra_object_fails() -> None:
    scene = Scene((Item("circle", "red", 16, 32, 10), Item("ring", "blue", 48, 32, 10)), "white")
    alone = Scene(scene.items[:1], "white")
    assert check(drawn(scene), alone.caption).reason == "an extra blue object"


def test_a_blank_or_wrong_sized_image_fails_and_a_foreign_caption_is_refused() -> None:
    caption = "a red circle on a white background"
    assert not check(np.full((64, 64, 3), 248, np.uint8), caption).ok
    assert "expected" in check(np.zeros((32, 32, 3), np.uint8), caption).reason
    with pytest.raises(ValueError, match="not a scene caption"):
        check(np.zeros((64, 64, 3), np.uint8), "a cat")


@pytest.mark.parametrize("shape", scenes.SHAPES)
@pytest.mark.parametrize("radius", [9.5, 12.0, 18.0])
def test_every_shape_is_recognised_at_every_size(shape: str, radius: float) -> None:
    mask = scenes.distance(shape, 32, 32, radius) < 0
    name, overlap = classify(mask)
    assert name == shape
    assert overlap > 0.8


def test_damage_keeps_the_range_and_grows(rng: np.random.Generator) -> None:
    image = scenes.render(scenes.sample(rng))
    gaps = [np.abs(damage.noisy(image, s, rng) - image).mean() for s in (0.1, 0.2, 0.4)]
    assert gaps == sorted(gaps)
    assert damage.blurred(image, 9).shape == image.shape
    assert damage.blurred(np.ones_like(image), 9) == pytest.approx(1.0)
    melted = damage.melted(scenes.sample(rng), rng)
    assert melted.min() >= 0
    assert melted.max() <= 1
