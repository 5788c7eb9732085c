"""Intervals: they cover the truth as often as they say, also with drift and spikes."""

from __future__ import annotations

import json
import math
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from engine.measure.statistics import (
    Interval,
    Verdict,
    between_workers,
    combine,
    median_interval,
    paired_ratio,
    ratio_of_means,
    relative_loss,
    student,
)

RATIO = 1.7
Floats = NDArray[np.float64]


def series(pairs: int, rho: float, rng: np.random.Generator) -> tuple[Floats, Floats]:
    """Seconds of both arms in rounds A B B A or B A A B on a machine that drifts (30 %, AR(1) from
    one call to the next), jitters (10 %) and has a spike of up to four times in 5 % of calls."""
    calls = 2 * pairs
    drift = np.empty(calls)
    drift[0] = rng.normal()
    for i in range(1, calls):
        drift[i] = rho * drift[i - 1] + math.sqrt(1 - rho**2) * rng.normal()
    seconds = np.exp(0.3 * drift + 0.1 * rng.normal(size=calls))
    seconds *= np.where(rng.random(calls) < 0.05, rng.uniform(1.5, 4, calls), 1)
    second_first = np.repeat(rng.random((pairs + 1) // 2) < 0.5, 2)[:pairs]
    # Within a round the order of the arms turns from the first pair to the second.
    second_first ^= np.arange(pairs) % 2 == 1
    couples = seconds.reshape(pairs, 2)
    base = np.where(second_first, couples[:, 1], couples[:, 0])
    candidate = np.where(second_first, couples[:, 0], couples[:, 1]) / RATIO
    return base, candidate


def coverage(pairs: int, rho: float, count: int) -> int:
    rng = np.random.default_rng(7)
    return sum(paired_ratio(*series(pairs, rho, rng), rng=i).covers(RATIO) for i in range(count))


def test_36_autocorrelated_pairs_cover_the_truth_930_times_of_1000() -> None:
    found = coverage(36, 0.9, 1000)
    print(f"36 pairs: {found} of 1000")
    assert 930 <= found <= 990


@pytest.mark.parametrize(("pairs", "rho"), [(8, 0.9), (18, 0.9), (36, 0.0), (36, 0.99)])
def test_few_pairs_and_other_drifts_cover_the_truth(pairs: int, rho: float) -> None:
    found = coverage(pairs, rho, 200)
    print(f"{pairs} pairs, correlation {rho}: {found} of 200")
    assert found >= 183


def test_two_pairs_give_a_wide_interval_that_holds() -> None:
    found = paired_ratio([2.0, 2.2], [1.0, 1.0])
    assert found.low < 1.2
    assert found.high > 3.5
    assert coverage(2, 0.9, 200) >= 183


def test_more_pairs_narrow_the_interval() -> None:
    widths = [paired_ratio(*series(n, 0.9, np.random.default_rng(1))).width for n in (8, 36, 144)]
    assert widths[0] > widths[1] > widths[2]


def test_a_spike_in_one_call_moves_little() -> None:
    base, candidate = series(36, 0.9, np.random.default_rng(3))
    spiked = base.copy()
    spiked[5] *= 100
    assert paired_ratio(spiked, candidate).median == pytest.approx(
        paired_ratio(base, candidate).median, rel=0.05
    )
    assert ratio_of_means(spiked, candidate) > 2 * RATIO


def test_equal_arms_give_exactly_one_and_the_same_seed_the_same_interval() -> None:
    seconds = np.linspace(1, 2, 12)
    assert paired_ratio(seconds, seconds) == Interval(1.0, 1.0, 1.0)
    base, candidate = series(72, 0.5, np.random.default_rng(0))
    assert paired_ratio(base, candidate, 4) == paired_ratio(base, candidate, 4)
    assert paired_ratio(base, candidate, 4) != paired_ratio(base, candidate, 5)


@pytest.mark.parametrize(
    ("base", "candidate"),
    [([1.0], [1.0]), ([1.0, 2.0], [1.0]), ([1.0, 0.0], [1.0, 1.0]), ([1.0, math.nan], [1.0, 1.0])],
)
def test_samples_that_say_nothing_are_refused(base: list[float], candidate: list[float]) -> None:
    with pytest.raises(ValueError, match=r"pairs|positive|finite"):
        paired_ratio(base, candidate)


def test_a_recorded_control_covers_one() -> None:
    recorded = Path(__file__).parents[1] / "data" / "aa.json"
    if not recorded.exists():
        pytest.skip("no recorded series")
    data = json.loads(recorded.read_text())
    assert paired_ratio(data["base"], data["candidate"]).covers(1.0)


@pytest.mark.parametrize("prompts", [2, 5, 10, 36])
def test_losses_cover_the_truth(prompts: int) -> None:
    rng = np.random.default_rng(11)
    hits = 0
    for i in range(300):
        base = rng.normal(25, 3, prompts)
        hits += relative_loss(base, 0.96 * base + rng.normal(0, 1.5, prompts), i).covers(0.04)
    assert hits >= 273


def test_the_loss_is_that_of_the_means() -> None:
    found = relative_loss([20.0, 30.0], [19.0, 29.0])
    assert found.median == pytest.approx(0.04)
    with pytest.raises(ValueError, match="positive"):
        relative_loss([0.0, 0.0], [1.0, 1.0])


def test_verdicts_come_from_the_bounds() -> None:
    interval = Interval(1.8, 2.0, 2.2)
    assert Verdict.at_least(interval, 1.8) is Verdict.PASS
    assert Verdict.at_least(interval, 2.0) is Verdict.UNDECIDED
    assert Verdict.at_least(interval, 2.3) is Verdict.FAIL
    assert Verdict.at_most(interval, 2.2) is Verdict.PASS
    assert Verdict.at_most(interval, 2.1) is Verdict.UNDECIDED
    assert Verdict.at_most(interval, 1.7) is Verdict.FAIL


def test_a_product_is_as_uncertain_as_both_factors_together() -> None:
    found = combine(Interval(1 / 1.3, 1.0, 1.3), Interval(2 / 1.4, 2.0, 2.8))
    spread = math.exp(math.hypot(math.log(1.3), math.log(1.4)))
    assert found.median == pytest.approx(2.0)
    assert found.high == pytest.approx(2 * spread)
    assert found.low == pytest.approx(2 / spread)


def test_students_quantile_agrees_with_scipy() -> None:
    from scipy import stats

    for freedom in (1, 2, 3, 4, 5, 8, 17, 35, 200):
        for confidence in (0.9, 0.95, 0.99):
            expected = stats.t.ppf(0.5 + confidence / 2, freedom)
            assert student(freedom, confidence) == pytest.approx(expected, rel=2e-3)


def test_a_mix_of_groups_is_covered_as_often_as_stated() -> None:
    """Small requests 3x, large ones (five times as long) 1.2x: the mix's ratio of times."""
    rng = np.random.default_rng(5)
    truth = (1 + 5) / (1 / 3 + 5 / 1.2)
    groups = ["small", "large"] * 18
    length = np.array([1.0, 5.0] * 18)
    ratio = np.array([3.0, 1.2] * 18)
    hits = 0
    for _ in range(200):
        base = length * np.exp(0.1 * rng.normal(size=36))
        candidate = length / ratio * np.exp(0.1 * rng.normal(size=36))
        hits += paired_ratio(base, candidate, 0, groups=groups).covers(truth)
    assert hits >= 185


def test_one_group_is_no_mix() -> None:
    rng = np.random.default_rng(1)
    base, candidate = np.exp(rng.normal(size=(2, 20)))
    assert paired_ratio(base, candidate, 0, groups=["a"] * 20) == paired_ratio(base, candidate, 0)


@pytest.mark.parametrize("count", [8, 36])
def test_the_interval_of_a_median_covers_as_often_as_stated(count: int) -> None:
    rng = np.random.default_rng(2)
    hits = sum(median_interval(rng.exponential(size=count)).covers(math.log(2)) for _ in range(500))
    assert hits >= 470
    few = median_interval([3.0, 1.0, 2.0])
    assert (few.low, few.median, few.high) == (1.0, 2.0, 3.0)


def test_the_luck_of_two_processes_widens_an_interval_by_two_deviations_at_least() -> None:
    narrow = between_workers(Interval(1.99, 2.0, 2.01), 0.01)
    assert narrow.median == 2.0
    assert narrow.low < 2 / 1.0196
    assert narrow.high > 2 * 1.0196
    wide = between_workers(Interval(1.0, 2.0, 4.0), 0.01)
    assert wide.low == pytest.approx(1.0, rel=0.001)
