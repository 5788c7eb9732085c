"""A result's statistics, recomputed from its raw samples."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import replace

import numpy as np

from engine import honesty
from engine.errors import TrialError
from engine.measure import quality, statistics
from engine.measure.paired import Series
from engine.results import Result, Sample

WORST = 0.1
"""Share of the prompts whose mean loss is the loss of the worst."""


def summarised(result: Result, objective: str, drift: float | None = None) -> Result:
    """The result with every statistic recomputed from its raw samples.

    ``drift`` is the similarity (SSIM) that an exact change keeps; where it is given the loss is
    that of fidelity, else that of the CLIP score.
    """
    base, candidate = (_of(result, arm) for arm in ("base", "candidate"))
    result = _speed(result, base, candidate, objective)
    result = replace(
        result,
        accuracy=_accuracy(candidate),
        accuracy_base=_accuracy(base),
        psnr=_mean(s.psnr for s in candidate),
        ssim=_mean(s.ssim for s in candidate),
    )
    if drift is None:
        before = [s.score for s in base if s.score is not None]
        after = [s.score for s in candidate if s.score is not None]
    else:
        after = [s.ssim for s in candidate if s.ssim is not None]
        before = [drift] * len(after)
    if len(before) < len(base) or len(after) < len(candidate):
        return result
    loss = statistics.relative_loss(before, after, 0)
    if result.untrusted and drift is None:
        # Of a score that exceeds the baseline's only so much counts.
        low, median, high = (
            1 - honesty.capped(1 - each, 1.0) for each in (loss.low, loss.median, loss.high)
        )
        loss = statistics.Interval(low, median, high)
    result = replace(result, loss=loss.median, loss_low=loss.low, loss_high=loss.high)
    return replace(result, loss_worst=_worst(before, after)) if drift is not None else result


def _of(result: Result, arm: str) -> list[Sample]:
    """An arm's samples in the order of the requests, which is the same for both arms."""
    mine = (s for s in result.samples if s.arm == arm)
    return sorted(mine, key=lambda s: (s.round, s.position // 2, s.index))


def _speed(
    result: Result, base: Sequence[Sample], candidate: Sequence[Sample], objective: str
) -> Result:
    """Figures of time: one sample a request that was timed."""
    base = [s for s in base if s.clocked]
    candidate = [s for s in candidate if s.clocked]
    calls = [s for s in candidate if s.index == 0]
    base_s = [s.seconds for s in base if s.index == 0]
    candidate_s = [s.seconds for s in calls]
    shapes = [(s.height, s.width, s.batch) for s in calls]
    if objective == "flops":
        speedups = _cost_ratio(result)
        paper = speedups.median
    else:
        rounds = statistics.paired_ratio(base_s, candidate_s, 0, groups=shapes)
        speedups = statistics.between_workers(rounds, statistics.TWO_PROGRAMS, result.looks)
        paper = statistics.ratio_of_means(base_s, candidate_s)
    each = [s.seconds / s.batch for s in calls]
    own = statistics.median_interval(each)
    return replace(
        result,
        speedup=speedups.median,
        speedup_low=speedups.low,
        speedup_high=speedups.high,
        speedup_paper=paper,
        seconds_per_image=own.median,
        seconds_low=own.low,
        seconds_high=own.high,
        seconds_p95=float(np.quantile(candidate_s, 0.95)),
        seconds_base=float(np.median([s.seconds / s.batch for s in base if s.index == 0])),
        images_per_second=len(candidate) / sum(candidate_s),
    )


def _cost_ratio(result: Result) -> statistics.Interval:
    if not result.cost_flops or not result.cost_base_flops:
        raise TrialError("run", "objective=flops, and this program's cost could not be counted")
    ratio = result.cost_base_flops / result.cost_flops
    return statistics.Interval(ratio, ratio, ratio)


def _accuracy(samples: Sequence[Sample]) -> float | None:
    judged = [s.correct for s in samples if s.correct is not None]
    return sum(judged) / len(judged) if judged else None


def _mean(values: Iterable[float | None]) -> float | None:
    found = [value for value in values if value is not None]
    return sum(found) / len(found) if found else None


def _worst(before: Sequence[float], after: Sequence[float]) -> float:
    """Mean loss of the worst tenth of the images, at least of one."""
    level = sum(before) / len(before)
    losses = sorted(((b - a) / level for b, a in zip(before, after, strict=True)), reverse=True)
    count = max(1, math.ceil(WORST * len(losses)))
    return sum(losses[:count]) / count


def similarities(series: Series) -> list[tuple[float, float] | None]:
    """PSNR (dB) and SSIM of each of the candidate's images to the baseline's of the same request
    and place, in the order of the requests; None where their sizes differ."""
    found: list[tuple[float, float] | None] = []
    for ours, theirs in zip(series.of("base"), series.of("candidate"), strict=True):
        for base, candidate in zip(ours.images, theirs.images, strict=True):
            same = base.shape == candidate.shape
            found.append(
                (quality.psnr(base, candidate), quality.ssim(base, candidate)) if same else None
            )
    return found
