"""What a study is for: whether a result keeps the goal, and whether it does so for sure.

A goal is the mapping of ``goal`` in the configuration. Its limits bound the loss of quality; what
it asks for is a speed-up, a time or a memory.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from engine.results import Result

TOLERANCE = 1e-9
"""Forgives the rounding of shares."""


def asks(goal: Mapping[str, Any]) -> bool:
    """Whether the goal asks for something that ends a search when it is met."""
    return any(goal.get(name) is not None for name in ("speedup", "seconds", "memory_gib"))


def within_goal(result: Result, goal: Mapping[str, Any]) -> bool:
    """Whether a trial, as measured last, keeps every limit of the goal.

    A limit on what was not measured is not kept, but for the checker's accuracy, which exists on
    miniatures only, and the worst prompts' loss, which is measured where fidelity is the quality.
    """
    figures = (result.loss, result.speedup, result.seconds_per_image)
    return _keeps(result, goal, *figures) and _accurate(result, goal.get("accuracy_drop"))


def surely_within(result: Result, goal: Mapping[str, Any]) -> bool:
    """Whether a trial keeps every limit of the goal at the unfavourable end of its intervals.

    The checker's accuracy, the worst prompts' loss and memory have none and count as measured.
    """
    figures = (result.loss_high, result.speedup_low, result.seconds_high)
    return _keeps(result, goal, *figures) and _accurate(result, goal.get("accuracy_drop"))


def slack(result: Result, goal: Mapping[str, Any]) -> float:
    """By how many half widths of its 95 % interval a result keeps the limit on loss, speed-up or
    time that it keeps least; from 1 on that is sure, below 0 one is not kept. Infinite where the
    goal has none of them."""
    bounds = [
        (result.loss, result.loss_high, goal.get("max_loss")),
        # The errors of times and speed-ups are shares, hence logarithms; a least speed-up is a
        # largest time.
        (_log(result.speedup, -1), _log(result.speedup_low, -1), _log(goal.get("speedup"), -1)),
        (_log(result.seconds_per_image), _log(result.seconds_high), _log(goal.get("seconds"))),
    ]
    found = [_halves(figure, end, limit) for figure, end, limit in bounds if limit is not None]
    return min(found, default=math.inf)


def _halves(figure: float | None, end: float | None, limit: float) -> float:
    if figure is None or end is None:
        return -math.inf
    half, left = end - figure, limit - figure
    return left / half if half > 0 else math.copysign(math.inf, left)


def _log(value: float | None, sign: int = 1) -> float | None:
    return sign * math.log(value) if value else None


def _keeps(
    result: Result,
    goal: Mapping[str, Any],
    loss: float | None,
    speedup: float | None,
    seconds: float | None,
) -> bool:
    if not result.ok:
        return False
    upper = [
        (loss, goal.get("max_loss")),
        (seconds, goal.get("seconds")),
        (result.memory_gib, goal.get("memory_gib")),
    ]
    if goal.get("quality") == "same_image":
        upper.append((result.loss_worst, goal.get("max_worst")))
    least = goal.get("speedup")
    return (least is None or (speedup or 0.0) >= least) and all(
        limit is None or (figure is not None and figure <= limit + TOLERANCE)
        for figure, limit in upper
    )


def _accurate(result: Result, drop: float | None) -> bool:
    """Whether the checker's accuracy falls by at most that share of the prompts, or by one prompt
    where they are so few that a single one is a larger share."""
    if result.accuracy is None or result.accuracy_base is None or drop is None:
        return True
    judged = sum(s.arm == "base" and s.correct is not None for s in result.samples)
    allowed = max(drop, 1 / judged) if judged else drop
    return result.accuracy >= result.accuracy_base - allowed - TOLERANCE
