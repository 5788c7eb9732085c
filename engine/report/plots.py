"""The plots of a study: its front among all trials, and how the search went on."""

from __future__ import annotations

from collections.abc import Container, Mapping, Sequence
from dataclasses import dataclass, replace
from html import escape
from itertools import pairwise
from typing import Any

from engine.goal import within_goal
from engine.report import text
from engine.report.drawing import Box, Frame, Size, svg, ticks
from engine.report.material import Material, Point, recommended
from engine.results import Result
from engine.search import archive

DOTS = 1000
"""Trials from which on those that lie on each other are drawn as one."""
CELL = 5
"""Size in pixels of the squares in which they then count as lying on each other."""


@dataclass(frozen=True)
class Dot:
    """A trial off the front, where it is drawn, and how many others it stands for."""

    trial: Result
    x: float
    y: float
    beyond: bool
    others: int = 0


def front(material: Material, size: Size, linked: Container[int]) -> str:
    """Loss against speed-up: the trials, the front with its intervals, the limit.

    ``linked`` are the trials that have a row on the page to go to.
    """
    limit = material.goal.get("max_loss")
    points = [p for p in material.points if p.speedup is not None and p.loss is not None]
    on_front = {p.trial for p in points}
    others = [t for t in material.trials if t.ok and t.loss is not None and t.trial not in on_front]
    frame, top = _front_frame(size, points, others, limit)
    timed = material.study.get("objective", "time") == "time"
    name = text.loss_name(material.goal)
    body = [frame.axes("speed-up" if timed else "saving in operations", f"{name}, %")]
    if limit is not None:
        body.append(_limit(frame, 100 * limit))
    dots = _dots(frame, others, top)
    body += [_dot(dot, dot.trial.trial in linked) for dot in dots]
    line = " ".join(f"{frame.x(p.speedup or 0)},{_at(frame, p.loss, top)}" for p in points)
    body.append(f'<polyline class="front" points="{line}"/>')
    body += [_whiskers(frame, p, top) for p in points]
    x, y = frame.x(1), frame.y(0)
    label = str((material.study.get("baseline") or {}).get("label", "baseline"))
    body.append(
        f'<rect class="baseline" x="{x - 5}" y="{y - 5}" width="10" height="10" '
        f'transform="rotate(45 {x} {y})"><title>baseline: {escape(label)}</title></rect>'
    )
    best = recommended(points)
    taken = [_box((x, y))] + [box for p in points for box in _covered(frame, p, top)]
    taken += [_box((dot.x, dot.y), 4) for dot in dots]
    labels = [("baseline", x, y)] + [
        (material.label(p.trial), frame.x(p.speedup or 0), _at(frame, p.loss, top)) for p in points
    ]
    body += [_point(frame, p, top, material.label(p.trial), p is best) for p in points]
    body += _labels(labels, taken, frame)
    return svg(size, f"{name.capitalize()} against speed-up, with the front", "".join(body))


def _front_frame(
    size: Size, points: Sequence[Point], others: Sequence[Result], limit: float | None
) -> tuple[Frame, float]:
    """The frame, and the loss in % above which trials are drawn at the upper edge.

    A few ruined trials must not press the front into the axis.
    """
    speeds = [1.0] + [t.speedup or 1.0 for t in others]
    losses = [0.0] + ([100 * limit * 1.5] if limit else [])
    for p in points:
        speeds += [s for s in (p.speedup, p.speedup_low, p.speedup_high) if s is not None]
        losses += [100 * x for x in (p.loss, p.loss_low, p.loss_high) if x is not None]
    needed = max(losses)
    seen = [100 * (t.loss or 0.0) for t in others]
    top = max([needed, *(x for x in seen if x <= max(2 * needed, 5.0))])
    low = min([*losses, *(x for x in seen if x >= -5.0)])
    wide = size[0] > 500
    xs = ticks(min(0.8, *speeds), max(1.2, *speeds), 9 if wide else 5)
    return Frame(size, xs, ticks(low, max(top, 1.0), 7 if wide else 6)), top


def _at(frame: Frame, loss: float | None, top: float) -> float:
    share = 100 * (loss or 0.0)
    return frame.y(min(max(share, frame.ys[0]), frame.ys[-1] if share > top else share))


