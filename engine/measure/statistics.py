"""Intervals for speed-ups and quality losses from paired samples.

Everything is recomputed from raw samples and is deterministic for a given seed. Intervals are
bootstrap percentiles that are widened for few samples: a plain percentile interval is too narrow
by sqrt((n-1)/n) and by the use of normal instead of Student quantiles. The widened ("expanded
percentile") levels are those of Hesterberg, What Teachers Should Know About the Bootstrap (2015).
For the median of few rounds that is not enough, because resampled medians never leave the range of
the samples: there each bound is the further one of the percentile and of Student's quantile times
the bootstrap's standard deviation. Simulated with drift, autocorrelation and spikes, percentiles
alone covered the truth in 86 % of series of 8 pairs, both together in 95 %.
"""

from __future__ import annotations

import math
from collections.abc import Hashable, Sequence
from dataclasses import dataclass
from enum import StrEnum
from statistics import NormalDist

import numpy as np
from numpy.typing import ArrayLike, NDArray

Floats = NDArray[np.float64]
Seed = np.random.Generator | int

RESAMPLES = 2000
FEW = 8
"""Pairs below which resampling would repeat too few values to say anything; see ``_few``."""
SAME_PROGRAM = 0.01
"""Standard deviation of the logarithm of a ratio of times from one pair of processes to another,
for two processes of one program (``python -m tests.benchmarks.coverage control``)."""
TWO_PROGRAMS = 0.03
"""The same for two different programs: what else a shared machine does at the time slows one more
than the other (``python -m tests.benchmarks.coverage front``, whose ten repeats of 36 prompts
scattered by 4.0 %, of which 2.5 % are within one measurement)."""
ROUND = 2
"""Pairs in a round: A p1, B p1, B p2, A p2."""


@dataclass(frozen=True)
class Interval:
    """A point estimate (``median``, for a loss the estimate itself) between two bounds."""

    low: float
    median: float
    high: float

    def covers(self, value: float) -> bool:
        return self.low <= value <= self.high

    @property
    def width(self) -> float:
        return self.high - self.low


class Verdict(StrEnum):
    """What an interval says about a limit."""

    PASS = "pass"
    FAIL = "fail"
    UNDECIDED = "undecided"

    @classmethod
    def at_least(cls, interval: Interval, threshold: float) -> Verdict:
        """Whether the value reaches a minimum: pass from the lower bound, fail from the upper."""
        if interval.low >= threshold:
            return cls.PASS
        return cls.FAIL if interval.high < threshold else cls.UNDECIDED

    @classmethod
    def at_most(cls, interval: Interval, threshold: float) -> Verdict:
        """Whether the value keeps a maximum: pass from the upper bound, fail from the lower."""
        if interval.high <= threshold:
            return cls.PASS
        return cls.FAIL if interval.low > threshold else cls.UNDECIDED


