"""How the page shows contributions: a forest plot of the strongest, and a table of all."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from html import escape
from typing import Any

from engine.report import text
from engine.report.contributions import (
    LEAST,
    SEEN,
    Contributions,
    Effect,
    Estimate,
    contributions,
    measured,
)
from engine.report.drawing import WIDE, Size, both, markup, svg, ticks
from engine.report.material import Material

STRONGEST = 16
"""Effects in the plot; the table has all of them."""
FACTORS = (0.1, 0.2, 0.33, 0.5, 0.67, 0.8, 0.9, 1.0, 1.1, 1.25, 1.5, 2.0, 3.0, 5.0, 10.0)
"""Marks of the axis of speed."""


def view(material: Material) -> dict[str, Any]:
    """What the template shows: either figures, or the sentence that says why there are none."""
    name = text.loss_name(material.goal)
    found = contributions(material.searched)
    if found is None:
        count = len(measured(material.searched))
        have = f"{count} trial was" if count == 1 else f"{count} trials were"
        return {
            "plot": "",
            "rows": [],
            "words": [
                f"What each technique contributed is told from {LEAST} measured trials on; {have} "
                "measured."
            ],
        }
    plot = markup(both(lambda size: forest(found.effects, name, size)))
    return {
        "plot": plot,
        "rows": [_row(e) for e in found.effects],
        "loss": name,
        "words": _words(found, name),
        "shown": min(STRONGEST, len(_told(found.effects))),
    }


def _words(found: Contributions, name: str) -> list[str]:
    words = [
        f"From the {found.trials} trials that the search measured (not the later acceptance "
        "measurements). A technique: on against off, with its values as often as they were tried. "
        "A value: against the average of its technique. Intervals are 95 %, from a bootstrap over "
        "trials; bold ones leave out no effect.",
        "What this cannot tell: how techniques act together (it adds up one effect for each, and "
        "effects that cancel or reinforce each other end up in the average), and cause (the search "
        "chose what to try, and what it tried together is hard to keep apart). To know, measure "
        "the two compositions.",
    ]
    if found.explained_speed is not None:
        explained = f"Such a sum foresees {_share(found.explained_speed)} of the variance of the "
        explained += "speed-up (as a logarithm) in trials that it was not fitted to"
        if found.explained_loss is not None:
            explained += f", and {_share(found.explained_loss)} of that of the {name}"
        words.append(explained + ".")
    words += [
        f"Always on in the same trials, so that only their sum is known: {' and '.join(names)}."
        for names in found.together
    ]
    return words


def _share(value: float) -> str:
    return f"{max(0, round(100 * value))} %"


def factor(item: Estimate) -> tuple[str, str]:
    """A difference of logarithms as a factor, and its interval."""
    value, low, high = (math.exp(x) for x in (item.value, item.low, item.high))
    return text.ratio(value), text.ratio_interval(low, high)


def points(item: Estimate) -> tuple[str, str]:
    """A difference of losses in percentage points, and its interval."""
    bounds = (item.low, item.value, item.high)
    low, value, high = (f"{round(100 * x, 1) + 0.0:+.1f}" for x in bounds)
    return value, f"{low} to {high}"


def _row(effect: Effect) -> dict[str, Any]:
    return {
        "effect": effect,
        "speed": factor(effect.speed) if effect.speed else None,
        "loss": points(effect.loss) if effect.loss else None,
        "few": f"fewer than {SEEN} trials with or without",
    }


def _told(effects: Sequence[Effect]) -> list[Effect]:
    return [e for e in effects if e.speed is not None]


@dataclass(frozen=True)
class _Panel:
    """One column of the plot: its marks, and how a value becomes a place between its edges."""

    title: str
    marks: Sequence[float]
    words: Sequence[str]
    left: float
    right: float

    def x(self, value: float) -> float:
        share = (value - self.marks[0]) / (self.marks[-1] - self.marks[0])
        return round(self.left + min(max(share, 0.0), 1.0) * (self.right - self.left), 1)


def forest(effects: Sequence[Effect], name: str, size: Size) -> str:
    """The effects with the largest influence on speed, or on loss where nothing else differs, as
    points with intervals: speed on the left, loss on the right."""
    told = _told(effects)
    if not told:
        return ""
    strength = {id(e): _strength(e) for e in told}
    strongest = sorted(told, key=lambda e: -strength[id(e)])[:STRONGEST]
    rows = sorted(strongest, key=lambda e: -(e.speed.value if e.speed else 0.0))
    wide = size == WIDE
    step, first = (24, 58) if wide else (40, 62)
    start = 235.0 if wide else 12.0
    middle = (start + size[0]) / 2
    has_loss = any(e.loss for e in rows)
    speed = _speed_panel([e.speed for e in rows if e.speed], start + 4, middle - 14, wide)
    panels = [speed]
    if has_loss:
        losses = [e.loss for e in rows if e.loss]
        panels.append(_loss_panel(losses, name, middle + 14, size[0] - 14, wide))
    bottom = first + step * len(rows)
    body = [_grid(panel, first - 12, bottom - step / 2) for panel in panels]
    for i, effect in enumerate(rows):
        y = first + step * i + (0 if wide else 8)
        body.append(
            f'<text class="row" x="{start - 12}" y="{y + 4}" text-anchor="end">'
            f"{escape(_short(effect.label, 36))}</text>"
            if wide
            else f'<text class="row" x="8" y="{y - 11}">{escape(_short(effect.label, 46))}</text>'
        )
        body.append(_mark(speed, effect.speed, y))
        if has_loss:
            body.append(_mark(panels[1], effect.loss, y))
    title = f"Effects of techniques and values on speed-up and {name}"
    return svg((size[0], round(bottom)), title, "".join(body))


def _strength(effect: Effect) -> float:
    """Logarithm of speed plus ten times the loss: 1 % of loss weighs like 10 % of speed."""
    speed = abs(effect.speed.value) if effect.speed else 0.0
    return speed + 10 * (abs(effect.loss.value) if effect.loss else 0.0)


def _short(label: str, most: int) -> str:
    return label if len(label) <= most else label[: most - 1] + "\u2026"


def _speed_panel(found: Sequence[Estimate], left: float, right: float, wide: bool) -> _Panel:
    low, high = min(e.low for e in found), max(e.high for e in found)
    inside = [f for f in FACTORS if low <= math.log(f) <= high or f == 1.0]
    first, last = FACTORS.index(inside[0]), FACTORS.index(inside[-1])
    marks = [*FACTORS[max(first - 1, 0) : last + 2]]
    most = 6 if wide else 4
    kept = [marks[0], marks[-1], 1.0]
    for mark in marks[1:-1]:
        room = math.log(marks[-1] / marks[0]) / most
        if all(abs(math.log(mark / k)) >= room for k in kept):
            kept.append(mark)
    kept = sorted(set(kept))
    return _Panel("speed-up", [math.log(k) for k in kept], [f"{k:g}x" for k in kept], left, right)


def _loss_panel(
    found: Sequence[Estimate], name: str, left: float, right: float, wide: bool
) -> _Panel:
    low, high = 100 * min(e.low for e in found), 100 * max(e.high for e in found)
    marks = ticks(min(low, 0.0), max(high, 0.0), 5 if wide else 3)
    words = [f"{m:+g}" if m else "0" for m in marks]
    return _Panel(f"{name}, points", [m / 100 for m in marks], words, left, right)


def _grid(panel: _Panel, top: float, bottom: float) -> str:
    parts = []
    for mark, words in zip(panel.marks, panel.words, strict=True):
        x = panel.x(mark)
        kind = "zero" if mark == 0 else "grid"
        parts.append(f'<line class="{kind}" x1="{x}" x2="{x}" y1="{top}" y2="{bottom}"/>')
        parts.append(f'<text x="{x}" y="{top - 6}" text-anchor="middle">{words}</text>')
    middle = (panel.left + panel.right) / 2
    title = escape(panel.title)
    parts.append(
        f'<text class="axis" x="{middle}" y="{top - 24}" text-anchor="middle">{title}</text>'
    )
    return "".join(parts)


def _mark(panel: _Panel, item: Estimate | None, y: float) -> str:
    if item is None:
        return ""
    a, x, b = panel.x(item.low), panel.x(item.value), panel.x(item.high)
    kind = "point best" if item.clear else "point"
    return (
        f'<path class="whisker" d="M{a} {y}H{b}M{a} {y - 4}v8M{b} {y - 4}v8"/>'
        f'<circle class="{kind}" cx="{x}" cy="{y}" r="4"/>'
    )
