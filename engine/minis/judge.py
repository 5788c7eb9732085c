"""Images of a miniature of any class, and what the exact checker says of them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from engine.minis import pipelines, scenes
from engine.minis.checker import check

BATCH = 20
FEW_STEPS = 4
"""Steps of a second set of images, in which many are wrong."""


def draw(pipeline: Any, captions: list[str], steps: int, **changed: Any) -> list[NDArray[np.uint8]]:
    """An image for each caption with its index as the seed, by a miniature of any class;
    ``changed`` are further keywords of its call."""
    images: list[NDArray[np.uint8]] = []
    for start in range(0, len(captions), BATCH):
        part = captions[start : start + BATCH]
        given = pipelines.arguments(pipeline, part, [start + i for i in range(len(part))])
        output = pipeline(**given | changed, num_inference_steps=steps)
        images += [np.asarray(image, np.uint8) for image in output.images]
    return images


def judged(images: list[NDArray[np.uint8]], captions: list[str]) -> dict[str, float]:
    """Checker accuracy over all captions (``accuracy``), and over those with one and with two
    objects (``accuracy_one``, ``accuracy_two``) where there are any."""
    right: dict[str, list[bool]] = {"accuracy_one": [], "accuracy_two": [], "accuracy": []}
    for image, caption in zip(images, captions, strict=True):
        scene = scenes.parse(caption)
        if scene is None:
            raise ValueError(f"not a scene caption: {caption!r}")
        ok = check(image, caption).ok
        right["accuracy"].append(ok)
        right["accuracy_one" if scene.relation is None else "accuracy_two"].append(ok)
    return {name: float(np.mean(values)) for name, values in right.items() if values}


def scorer_folder(folder: Path) -> Path:
    """The CLIP beside a miniature's folder, or else the one that ships."""
    beside = folder.parent / "clip"
    return beside if beside.is_dir() else Path(__file__).parent / "checkpoints" / "clip"
