"""A result's statistics, recomputed from its raw samples."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

import numpy as np

from engine.errors import TrialError
from engine.measure import quality, statistics
from engine.measure.paired import Series
from engine.results import Result, Sample


def summarised(result: Result, objective: str) -> Result:
    """The result with every statistic recomputed from its raw samples."""
    by_arm: Mapping[str, list[Sample]] = {
        arm: sorted(
            (s for s in result.samples if s.arm == arm), key=lambda s: (s.round, s.position // 2)
        )
        for arm in ("base", "candidate")
    }
    base, candidate = by_arm["base"], by_arm["candidate"]
    base_s, candidate_s = [s.seconds for s in base], [s.seconds for s in candidate]
    if objective == "flops":
        speedups = _cost_ratio(result)
        paper = speedups.median
    else:
        speedups = statistics.paired_ratio(base_s, candidate_s, 0)
        paper = statistics.ratio_of_means(base_s, candidate_s)
    result = replace(
        result,
        speedup=speedups.median,
        speedup_low=speedups.low,
        speedup_high=speedups.high,
        speedup_paper=paper,
        seconds_per_image=float(np.median(candidate_s)),
        seconds_base=float(np.median(base_s)),
        accuracy=_accuracy(candidate),
        accuracy_base=_accuracy(base),
    )
    before = [s.score for s in base if s.score is not None]
    after = [s.score for s in candidate if s.score is not None]
    if len(before) < len(base) or len(after) < len(candidate):
        return result
    loss = statistics.relative_loss(before, after, 0)
    return replace(result, loss=loss.median, loss_low=loss.low, loss_high=loss.high)


def _cost_ratio(result: Result) -> statistics.Interval:
    if not result.cost_flops or not result.cost_base_flops:
        raise TrialError("run", "objective=flops, and this program's cost could not be counted")
    ratio = result.cost_base_flops / result.cost_flops
    return statistics.Interval(ratio, ratio, ratio)


def _accuracy(samples: list[Sample]) -> float | None:
    judged = [s.correct for s in samples if s.correct is not None]
    return sum(judged) / len(judged) if judged else None


def fidelity(series: Series) -> tuple[float | None, float | None]:
    """Mean PSNR (dB) and SSIM of the candidate's images to the baseline's on the same pairs."""
    couples = [
        (b.image, c.image)
        for b, c in zip(series.of("base"), series.of("candidate"), strict=True)
        if b.image.shape == c.image.shape
    ]
    if not couples:
        return None, None
    decibels = [quality.psnr(b, c) for b, c in couples]
    return float(np.mean(decibels)), float(np.mean([quality.ssim(b, c) for b, c in couples]))
