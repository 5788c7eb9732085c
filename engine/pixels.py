"""What pictures alone tell about how they were made; arrays are uint8, height x width x 3."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

Image = NDArray[np.uint8]


SAME = 1.0
"""Distance in grey levels below which two pictures are one."""
TOLD_APART = 4.0
"""Distance in grey levels from which two pictures of a baseline are surely two.

Where its own are nearer, both nearly blank, another program's may be one picture by honest means.
Of the pairs that DiffBench's references draw, `python -m tests.benchmarks.near_pairs` finds two of
19,035 below, at 0.9 and 2.7; the next lie at 8.2 and 15.2."""


def distance(a: Image, b: Image) -> float:
    """Root mean square difference in grey levels, 0 to 255; infinite where the sizes differ."""
    if a.shape != b.shape:
        return float("inf")
    return float(np.sqrt(np.mean((a.astype(np.float64) - b.astype(np.float64)) ** 2)))


def nearest_pair(
    images: Sequence[Image], names: Sequence[str], base: Sequence[Image]
) -> tuple[float, int, int] | None:
    """The smallest distance between two images of different names, and their places; None where
    there are no two. Pairs that ``base`` hardly tells apart either are left out: they say nothing
    of these images."""
    best: tuple[float, int, int] | None = None
    for i in range(len(images)):
        for j in range(i):
            if names[i] != names[j] and distance(base[i], base[j]) >= TOLD_APART:
                apart = distance(images[i], images[j])
                if best is None or apart < best[0]:
                    best = (apart, j, i)
    return best


def detail(image: Image) -> float:
    """Energy in the upper half of the frequencies along either side, of the brightness.

    Pixels that were enlarged by two from a smaller picture have next to none of it.
    """
    grey = image.astype(np.float64).mean(axis=2)
    # A window, since the seam between opposite borders would count as detail.
    window = np.outer(np.hanning(grey.shape[0]), np.hanning(grey.shape[1]))
    power = np.abs(np.fft.fft2((grey - grey.mean()) * window)) ** 2
    high = np.maximum(
        np.abs(np.fft.fftfreq(grey.shape[0]))[:, None],
        np.abs(np.fft.fftfreq(grey.shape[1]))[None, :],
    )
    return float(power[high > 0.25].sum())


def detail_kept(images: Sequence[Image], base: Sequence[Image]) -> float | None:
    """Median ratio of the detail of images to that of the baseline's of the same requests; None
    where the baseline's have none."""
    found = [
        detail(ours) / theirs
        for ours, base_image in zip(images, base, strict=True)
        if (theirs := detail(base_image)) > 0
    ]
    return float(np.median(found)) if found else None
