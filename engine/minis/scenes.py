"""Captioned scenes of coloured shapes, rendered exactly.

A scene has one or two objects of different colours on a plain background; its caption says all
that a checker needs. Shapes are signed distance functions sampled at pixel centres, so the same
formulas render a training image and serve the checker as templates.
"""

from __future__ import annotations

import hashlib
import re
from dataclasses import dataclass, replace
from functools import cache

import numpy as np
from numpy.typing import NDArray

SIZE = 64
"""Side of a scene in pixels."""

COLOURS: dict[str, tuple[int, int, int]] = {
    "red": (222, 40, 40),
    "green": (30, 160, 60),
    "blue": (40, 80, 225),
    "yellow": (245, 205, 30),
    "purple": (150, 50, 190),
    "cyan": (40, 200, 215),
}
BACKGROUNDS: dict[str, tuple[int, int, int]] = {
    "white": (248, 248, 248),
    "black": (16, 16, 16),
    "gray": (128, 128, 128),
}
SHAPES = ("circle", "square", "triangle", "ring")
RELATIONS = ("left of", "right of", "above", "below")
HELD_OUT_SHARE = 0.15
"""Share of captions never trained on; membership is a hash of the caption."""

Image = NDArray[np.float32]


@dataclass(frozen=True)
class Item:
    """One object; centre and radius in pixels."""

    shape: str
    colour: str
    x: float = SIZE / 2
    y: float = SIZE / 2
    radius: float = 14.0


@dataclass(frozen=True)
class Scene:
    """One or two items; ``relation`` is that of the first to the second."""

    items: tuple[Item, ...]
    background: str
    relation: str | None = None

    @property
    def caption(self) -> str:
        first = f"a {self.items[0].colour} {self.items[0].shape}"
        if self.relation is None:
            return f"{first} on a {self.background} background"
        second = f"a {self.items[1].colour} {self.items[1].shape}"
        return f"{first} {self.relation} {second} on a {self.background} background"


_CAPTION = re.compile(
    rf"^a ({'|'.join(COLOURS)}) ({'|'.join(SHAPES)})"
    rf"(?: ({'|'.join(RELATIONS)}) a ({'|'.join(COLOURS)}) ({'|'.join(SHAPES)}))?"
    rf" on a ({'|'.join(BACKGROUNDS)}) background$"
)


def parse(caption: str) -> Scene | None:
    """The scene that a caption names (positions left at their defaults), or None."""
    match = _CAPTION.match(caption.strip().lower())
    if match is None:
        return None
    colour, shape, relation, colour2, shape2, background = match.groups()
    items = [Item(shape, colour)]
    if relation:
        items.append(Item(shape2, colour2))
    return Scene(tuple(items), background, relation)


def held_out(caption: str) -> bool:
    """Whether a caption belongs to the part that training never sees."""
    digest = hashlib.sha256(caption.encode()).digest()
    return int.from_bytes(digest[:4], "big") < HELD_OUT_SHARE * 2**32


@cache
def captions(objects: int) -> tuple[str, ...]:
    """Every caption with that many objects (1 or 2), in a fixed order."""
    single = [(c, s) for c in COLOURS for s in SHAPES]
    scenes = []
    for background in BACKGROUNDS:
        for colour, shape in single:
            if objects == 1:
                scenes.append(Scene((Item(shape, colour),), background))
                continue
            for relation in RELATIONS:
                scenes.extend(
                    Scene((Item(shape, colour), Item(s2, c2)), background, relation)
                    for c2, s2 in single
                    if c2 != colour
                )
    return tuple(scene.caption for scene in scenes)


def placed(scene: Scene, rng: np.random.Generator) -> Scene:
    """The scene with random positions and sizes that satisfy its relation."""
    if scene.relation is None:
        radius = rng.uniform(11, 19)
        low, high = radius + 3, SIZE - radius - 3
        x, y = rng.uniform(low, high, 2)
        return replace(scene, items=(replace(scene.items[0], x=x, y=y, radius=radius),))
    near, far = rng.uniform(15, 19), rng.uniform(45, 49)
    across = rng.uniform(25, 39, 2)
    radii = rng.uniform(9.5, 12, 2)
    along = (near, far) if scene.relation in ("left of", "above") else (far, near)
    horizontal = scene.relation in ("left of", "right of")
    items = []
    for item, a, b, radius in zip(scene.items, along, across, radii, strict=True):
        x, y = (a, b) if horizontal else (b, a)
        items.append(replace(item, x=float(x), y=float(y), radius=float(radius)))
    return replace(scene, items=tuple(items))


def sample(rng: np.random.Generator, *, two: float = 0.65, training: bool = True) -> Scene:
    """A random placed scene whose caption lies in the training (or the held-out) part."""
    while True:
        pool = captions(2 if rng.random() < two else 1)
        caption = pool[rng.integers(len(pool))]
        if held_out(caption) != training:
            scene = parse(caption)
            assert scene is not None
            return placed(scene, rng)


def evaluation_captions(count: int, rng: np.random.Generator) -> list[str]:
    """Held-out captions, two in five with one object, spread evenly over the pool."""
    ones = [c for c in captions(1) if held_out(c)]
    twos = [c for c in captions(2) if held_out(c)]
    number = count * 2 // 5
    first = [ones[i % len(ones)] for i in range(number)]
    return first + [twos[i] for i in rng.permutation(len(twos))[: count - number]]


_YY, _XX = np.mgrid[0:SIZE, 0:SIZE].astype(np.float32) + 0.5


def distance(shape: str, x: float, y: float, radius: float) -> Image:
    """Signed distance to a shape's edge in pixels, negative inside; SIZE x SIZE."""
    dx, dy = _XX - x, _YY - y
    if shape == "circle":
        return np.asarray(np.hypot(dx, dy) - radius)
    if shape == "ring":
        return np.asarray(np.abs(np.hypot(dx, dy) - 0.74 * radius) - 0.26 * radius)
    if shape == "square":
        return np.asarray(np.maximum(np.abs(dx), np.abs(dy)) - 0.88 * radius)
    if shape == "triangle":
        # Upright isosceles: apex at -radius, base at +0.75 radius, half base = radius.
        slope = np.hypot(1.75, 1.0)
        sides = (1.75 * np.abs(dx) - (dy + radius)) / slope
        return np.asarray(np.maximum(sides, dy - 0.75 * radius))
    raise ValueError(f"unknown shape {shape!r}; shapes are {', '.join(SHAPES)}")


def coverage(edge: Image) -> Image:
    """Anti-aliased share of each pixel inside a shape, from its signed distance."""
    return np.asarray(np.clip(0.5 - edge, 0.0, 1.0), np.float32)


def render(scene: Scene) -> Image:
    """The scene as floats in [0, 1], SIZE x SIZE x 3."""
    picture = np.empty((SIZE, SIZE, 3), np.float32)
    picture[:] = np.asarray(BACKGROUNDS[scene.background], np.float32) / 255
    for item in scene.items:
        alpha = coverage(distance(item.shape, item.x, item.y, item.radius))[..., None]
        picture += alpha * (np.asarray(COLOURS[item.colour], np.float32) / 255 - picture)
    return picture
