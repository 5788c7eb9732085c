"""Counts with their intervals, and tables of them."""

from __future__ import annotations

from collections.abc import Iterable

from engine.measure.statistics import wilson


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
