"""What the pictures of two programs for the same requests say of each other."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from engine import pixels
from engine.honesty import Measurements

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from engine.measure.quality import ClipScorer

FEWEST = 3
"""Different prompts below which pictures of other prompts are nothing to compare with."""


def measured(
    scorer: ClipScorer | None,
    images: Sequence[NDArray[np.uint8]],
    base: Sequence[NDArray[np.uint8]],
    prompts: Sequence[str],
) -> Measurements:
    """The nearest two pictures of prompts that the baseline tells apart, the detail that is kept,
    and how like the baseline's they are beside how like its own are among each other."""
    import numpy as np

    nearest = pixels.nearest_pair(images, prompts, base)
    likeness = None
    if scorer is not None and len(set(prompts)) >= FEWEST:
        alike, among = scorer.likeness(images, base), scorer.likeness(base, base)
        others = np.array([[a != b for b in prompts] for a in prompts])
        likeness = (float(np.diag(alike).mean()), float(among[others].mean()))
    return Measurements(
        distances=nearest and (nearest[0], prompts[nearest[1]], prompts[nearest[2]]),
        detail=pixels.detail_kept(images, base) if _alike(images, base) else None,
        likeness=likeness,
    )


def _alike(images: Sequence[NDArray[np.uint8]], base: Sequence[NDArray[np.uint8]]) -> bool:
    return all(a.shape == b.shape for a, b in zip(images, base, strict=True))
