"""Damage to images and captions: hard negatives in training, a ladder in tests.

A score that damage does not lower says nothing about quality, so the CLIP ships only if each
step of :func:`image_ladder` and each kind of :func:`wrong_scene` costs it something.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from engine.minis import scenes
from engine.minis.scenes import BACKGROUNDS, COLOURS, RELATIONS, SHAPES, Image, Scene

KINDS = ("relation", "shape", "colour", "background")
_OPPOSITE = dict(zip(RELATIONS, ("right of", "left of", "below", "above"), strict=True))


def wrong_scene(scene: Scene, kind: str, rng: np.random.Generator) -> Scene:
    """The scene with one thing wrong, placed afresh.

    ``kind`` is one of KINDS; "relation" needs two objects.
    """
    if kind == "relation":
        if scene.relation is None:
            raise ValueError("a scene with one object has no relation")
        return scenes.placed(replace(scene, relation=_OPPOSITE[scene.relation]), rng)
    if kind == "background":
        return scenes.placed(
            replace(scene, background=_other(BACKGROUNDS, {scene.background}, rng)), rng
        )
    index = int(rng.integers(len(scene.items)))
    item = scene.items[index]
    if kind == "shape":
        item = replace(item, shape=_other(SHAPES, {item.shape}, rng))
    elif kind == "colour":
        item = replace(item, colour=_other(COLOURS, {i.colour for i in scene.items}, rng))
    else:
        raise ValueError(f"unknown kind of damage {kind!r}; kinds are {', '.join(KINDS)}")
    items = (*scene.items[:index], item, *scene.items[index + 1 :])
    return scenes.placed(replace(scene, items=items), rng)


def _other(pool: object, taken: set[str], rng: np.random.Generator) -> str:
    choices = [name for name in pool if name not in taken]  # type: ignore[attr-defined]
    return str(choices[rng.integers(len(choices))])


def noisy(image: Image, strength: float, rng: np.random.Generator) -> Image:
    """Gaussian noise with that standard deviation (images are in [0, 1])."""
    return np.clip(image + rng.normal(0, strength, image.shape), 0, 1).astype(np.float32)


def blurred(image: Image, width: int) -> Image:
    """Box blur over ``width`` pixels in both directions."""
    for axis in (0, 1):
        pad = [(0, 0)] * 3
        pad[axis] = (width // 2, (width - 1) // 2)
        padded = np.pad(image, pad, mode="edge")
        sums = np.cumsum(
            np.concatenate([np.zeros_like(padded.take([0], axis)), padded], axis), axis
        )
        size = image.shape[axis]
        upper = sums.take(range(width, width + size), axis)
        image = ((upper - sums.take(range(size), axis)) / width).astype(np.float32)
    return image


def melted(scene: Scene, rng: np.random.Generator) -> Image:
    """The scene with each outline blended into another shape's and warped, as half-trained or
    over-accelerated models draw it."""
    picture = np.empty((scenes.SIZE, scenes.SIZE, 3), np.float32)
    picture[:] = np.asarray(BACKGROUNDS[scene.background], np.float32) / 255
    for item in scene.items:
        other = _other(SHAPES, {item.shape}, rng)
        own = scenes.distance(item.shape, item.x, item.y, item.radius)
        mixed = scenes.distance(other, item.x, item.y, item.radius)
        share = rng.uniform(0.35, 0.65)
        phase = rng.uniform(0, 2 * np.pi, 2)
        yy, xx = np.mgrid[0 : scenes.SIZE, 0 : scenes.SIZE]
        waves = np.sin(xx / 3.5 + phase[0]) + np.sin(yy / 3.5 + phase[1])
        edge = (1 - share) * own + share * mixed + rng.uniform(0.4, 1.4) * waves
        alpha = scenes.coverage(edge.astype(np.float32))[..., None]
        picture += alpha * (np.asarray(COLOURS[item.colour], np.float32) / 255 - picture)
    return picture


def image_ladder(
    images: NDArray[np.float32], rng: np.random.Generator
) -> dict[str, list[tuple[float, NDArray[np.float32]]]]:
    """Copies of a batch (N, 64, 64, 3) at rising strengths of noise and of blur."""
    return {
        "noise": [(s, np.stack([noisy(i, s, rng) for i in images])) for s in (0.1, 0.2, 0.3, 0.5)],
        "blur": [(w, np.stack([blurred(i, w) for i in images])) for w in (5, 9, 15, 23)],
    }
