"""What a study is for: whether a result keeps the goal, and whether it does so for sure.

A goal is the mapping of ``goal`` in the configuration. Its limits bound the loss of quality; what
it asks for is a speed-up, a time or a memory.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

from engine.results import Result

FEW = 2
"""Timed images whose interval tells nothing yet."""
CLEARLY = 1.1
"""Factor by which a trial is slower than asked for when so few have been timed."""
TOLERANCE = 1e-9
"""Forgives the rounding of shares."""


def asks(goal: Mapping[str, Any]) -> bool:
    """Whether the goal asks for something that ends a search when it is met."""
    return any(goal.get(name) is not None for name in ("speedup", "seconds", "memory_gib"))


def asks_speed(goal: Mapping[str, Any]) -> bool:
    """Whether the goal asks for a speed-up or a time, so that what is too slow is of no use."""
    return goal.get("speedup") is not None or goal.get("seconds") is not None


def beaten(result: Result, told: Sequence[Result], goal: Mapping[str, Any]) -> str | None:
    """Why a trial that was drawn in part cannot serve a goal that asks for speed, or None.

    It is slower than asked for, and another that keeps the goal's limits is faster: by CLEARLY
    where the trial was drawn twice, by anything where its whole interval is below the target. The
    fastest trial is never left, since it is the answer where none reaches the target.
    """
    target = target_of(goal, result.seconds_base)
    if result.speedup is None or result.speedup_high is None:
        return None
    limits = dict(goal) | {"speedup": None, "seconds": None}
    able = [r for r in told if r.rung >= 1 and within_goal(r, limits)]
    fastest = max(able, key=lambda r: r.speedup or 0.0, default=None)
    if fastest is None or fastest.trial == result.trial:
        return None
    own = [sample for sample in result.samples if sample.arm == "candidate"]
    timed = sum(sample.clocked and sample.index == 0 for sample in own)
    sure = timed > FEW and result.speedup_high < target
    least = min(target, fastest.speedup or 0.0)
    if least > result.speedup * (1.0 if sure else CLEARLY):
        return f"{result.speedup:.2f}x, slower than asked for and than trial {fastest.trial}"
    return None


def target_of(goal: Mapping[str, Any], seconds_base: float | None) -> float:
    """The speed-up that keeps the goal's speed-up and time (of an image), where the baseline takes
    so many seconds; 0 where the goal asks for neither."""
    seconds = goal.get("seconds")
    by_time = (seconds_base or 0.0) / seconds if seconds else 0.0
    return max(goal.get("speedup") or 0.0, by_time)


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


def another_look_decides(result: Result, goal: Mapping[str, Any]) -> bool:
    """Whether a result keeps the goal, not yet for sure, and would for sure if one more look gave
    the same figures: intervals narrow with the root of the looks."""
    if not within_goal(result, goal) or surely_within(result, goal):
        return False
    return slack(result, goal) * math.sqrt((result.looks + 1) / result.looks) >= 1


def chance(result: Result, goal: Mapping[str, Any]) -> float:
    """Probability that a result keeps its limit on loss, speed-up or time when it is measured again
    as before, by the one that it keeps least; errors are taken as normal."""
    # A second measurement has the errors of both; an interval ends at 1.96 standard errors.
    return 0.5 * (1 + math.erf(1.96 * slack(result, goal) / 2))


def surest(results: Sequence[Result], goal: Mapping[str, Any]) -> Result | None:
    """Of results that keep a goal the fastest that does so for sure, or else the surest; None of
    none. Nobody asked for more speed than the target, and a limit that is hardly kept may be missed
    when it is measured again."""
    return max(results, key=lambda r: (min(slack(r, goal), 1.0), r.speedup or 0.0), default=None)


def recommended(results: Sequence[Result], goal: Mapping[str, Any]) -> Result | None:
    """The result that a study hands over, of those that keep the goal: the fastest, or where the
    goal asks for something the one that keeps it most surely. None of none."""
    keeping = [r for r in results if within_goal(r, goal)]
    if asks(goal):
        return surest(keeping, goal)
    return max(keeping, key=lambda r: r.speedup or 0.0, default=None)


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
