"""Exact checker: does an image show what its caption says?

It knows the palette and the shapes' formulas, and no model: each pixel goes to the nearest
palette entry, each named object must be the one large blob of its colour with the named shape,
nothing else may be large, and the centres must stand in the named relation.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from engine.minis import scenes
from engine.minis.scenes import BACKGROUNDS, COLOURS, SHAPES, SIZE, Scene

MIN_AREA = 50
"""Pixels below which a colour counts as noise (the smallest drawn object covers about 180)."""
MIN_OVERLAP = 0.68
"""Intersection over union with the named shape's template."""


@dataclass(frozen=True)
class Verdict:
    """``ok`` and, if not, the first reason in words."""

    ok: bool
    reason: str = ""


def check(image: NDArray[np.uint8], caption: str) -> Verdict:
    """Compare an image (H x W x 3, uint8) with a caption of the scenes' grammar.

    Raises ValueError for a caption outside the grammar: the checker cannot judge it.
    """
    scene = scenes.parse(caption)
    if scene is None:
        raise ValueError(f"not a scene caption: {caption!r}")
    if image.shape != (SIZE, SIZE, 3):
        return Verdict(False, f"image is {image.shape}, expected {(SIZE, SIZE, 3)}")
    labels = nearest(image)
    names = [*COLOURS, *BACKGROUNDS]
    border = np.concatenate([labels[0], labels[-1], labels[:, 0], labels[:, -1]])
    background = names[int(np.bincount(border, minlength=len(names)).argmax())]
    if background != scene.background:
        return Verdict(False, f"background is {background}, not {scene.background}")
    return _check_items(labels, names, scene)


def _check_items(labels: NDArray[np.intp], names: list[str], scene: Scene) -> Verdict:
    centres = []
    wanted = {item.colour for item in scene.items}
    for item in scene.items:
        mask = _largest(labels == names.index(item.colour))
        if mask.sum() < MIN_AREA:
            return Verdict(False, f"no {item.colour} object")
        shape, overlap = classify(mask)
        if shape != item.shape or overlap < MIN_OVERLAP:
            return Verdict(False, f"the {item.colour} object is no {item.shape} ({overlap:.2f})")
        rows, columns = np.nonzero(mask)
        centres.append(
            ((columns.min() + columns.max()) / 2, (rows.min() + rows.max()) / 2),
        )
    for name in COLOURS:
        extra = _core(labels == names.index(name))
        if name not in wanted and _largest(extra).sum() > MIN_AREA:
            return Verdict(False, f"an extra {name} object")
    if scene.relation is not None and _relation(*centres) != scene.relation:
        return Verdict(False, f"not {scene.relation}")
    return Verdict(True)


def _relation(a: tuple[float, float], b: tuple[float, float]) -> str:
    dx, dy = a[0] - b[0], a[1] - b[1]
    if abs(dx) >= abs(dy):
        return "left of" if dx < 0 else "right of"
    return "above" if dy < 0 else "below"


def nearest(image: NDArray[np.uint8]) -> NDArray[np.intp]:
    """Index of each pixel's nearest palette entry, the colours before the backgrounds."""
    palette = np.asarray([*COLOURS.values(), *BACKGROUNDS.values()], np.float32)
    gaps = image.astype(np.float32)[:, :, None, :] - palette
    return np.asarray((gaps**2).sum(-1).argmin(-1))


def _core(mask: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """Pixels whose four neighbours share the label: edge blends of two colours fall away."""
    inner = mask.copy()
    inner[1:] &= mask[:-1]
    inner[:-1] &= mask[1:]
    inner[:, 1:] &= mask[:, :-1]
    inner[:, :-1] &= mask[:, 1:]
    return inner


def _largest(mask: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """The largest 4-connected component, by spreading the largest label until it rests."""
    ids = np.where(mask, np.arange(1, mask.size + 1).reshape(mask.shape), 0)
    while True:
        padded = np.pad(ids, 1)
        best = np.maximum.reduce(
            [ids, padded[:-2, 1:-1], padded[2:, 1:-1], padded[1:-1, :-2], padded[1:-1, 2:]]
        )
        best = np.where(mask, best, 0)
        if np.array_equal(best, ids):
            break
        ids = best
    counts = np.bincount(ids.ravel())
    counts[0] = 0
    return np.asarray(ids == counts.argmax()) & mask if counts.any() else np.zeros_like(mask)


def classify(mask: NDArray[np.bool_]) -> tuple[str, float]:
    """The shape whose template at the mask's bounding box overlaps it best, and how well."""
    rows, columns = np.nonzero(mask)
    top, bottom, left, right = rows.min(), rows.max() + 1, columns.min(), columns.max() + 1
    x, y = (left + right) / 2, (top + bottom) / 2
    half = (right - left + bottom - top) / 4
    best = ("", 0.0)
    for shape in SHAPES:
        # Each formula's own relation of bounding box to radius and centre.
        radius, centre_y = half, y
        if shape == "square":
            radius = half / 0.88
        elif shape == "triangle":
            radius = ((right - left) / 2 + (bottom - top) / 1.75) / 2
            centre_y = top + radius
        template = scenes.distance(shape, x, centre_y, radius) < 0
        overlap = (template & mask).sum() / max(1, (template | mask).sum())
        if overlap > best[1]:
            best = (shape, float(overlap))
    return best
