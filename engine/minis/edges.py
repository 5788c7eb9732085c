"""Edges of a scene as a control image: white lines on black, where a ControlNet has to draw."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from engine.minis import scenes
from engine.minis.checker import nearest
from engine.minis.scenes import BACKGROUNDS, COLOURS, Scene

WIDTH = 1.0
"""Half the width of a line in pixels."""


def of(scene: Scene) -> NDArray[np.float32]:
    """The outlines of a scene's shapes, H x W x 3 in [0, 1]: what an edge detector would find in
    its exact picture, without the detector's thresholds."""
    lines = np.zeros((scenes.SIZE, scenes.SIZE), np.float32)
    for item in scene.items:
        gap = np.abs(scenes.distance(item.shape, item.x, item.y, item.radius))
        lines = np.maximum(lines, np.clip(WIDTH + 0.5 - gap, 0, 1))
    return np.asarray(np.repeat(lines[..., None], 3, axis=2), np.float32)


def placed(caption: str, seed: int) -> Scene:
    """A scene that the caption names, placed by the seed; raises ValueError for a caption outside
    the grammar."""
    scene = scenes.parse(caption)
    if scene is None:
        raise ValueError(f"not a scene caption: {caption!r}")
    return scenes.placed(scene, np.random.default_rng((7, seed)))


def picture(caption: str, seed: int) -> Any:
    """The control image of :func:`placed` as a PIL image."""
    from PIL import Image

    whole = (255 * of(placed(caption, seed))).round().astype(np.uint8)
    return Image.fromarray(whole)


def overlap(image: NDArray[np.uint8], scene: Scene) -> float:
    """How well an image's objects cover the scene's: intersection over union of each object's
    pixels, the worst object counts; 0 to 1."""
    wanted = nearest((255 * scenes.render(scene)).round().astype(np.uint8))
    drawn = nearest(image)
    names = [*COLOURS, *BACKGROUNDS]
    shares = []
    for item in scene.items:
        index = names.index(item.colour)
        both = ((wanted == index) & (drawn == index)).sum()
        shares.append(float(both / max(1, ((wanted == index) | (drawn == index)).sum())))
    return min(shares)