def _limit(frame: Frame, limit: float) -> str:
    y = frame.y(limit)
    right = frame.size[0] - frame.right
    return (
        f'<line class="limit" x1="{frame.left}" x2="{right}" y1="{y}" y2="{y}"/>'
        f'<text class="limit" x="{frame.left + 5}" y="{y - 5}">limit {limit:g} %</text>'
    )


def _words(label: str, genome: Mapping[str, Any], speedup: float | None, loss: float | None) -> str:
    return escape(
        f"{label}: {text.describe(genome)}; {text.ratio(speedup)}, loss {text.percent(loss)}"
    )


def _dots(frame: Frame, trials: Sequence[Result], top: float) -> list[Dot]:
    """A dot a trial; where there are very many, one for all that lie in the same small square."""
    cells: dict[tuple[int, int], list[Dot]] = {}
    for number, trial in enumerate(trials):
        x, y = frame.x(trial.speedup or 0.0), _at(frame, trial.loss, top)
        crowded = len(trials) > DOTS
        cell = (round(x / CELL), round(y / CELL)) if crowded else (number, 0)
        dot = Dot(trial, x, y, 100 * (trial.loss or 0.0) > top)
        cells.setdefault(cell, []).append(dot)
    return [replace(found[0], others=len(found) - 1) for found in cells.values()]


def _dot(dot: Dot, linked: bool) -> str:
    x, y, trial = dot.x, dot.y, dot.trial
    title = _words(f"#{trial.trial}", trial.genome, trial.speedup, trial.loss)
    title += " (beyond the scale)" if dot.beyond else ""
    title += f"; and {dot.others} more here" if dot.others else ""
    shape = (
        f'<path class="trial" d="M{x - 4} {y + 4}L{x} {y - 3}L{x + 4} {y + 4}Z">'
        f"<title>{title}</title></path>"
        if dot.beyond
        else f'<circle class="trial" cx="{x}" cy="{y}" r="3"><title>{title}</title></circle>'
    )
    return f'<a href="#trial-{trial.trial}">{shape}</a>' if linked else shape


def _whiskers(frame: Frame, p: Point, top: float) -> str:
    x, y = frame.x(p.speedup or 0.0), _at(frame, p.loss, top)
    parts = []
    if p.speedup_low is not None and p.speedup_high is not None:
        a, b = frame.x(p.speedup_low), frame.x(p.speedup_high)
        parts.append(f"M{a} {y}H{b}M{a} {y - 4}v8M{b} {y - 4}v8")
    if p.loss_low is not None and p.loss_high is not None:
        a, b = _at(frame, p.loss_low, top), _at(frame, p.loss_high, top)
        parts.append(f"M{x} {a}V{b}M{x - 4} {a}h8M{x - 4} {b}h8")
    return f'<path class="whisker" d="{"".join(parts)}"/>' if parts else ""


def _point(frame: Frame, p: Point, top: float, label: str, best: bool) -> str:
    x, y = frame.x(p.speedup or 0.0), _at(frame, p.loss, top)
    kind, radius = ("point best", 7) if best else ("point", 5)
    return (
        f'<a href="#point-{p.trial}"><circle class="{kind}" cx="{x}" cy="{y}" r="{radius}">'
        f"<title>{_words(label, p.genome, p.speedup, p.loss)}</title></circle></a>"
    )


def _box(centre: tuple[float, float], radius: float = 7) -> Box:
    x, y = centre
    return (x - radius, y - radius, x + radius, y + radius)


def _covered(frame: Frame, p: Point, top: float) -> list[Box]:
    """What a point of the front and its whiskers cover."""
    x, y = frame.x(p.speedup or 0.0), _at(frame, p.loss, top)
    boxes = [_box((x, y))]
    if p.speedup_low is not None and p.speedup_high is not None:
        boxes.append((frame.x(p.speedup_low), y - 4, frame.x(p.speedup_high), y + 4))
    if p.loss_low is not None and p.loss_high is not None:
        boxes.append((x - 4, _at(frame, p.loss_high, top), x + 4, _at(frame, p.loss_low, top)))
    return boxes


