"""Intervals for counts: shares of few tries without an assumption about many."""

from __future__ import annotations

import math
from collections.abc import Iterable
from statistics import NormalDist


def wilson(hits: int, tries: int, confidence: float = 0.95) -> tuple[float, float]:
    """The score interval of a share (Wilson, JASA 22, 1927): never outside 0 to 1, and of sensible
    width where all tries hit or none. Raises ValueError without a try or for impossible counts."""
    if not 0 <= hits <= tries or tries < 1:
        raise ValueError(f"{hits} hits of {tries} tries")
    z = NormalDist().inv_cdf((1 + confidence) / 2)
    share = hits / tries
    middle = share + z * z / (2 * tries)
    half = z * math.sqrt(share * (1 - share) / tries + z * z / (4 * tries * tries))
    scale = 1 + z * z / tries
    # Where all hit or none, rounding must not leave the end out.
    low = 0.0 if hits == 0 else (middle - half) / scale
    high = 1.0 if hits == tries else (middle + half) / scale
    return low, high


def shown(hits: int, tries: int) -> str:
    """``29/30 (83 to 99 %)``; only ``0/0`` where nothing was tried."""
    if not tries:
        return "0/0"
    low, high = wilson(hits, tries)
    return f"{hits}/{tries} ({100 * low:.0f} to {100 * high:.0f} %)"


def table(head: Iterable[str], rows: Iterable[Iterable[object]]) -> str:
    """A Markdown table, the first column aligned left and the others right."""
    titles = list(head)
    lines = ["| " + " | ".join(titles) + " |", "|---" + "|--:" * (len(titles) - 1) + "|"]
    lines += ["| " + " | ".join(map(str, row)) + " |" for row in rows]
    return "\n".join(lines)
