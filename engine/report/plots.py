"""Plots as inline SVG, styled by the page's CSS classes; each has a title and its data's titles.

Every plot is drawn for a size, so that its lettering stays readable on a phone: the page carries
a wide and a narrow drawing and shows one of them.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from html import escape
from typing import Any

from engine.report import text
from engine.report.material import Material, Point, recommended
from engine.results import Result
from engine.search.archive import within_goal

WIDE = (760, 420)
NARROW = (340, 330)
Size = tuple[int, int]
Box = tuple[float, float, float, float]
"""Left, top, right, bottom."""


def ticks(low: float, high: float, count: int = 6) -> list[float]:
    """Round numbers (steps of 1, 2, 2.5 or 5) from at most ``low`` to at least ``high``."""
    span = max(high - low, 1e-9)
    power: float = 10.0 ** math.floor(math.log10(span / count))
    step = next(m * power for m in (1, 2, 2.5, 5, 10) if span / (m * power) <= count)
    first, last = math.floor(low / step + 1e-9), math.ceil(high / step - 1e-9)
    return [round(i * step, 10) for i in range(first, last + 1)]


@dataclass(frozen=True)
class Frame:
    """The plotting area: data ranges (from the ticks) on a drawing of a size."""

    size: Size
    xs: Sequence[float]
    ys: Sequence[float]
    left: int = 46
    right: int = 16
    top: int = 16
    bottom: int = 44

    def x(self, value: float) -> float:
        share = (value - self.xs[0]) / (self.xs[-1] - self.xs[0])
        return round(self.left + share * (self.size[0] - self.left - self.right), 1)

    def y(self, value: float) -> float:
        share = (value - self.ys[0]) / (self.ys[-1] - self.ys[0])
        base = self.size[1] - self.bottom
        return round(base - share * (base - self.top), 1)

    def axes(self, x_label: str, y_label: str) -> str:
        """Grid, tick labels and axis names."""
        width, height = self.size
        low, high = self.y(self.ys[0]), self.y(self.ys[-1])
        parts = []
        for tick in self.xs:
            x = self.x(tick)
            parts.append(f'<line class="grid" x1="{x}" x2="{x}" y1="{low}" y2="{high}"/>')
            parts.append(f'<text x="{x}" y="{low + 17}" text-anchor="middle">{tick:g}</text>')
        for tick in self.ys:
            y = self.y(tick)
            parts.append(
                f'<line class="grid" x1="{self.left}" x2="{width - self.right}" y1="{y}" y2="{y}"/>'
            )
            parts.append(f'<text x="{self.left - 7}" y="{y + 4}" text-anchor="end">{tick:g}</text>')
        middle = (self.left + width - self.right) / 2
        parts.append(
            f'<text class="axis" x="{middle}" y="{height - 6}" text-anchor="middle">'
            f"{escape(x_label)}</text>"
        )
        parts.append(
            f'<text class="axis" transform="translate(12 {(low + high) / 2}) rotate(-90)" '
            f'text-anchor="middle">{escape(y_label)}</text>'
        )
        return "".join(parts)


def both(draw: Callable[[Size], str]) -> str:
    """The wide and the narrow drawing; CSS shows the one that fits."""
    return f'<div class="plot wide">{draw(WIDE)}</div><div class="plot narrow">{draw(NARROW)}</div>'


def _svg(size: Size, title: str, body: str) -> str:
    return (
        f'<svg viewBox="0 0 {size[0]} {size[1]}" role="img" aria-label="{escape(title)}">'
        f"<title>{escape(title)}</title>{body}</svg>"
    )


def front(material: Material, size: Size) -> str:
    """Quality loss against speed-up: every trial, the front with its intervals, the limit."""
    limit = material.goal.get("max_loss")
    points = [p for p in material.points if p.speedup is not None and p.loss is not None]
    on_front = {p.trial for p in points}
    others = [t for t in material.trials if t.ok and t.loss is not None and t.trial not in on_front]
    frame, top = _front_frame(size, points, others, limit)
    timed = material.study.get("objective", "time") == "time"
    body = [frame.axes("speed-up" if timed else "saving in operations", "quality loss, %")]
    if limit is not None:
        body.append(_limit(frame, 100 * limit))
    body += [_dot(frame, trial, top) for trial in others]
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
    taken += [_box((frame.x(t.speedup or 0), _at(frame, t.loss, top)), 4) for t in others]
    labels = [("baseline", x, y)] + [
        (material.label(p.trial), frame.x(p.speedup or 0), _at(frame, p.loss, top)) for p in points
    ]
    body += [_point(frame, p, top, material.label(p.trial), p is best) for p in points]
    body += _labels(labels, taken, frame)
    return _svg(size, "Quality loss against speed-up of every trial, with the front", "".join(body))


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


def _dot(frame: Frame, trial: Result, top: float) -> str:
    x, y = frame.x(trial.speedup or 0.0), _at(frame, trial.loss, top)
    title = _words(f"#{trial.trial}", trial.genome, trial.speedup, trial.loss)
    beyond = 100 * (trial.loss or 0.0) > top
    shape = (
        f'<path class="trial" d="M{x - 4} {y + 4}L{x} {y - 3}L{x + 4} {y + 4}Z">'
        f"<title>{title} (beyond the scale)</title></path>"
        if beyond
        else f'<circle class="trial" cx="{x}" cy="{y}" r="3"><title>{title}</title></circle>'
    )
    return f'<a href="#trial-{trial.trial}">{shape}</a>'


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


def hypervolume(found: Sequence[tuple[float, float]], limit: float) -> float:
    """The gain in speed, averaged over every loss allowed from 0 to ``limit``.

    It is the area that (speed-up, loss) pairs dominate beyond the corner (1, ``limit``), divided
    by ``limit``. A negative loss counts as zero, so that noise earns nothing.
    """
    area, best = 0.0, 1.0
    steps = sorted((max(loss, 0.0), speed) for speed, loss in found if loss < limit)
    for loss, speed in steps:
        if speed > best:
            area += (speed - best) * (limit - loss)
            best = speed
    return area / limit


def progress(material: Material) -> Progress:
    """Best speed-up within the goal and hypervolume (losses to twice the limit), by trial."""
    limit = 2 * (material.goal.get("max_loss") or 0.05)
    best: list[float | None] = []
    volume: list[float] = []
    found: list[tuple[float, float]] = []
    for trial in material.trials:
        last = best[-1] if best else None
        if within_goal(trial, material.goal) and trial.speedup is not None:
            last = max(last or 0.0, trial.speedup)
        if trial.ok and trial.speedup is not None and trial.loss is not None:
            found.append((trial.speedup, trial.loss))
        best.append(last)
        volume.append(hypervolume(found, limit))
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
    path += "".join(f"H{frame.x(t)}V{frame.y(v)}" for t, v in known[1:])
    body = frame.axes("trial", label) + f'<path class="steps" d="{path}H{frame.x(last)}"/>'
    return _svg(size, title, body)
