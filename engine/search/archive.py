"""Which results count: dominance with margins, the front, ranks, and the best within limits.

Objectives are speed-up, quality loss and, where the goal names it, memory. Each is read in units
of its margin (speed and memory as logarithms of ratios), so that a difference below 1 is noise.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from engine.results import Result

REFERENCE = (1.0, 0.2)
"""Speed-up and loss at which the hypervolume begins."""
SLACK = 2.0
"""A loss up to this many times the limit still informs a search; beyond it a result is useless."""


@dataclass(frozen=True)
class Margins:
    """Differences that count: speed and memory relative, loss absolute."""

    speed: float = 0.02
    loss: float = 0.003
    memory: float = 0.05


MARGINS = Margins()


def measured(result: Result, *, memory: bool = False) -> bool:
    """Whether the result succeeded and has every figure that the objectives need."""
    return (
        result.ok
        and result.speedup is not None
        and result.speedup > 0
        and (not memory or bool(result.memory_gib))
    )


def _units(result: Result, margins: Margins, memory: bool) -> tuple[float, ...]:
    """Objectives in units of their margins, all to be maximised.

    A loss below zero counts as zero: pictures that please the scorer more than the baseline's are
    noise or a trick, never a merit. A loss that was not measured counts as zero too.
    """
    assert result.speedup is not None
    units = [
        math.log(result.speedup) / math.log1p(margins.speed),
        -max(0.0, result.loss or 0.0) / margins.loss,
    ]
    if memory:
        assert result.memory_gib is not None
        units.append(-math.log(result.memory_gib) / math.log1p(margins.memory))
    return tuple(units)


def dominates(a: Result, b: Result, margins: Margins = MARGINS, *, memory: bool = False) -> bool:
    """Whether ``a`` is better than ``b`` beyond noise.

    No objective of ``a`` is worse by more than its margin, at least one is better by more than its
    margin, and the differences in units of their margins add up in favour of ``a``. The last
    condition follows from the others for two objectives; with three it is what rules out cycles,
    because every step along a chain of dominance then raises the same sum.
    """
    return _beats(_units(a, margins, memory), _units(b, margins, memory))


def _beats(a: Sequence[float], b: Sequence[float]) -> bool:
    gains = [x - y for x, y in zip(a, b, strict=True)]
    # The tolerance keeps a difference of exactly one margin from counting by rounding.
    return min(gains) >= -1 - 1e-9 and max(gains) > 1 + 1e-9 and sum(gains) > 0


def _kernel(points: Sequence[Sequence[float]], among: Iterable[int]) -> list[int]:
    """Indices that stay: none beats another, and each one left out is beaten by one that stays.

    Margin dominance has no cycles but is not transitive: along a chain each point may beat the
    next although the first does not beat the last. So a point leaves only for one that stays;
    going by falling sum decides each once, and the first always stays.
    """
    kept: list[int] = []
    for index in sorted(among, key=lambda i: -sum(points[i])):
        if not any(_beats(points[other], points[index]) for other in kept):
            kept.append(index)
    return kept


def front(
    results: Sequence[Result], margins: Margins = MARGINS, *, memory: bool = False
) -> list[Result]:
    """The results worth a choice, fastest first.

    Empty only if nothing was measured. No member dominates another, each measured result that is
    left out is dominated by a member, and results that differ by less than the margins all stay.
    """
    able = [r for r in results if measured(r, memory=memory)]
    points = [_units(r, margins, memory) for r in able]
    return sorted(
        (able[i] for i in _kernel(points, range(len(able)))),
        key=lambda r: (-(r.speedup or 0.0), r.loss or 0.0, r.trial),
    )


def ranks(
    results: Sequence[Result],
    max_loss: float,
    margins: Margins = MARGINS,
    *,
    memory: bool = False,
) -> list[int]:
    """For each result its place as a parent, 0 the best; no place is given twice.

    Fronts are peeled off one after the other; within a front the lonelier point (larger crowding
    distance) comes first. Results whose loss exceeds twice the limit follow by their loss, and
    failed ones are last.
    """
    able = [i for i, r in enumerate(results) if measured(r, memory=memory)]
    points = {i: _units(results[i], margins, memory) for i in able}
    rest = [i for i in able if (results[i].loss or 0.0) <= SLACK * max_loss]
    poor = sorted(set(able) - set(rest), key=lambda i: results[i].loss or 0.0)
    failed = [i for i in range(len(results)) if i not in points]
    table = [points.get(i, ()) for i in range(len(results))]
    order: list[int] = []
    while rest:
        layer = _kernel(table, rest)
        lonely = _crowding([points[i] for i in layer])
        order += [i for _, i in sorted(zip((-d for d in lonely), layer, strict=True))]
        rest = [i for i in rest if i not in set(layer)]
    places = {index: place for place, index in enumerate([*order, *poor, *failed])}
    return [places[i] for i in range(len(results))]


def _crowding(points: Sequence[Sequence[float]]) -> list[float]:
    """Crowding distance (Deb et al. 2002): the gap between both neighbours, over all objectives."""
    distance = [0.0] * len(points)
    for axis in range(len(points[0])):
        order = sorted(range(len(points)), key=lambda i: points[i][axis])
        width = points[order[-1]][axis] - points[order[0]][axis]
        distance[order[0]] = distance[order[-1]] = math.inf
        for before, here, after in zip(order, order[1:], order[2:], strict=False):
            if width > 0:
                distance[here] += (points[after][axis] - points[before][axis]) / width
    return distance


def hypervolume(
    points: Iterable[tuple[float, float]], reference: tuple[float, float] = REFERENCE
) -> float:
    """Area that (speed-up, loss) points dominate, above the reference's speed-up and below its
    loss; 0 when none lies there."""
    slowest, worst = reference
    area, best_loss = 0.0, worst
    for speedup, loss in sorted(points, reverse=True):
        if speedup > slowest and loss < best_loss:
            area += (speedup - slowest) * (best_loss - loss)
            best_loss = loss
    return area


def best_within(results: Iterable[Result], max_loss: float, accuracy_drop: float) -> Result | None:
    """The fastest result whose loss is at most ``max_loss`` and whose checker accuracy falls by at
    most ``accuracy_drop`` (both fractions); None if there is none.

    A result without a measured loss never qualifies; one without a checker is not held to it.
    """
    within = [
        r
        for r in results
        if measured(r) and r.loss is not None and r.loss <= max_loss and _accurate(r, accuracy_drop)
    ]
    return max(within, key=lambda r: (r.speedup or 0.0, -(r.loss or 0.0)), default=None)


def within_goal(result: Result, goal: Mapping[str, Any]) -> bool:
    """Whether a trial, as measured last, keeps every limit of the goal.

    A limit on what was not measured is not kept, but for the checker's accuracy, which exists on
    miniatures only. A tolerance of 1e-9 forgives the rounding of shares.
    """
    if not result.ok:
        return False
    upper = (
        (result.loss, goal.get("max_loss")),
        (result.seconds_per_image, goal.get("seconds")),
        (result.memory_gib, goal.get("memory_gib")),
    )
    least = goal.get("speedup")
    return all(
        limit is None or (figure is not None and figure <= limit + 1e-9) for figure, limit in upper
    ) and (
        (least is None or (result.speedup or 0.0) >= least)
        and _accurate(result, goal.get("accuracy_drop"))
    )


def _accurate(result: Result, drop: float | None) -> bool:
    """Whether the checker's accuracy falls by at most that share of the prompts, or by one prompt
    where they are so few that a single one is a larger share."""
    if result.accuracy is None or result.accuracy_base is None or drop is None:
        return True
    judged = sum(s.arm == "base" and s.correct is not None for s in result.samples)
    allowed = max(drop, 1 / judged) if judged else drop
    return result.accuracy >= result.accuracy_base - allowed - 1e-9