def paired_ratio(
    base: ArrayLike,
    candidate: ArrayLike,
    rng: Seed = 0,
    confidence: float = 0.95,
    block: int | None = None,
    groups: Sequence[Hashable] = (),
) -> Interval:
    """Speed-up exp(median of log(base / candidate)) with a moving-block bootstrap interval.

    With ``groups`` (the shape of each request) it is the ratio of the times for the whole mix:
    medians within each group, weighted by the time that the group takes; see ``_of_mix``.

    ``base`` and ``candidate`` are seconds of the same prompts in the order of measurement, two
    pairs a round. Whole rounds are resampled, in blocks of ``block`` rounds that follow each other,
    because neighbours in time resemble each other. By default a block has the cube root of the
    number of rounds, but at least eight blocks remain: with fewer the intervals are too narrow.
    Below 8 pairs the interval is the wider one of ``_few``. Raises ValueError for fewer than two
    pairs or seconds that are not positive.
    """
    ours, theirs = _paired(base, candidate)
    if ours.min() <= 0 or theirs.min() <= 0:
        raise ValueError("seconds must be positive")
    logs = np.log(ours / theirs)
    shares = _shares(ours, groups)
    middle = float(_of_mix(logs[None], shares)[0])
    if len(logs) < FEW:
        low, high = _few(logs, middle, confidence)
    else:
        rounds = math.ceil(len(logs) / ROUND)
        length = block or max(1, min(rounds // 8, round(rounds ** (1 / 3))))
        rows = _block_rows(len(logs), ROUND * length, np.random.default_rng(rng))
        medians = _of_mix(logs[rows], [(where[rows], time) for where, time in shares])
        low, high = _percentiles(medians, rounds, confidence)
        half = _quantile(rounds, confidence) * float(medians.std(ddof=1))
        low, high = min(low, middle - half), max(high, middle + half)
    return Interval(math.exp(low), math.exp(middle), math.exp(high))


def _shares(base: Floats, groups: Sequence[Hashable]) -> list[tuple[NDArray[np.bool_], float]]:
    """For each group where it stands among the requests, and its share of the baseline's time."""
    names = list(groups) or [None] * len(base)
    if len(names) != len(base):
        raise ValueError(f"{len(names)} groups for {len(base)} pairs")
    found = []
    for name in dict.fromkeys(names):
        where = np.array([other == name for other in names])
        found.append((where, float(np.median(base[where]) * where.sum())))
    whole = sum(time for _, time in found)
    return [(where, time / whole) for where, time in found]


def _of_mix(logs: Floats, shares: Sequence[tuple[NDArray[np.bool_], float]]) -> Floats:
    """Logarithm of the mix's speed-up for each row of log ratios.

    A group with median ratio r takes 1 / r of its share of the baseline's time. A group that a
    resample has missed altogether leaves its share to the others.
    """
    if len(shares) == 1:
        return np.asarray(np.median(logs, axis=1))
    before = np.zeros(len(logs))
    after = np.zeros(len(logs))
    for where, share in shares:
        inside = np.broadcast_to(where, logs.shape)
        here = inside.any(axis=1)
        medians = np.nanmedian(np.where(inside, logs, np.nan)[here], axis=1)
        before[here] += share
        after[here] += share * np.exp(-medians)
    return np.asarray(np.log(before / after))


def median_interval(values: ArrayLike, confidence: float = 0.95) -> Interval:
    """The median with the exact interval between two order statistics (binomial; no assumption
    about the distribution). With fewer than six values it is their whole range, which then covers
    with less than 95 %."""
    ordered = np.sort(np.asarray(values, np.float64))
    count = len(ordered)
    if count == 0:
        raise ValueError("a median needs values")
    chances = np.cumsum([math.comb(count, k) / 2**count for k in range(count)])
    below = int(np.searchsorted(chances, (1 - confidence) / 2))
    low, high = max(0, below - 1), min(count - 1, count - below)
    return Interval(float(ordered[low]), float(np.median(ordered)), float(ordered[high]))


def relative_loss(
    base_scores: ArrayLike, scores: ArrayLike, seed: Seed = 0, confidence: float = 0.95
) -> Interval:
    """Loss (mean of base - mean of scores) / mean of base, as a fraction, with a bootstrap over
    prompts.

    Below 8 prompts the wider interval of ``_few`` is used on the differences. Raises ValueError
    for fewer than two prompts or a base whose mean is not positive.
    """
    before, after = _paired(base_scores, scores)
    level = float(before.mean())
    if level <= 0:
        raise ValueError("the baseline's mean score must be positive")
    losses = (before - after) / level
    loss = float(losses.mean())
    if len(before) < FEW:
        low, high = _few(losses, loss, confidence)
    else:
        count = len(before)
        rows = np.random.default_rng(seed).integers(count, size=(RESAMPLES, count))
        drawn = 1 - after[rows].mean(axis=1) / before[rows].mean(axis=1)
        low, high = _percentiles(drawn, count, confidence)
    return Interval(min(low, loss), loss, max(high, loss))


def ratio_of_means(base: ArrayLike, candidate: ArrayLike) -> float:
    """Speed-up as the paper states it: mean seconds of the baseline over mean seconds."""
    return float(np.mean(np.asarray(base, np.float64)) / np.mean(np.asarray(candidate, np.float64)))


def combine(first: Interval, second: Interval) -> Interval:
    """The interval of a product of two independent ratios, each taken as log-normal; the two sides
    are kept apart, so that a lopsided interval stays lopsided."""
    down = math.hypot(math.log(first.median / first.low), math.log(second.median / second.low))
    up = math.hypot(math.log(first.high / first.median), math.log(second.high / second.median))
    product = first.median * second.median
    return Interval(product * math.exp(-down), product, product * math.exp(up))


def between_workers(interval: Interval, luck: float, looks: int = 1) -> Interval:
    """A speed-up's interval widened by what its own rounds cannot show: the luck of the two
    processes that were timed, and of the time at which they were.

    Two workers of one program differ by about a hundredth for as long as they live (how memory
    came to lie); ``luck`` is ``SAME_PROGRAM`` or ``TWO_PROGRAMS``. Without it intervals covered
    what they should in 8 of ten A/A studies, and with a hundredth in 8 of ten acceptance
    measurements of two programs.

    ``looks`` is how many pairs of processes the rounds come from: each look has its own, so that
    their luck is averaged as the rounds are.
    """
    spread = student(10_000) * luck / math.sqrt(looks)
    return combine(interval, Interval(math.exp(-spread), 1.0, math.exp(spread)))


def _paired(first: ArrayLike, second: ArrayLike) -> tuple[Floats, Floats]:
    ours, theirs = np.asarray(first, np.float64), np.asarray(second, np.float64)
    if ours.shape != theirs.shape or ours.ndim != 1 or len(ours) < 2:
        raise ValueError(f"two or more pairs are needed, not {ours.shape} against {theirs.shape}")
    if not (np.isfinite(ours).all() and np.isfinite(theirs).all()):
        raise ValueError("every sample must be a finite number")
    return ours, theirs


def _block_rows(count: int, length: int, rng: np.random.Generator) -> NDArray[np.intp]:
    """Indices of the resamples: blocks of neighbours that start at a round and wrap at the end, so
    that no sample is drawn less often for lying at an end."""
    blocks = math.ceil(count / length)
    starts = ROUND * rng.integers(math.ceil(count / ROUND), size=(RESAMPLES, blocks))
    rows = (starts[:, :, None] + np.arange(length)) % count
    return rows.reshape(RESAMPLES, -1)[:, :count]


def _percentiles(drawn: Floats, units: int, confidence: float) -> tuple[float, float]:
    """Expanded percentiles of a bootstrap distribution over ``units`` resampled units."""
    tail = NormalDist().cdf(-_quantile(units, confidence))
    low, high = np.quantile(drawn, [tail, 1 - tail])
    return float(low), float(high)


def _quantile(units: int, confidence: float) -> float:
    """Student's quantile, enlarged because a bootstrap over n units understates the spread."""
    return student(units - 1, confidence) * math.sqrt(units / (units - 1))


def _few(values: Floats, middle: float, confidence: float) -> tuple[float, float]:
    """A deliberately wide interval for too few samples to resample: Student's interval of the mean
    around the estimate, and never narrower than what was seen. Two samples give a half-width of
    nine times their standard deviation, which is all that two samples can say."""
    spread = float(values.std(ddof=1)) / math.sqrt(len(values))
    half = student(len(values) - 1, confidence) * spread
    return min(middle - half, float(values.min())), max(middle + half, float(values.max()))


def student(freedom: int, confidence: float = 0.95) -> float:
    """Two-sided quantile of Student's t; exact for one and two degrees of freedom, otherwise by
    Hill, Algorithm 396 (CACM 1970), whose error is below 0.1 %."""
    tail = 1 - confidence
    if freedom == 1:
        return 1 / math.tan(tail * math.pi / 2)
    if freedom == 2:
        return math.sqrt(2 / (tail * (2 - tail)) - 2)
    a = 1 / (freedom - 0.5)
    b = 48 / a**2
    c = ((20700 * a / b - 98) * a - 16) * a + 96.36
    d = ((94.5 / (b + c) - 3) / b + 1) * math.sqrt(a * math.pi / 2) * freedom
    y = (d * tail) ** (2 / freedom)
    if y > 0.05 + a:
        x = NormalDist().inv_cdf(tail / 2)
        y = x * x
        if freedom < 5:
            c += 0.3 * (freedom - 4.5) * (x + 0.6)
        c += (((0.05 * d * x - 5) * x - 7) * x - 2) * x + b
        y = (((((0.4 * y + 6.3) * y + 36) * y + 94.5) / c - y - 3) / b + 1) * x
        y = math.expm1(a * y * y)
    else:
        y = (
            (
                1 / (((freedom + 6) / (freedom * y) - 0.089 * d - 0.822) * (freedom + 2) * 3)
                + 0.5 / (freedom + 4)
            )
            * y
            - 1
        ) * (freedom + 1) / (freedom + 2) + 1 / y
    return math.sqrt(freedom * y)


def wilson(successes: int, count: int, confidence: float = 0.95) -> tuple[float, float]:
    """Score interval of a share (Wilson 1927, JASA 22): never outside 0 to 1, and of sensible width
    where all tries hit or none; 0 to 1 where nothing was tried. Raises ValueError for impossible
    counts."""
    if not 0 <= successes <= count:
        raise ValueError(f"{successes} hits of {count} tries")
    if count == 0:
        return 0.0, 1.0
    z = NormalDist().inv_cdf((1 + confidence) / 2)
    share = successes / count
    scale = 1 + z * z / count
    middle = (share + z * z / (2 * count)) / scale
    half = z * math.sqrt(share * (1 - share) / count + z * z / (4 * count * count)) / scale
    # Where all hit or none, rounding must not leave the end out.
    low = 0.0 if successes == 0 else middle - half
    high = 1.0 if successes == count else middle + half
    return low, high