def _labels(
    labels: Sequence[tuple[str, float, float]], taken: Sequence[Box], frame: Frame
) -> list[str]:
    """Labels beside their points, each at the first place that covers nothing placed before."""
    boxes = list(taken)
    parts = []
    for words, x, y in labels:
        width = 7.5 * len(words)
        places = [
            (x + 10, y - 8),
            (x - 10 - width, y - 8),
            (x + 10, y + 17),
            (x - 10 - width, y + 17),
            (x - width / 2, y - 14),
            (x - width / 2, y - 24),
            (x - width / 2, y + 32),
        ]
        inside = [
            (a, b)
            for a, b in places
            if frame.left <= a <= frame.size[0] - width and 12 <= b <= frame.size[1] - frame.bottom
        ]
        free = [
            (a, b)
            for a, b in inside or places
            if not any(
                a < r and a + width > left and b - 11 < bottom and b + 2 > t
                for left, t, r, bottom in boxes
            )
        ]
        a, b = (free or inside or places)[0]
        boxes.append((a, b - 11, a + width, b + 2))
        parts.append(f'<text class="label" x="{a:.1f}" y="{b:.1f}">{escape(words)}</text>')
    return parts


@dataclass(frozen=True)
class Progress:
    """What the study had found after each trial, in the order of trials."""

    trials: tuple[int, ...]
    best: tuple[float | None, ...]
    volume: tuple[float, ...]
    limit: float
    """Loss up to which the hypervolume counts."""


def gain(found: Sequence[tuple[float, float]], limit: float) -> float:
    """The gain in speed over 1, averaged over every loss allowed from 0 to ``limit``.

    It is the hypervolume of (speed-up, loss) pairs beyond the corner (1, ``limit``), divided by
    ``limit``. A negative loss counts as zero, so that noise earns nothing.
    """
    pairs = ((speed, max(loss, 0.0)) for speed, loss in found)
    return archive.hypervolume(pairs, (1.0, limit)) / limit


def counted(goal: Mapping[str, Any]) -> float:
    """The loss up to which the gain is averaged: twice the goal's limit."""
    return 2 * (goal.get("max_loss") or 0.05)


def progress(material: Material) -> Progress:
    """Best speed-up within the goal and mean gain (losses to twice the limit), by trial."""
    limit = counted(material.goal)
    best: list[float | None] = []
    volume: list[float] = []
    corners: list[tuple[float, float]] = []
    for trial in material.trials:
        last = best[-1] if best else None
        if within_goal(trial, material.goal) and trial.speedup is not None:
            last = max(last or 0.0, trial.speedup)
        now = volume[-1] if volume else 0.0
        if trial.ok and trial.speedup is not None and trial.loss is not None:
            own = (trial.speedup, max(trial.loss, 0.0))
            # Only what nothing yet dominates adds to the gain, and few trials are like that.
            if not any(s >= own[0] and x <= own[1] for s, x in corners):
                corners = [c for c in corners if c[0] > own[0] or c[1] < own[1]] + [own]
                now = gain(corners, limit)
        best.append(last)
        volume.append(now)
    return Progress(tuple(t.trial for t in material.trials), tuple(best), tuple(volume), limit)


def steps(
    trials: Sequence[int], values: Sequence[float | None], title: str, label: str, size: Size
) -> str:
    """A step line over trial numbers; it starts where the first value is known."""
    known = [(t, v) for t, v in zip(trials, values, strict=True) if v is not None]
    if not known:
        return ""
    size = (min(size[0], 420), 240)
    highest = max(v for _, v in known)
    last = max(trials[-1], trials[0] + 1)
    marks = [t for t in ticks(trials[0], last, 6) if t == int(t) and trials[0] <= t]
    xs = sorted({float(trials[0]), *marks, float(last)} - {m for m in marks if m > last})
    xs = [x for x in xs if x in (xs[0], xs[-1]) or xs[-1] - x > (xs[-1] - xs[0]) / 12]
    frame = Frame(size, xs, ticks(0, highest, 5))
    path = f"M{frame.x(known[0][0])} {frame.y(known[0][1])}"
    changed = [now for before, now in pairwise(known) if now[1] != before[1]]
    path += "".join(f"H{frame.x(t)}V{frame.y(v)}" for t, v in changed)
    body = frame.axes("trial", label) + f'<path class="steps" d="{path}H{frame.x(last)}"/>'
    return svg(size, title, body)
