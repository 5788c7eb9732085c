"""Which results count: dominance with margins, the front, ranks, hypervolume.

Objectives are speed-up, quality loss and, where the goal names it, memory. Each is read in units
of its margin (speed and memory as logarithms of ratios), so that a difference below 1 is noise.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from engine.results import Result

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

    Array = npt.NDArray[np.float64]

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
OUTDONE = 1.1
"""Factor by which an accepted point must be faster than one that is then not measured again."""


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
    ours, theirs = (_columns([_units(r, margins, memory)]) for r in (a, b))
    return bool(_beaten(theirs, ours)[0])


def _columns(points: Sequence[Sequence[float]]) -> Array:
    """Points as an array with a row for each objective and a column for each point."""
    import numpy as np

    return np.ascontiguousarray(np.array(points, dtype=float).T)


def _beaten(points: Array, by: Array) -> npt.NDArray[np.bool_]:
    """Which of the points the single point ``by`` beats."""
    import numpy as np

    gains = by - points
    # The tolerance keeps a difference of exactly one margin from counting by rounding.
    allowed = (gains.min(axis=0) >= -1 - 1e-9) & (gains.max(axis=0) > 1 + 1e-9)
    return np.asarray(allowed & (gains.sum(axis=0) > 0), dtype=bool)


def _layers(points: Sequence[Sequence[float]]) -> Iterator[list[int]]:
    """Indices of the points that stay, then of those that stay of the rest, and so on.

    Of each layer none beats another, and each one of the rest is beaten by one that stays. Margin
    dominance has no cycles but is not transitive: along a chain each point may beat the next
    although the first does not beat the last. So a point leaves only for one that stays; going by
    falling sum decides each once, and the first always stays. Ten thousand points take about a
    second, since whoever stays removes all that it beats at once.
    """
    import numpy as np

    if not points:
        return
    table = _columns(points)
    rest = np.array(sorted(range(len(points)), key=lambda i: -sum(points[i])), dtype=int)
    while len(rest):
        layer: list[int] = []
        standing, values = rest, table[:, rest]
        while len(standing):
            layer.append(int(standing[0]))
            beaten = _beaten(values, values[:, :1])
            beaten[0] = True
            standing, values = standing[~beaten], values[:, ~beaten]
        yield layer
        gone = set(layer)
        rest = np.array([i for i in rest.tolist() if i not in gone], dtype=int)


def outdone(candidate: Result, accepted: Sequence[Result]) -> bool:
    """Whether an accepted point is so much faster than a candidate of the search, at no more loss,
    that it will not stand on a front beside it when it is measured again."""
    # A loss below zero is luck, which a second measurement does not repeat.
    loss = max(candidate.loss or 0.0, 0.0) + MARGINS.loss
    fast = OUTDONE * (candidate.speedup or 0.0)
    return any((r.speedup or 0.0) > fast and (r.loss or 0.0) <= loss for r in accepted)


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
        (able[i] for i in next(_layers(points), ())),
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
    useful = [i for i in able if (results[i].loss or 0.0) <= SLACK * max_loss]
    poor = sorted(set(able) - set(useful), key=lambda i: results[i].loss or 0.0)
    failed = sorted(set(range(len(results))) - set(able))
    points = [_units(results[i], margins, memory) for i in useful]
    order: list[int] = []
    for layer in _layers(points):
        lonely = _crowding([points[i] for i in layer])
        order += [useful[i] for _, i in sorted(zip((-d for d in lonely), layer, strict=True))]
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
