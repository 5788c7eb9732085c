"""Statistics are recomputed from raw samples; differences of two measurements carry intervals."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest

from engine.app import difference
from engine.errors import TrialError
from engine.measure.summary import summarised
from engine.results import Result, Sample


def result(pairs: int = 8, **figures: float) -> Result:
    samples = []
    for i in range(pairs):
        for arm, seconds, score in (("base", 2.0, 30.0), ("candidate", 1.0, 27.0)):
            position = 2 * (i % 2) + (arm == "candidate")
            samples.append(
                Sample(arm, i // 2, position, f"p{i}", i, seconds, score, arm == "base" or i > 0)
            )
    return replace(Result(0, {}, "k", samples=tuple(samples)), **figures)  # type: ignore[arg-type]


def test_speed_loss_and_accuracy_follow_from_the_samples() -> None:
    found = summarised(result(), "time")
    assert found.speedup == pytest.approx(2.0)
    assert found.speedup_paper == pytest.approx(2.0)
    assert found.loss == pytest.approx(0.1)
    assert found.accuracy == pytest.approx(7 / 8)
    assert found.accuracy_base == 1.0
    assert found.seconds_per_image == 1.0


def test_the_luck_of_processes_is_averaged_over_the_looks() -> None:
    one = summarised(result(), "time")
    two = summarised(replace(result(), looks=2), "time")
    assert one.speedup_high is not None
    assert two.speedup_high is not None
    assert two.speedup == one.speedup
    assert math.log(two.speedup_high / 2) == pytest.approx(math.log(one.speedup_high / 2) / 2**0.5)


def test_what_is_only_scored_counts_for_quality_and_never_for_time() -> None:
    timed = result()
    drawn = tuple(
        Sample(arm, 4, position, "more", 9, 60.0, 30.0, True, clocked=False)
        for position, arm in enumerate(("base", "candidate"))
    )
    found = summarised(replace(timed, samples=(*timed.samples, *drawn)), "time")
    assert found.speedup == pytest.approx(2.0)
    assert found.seconds_p95 == 1.0
    assert found.images_per_second == pytest.approx(1.0)
    assert found.loss == pytest.approx(1 - (8 * 27 + 30) / (9 * 30))
    assert found.accuracy == pytest.approx(8 / 9)


def test_counted_operations_give_the_speed_up_when_asked() -> None:
    found = summarised(result(cost_flops=10.0, cost_base_flops=40.0), "flops")
    assert (found.speedup_low, found.speedup, found.speedup_high) == (4.0, 4.0, 4.0)


def test_an_unknown_cost_is_never_a_speed_up() -> None:
    with pytest.raises(TrialError, match="could not be counted"):
        summarised(result(), "flops")


def test_a_loss_needs_every_score() -> None:
    whole = result()
    blind = replace(whole, samples=tuple(replace(s, score=None) for s in whole.samples))
    assert summarised(blind, "time").loss is None


def test_a_strangers_score_counts_up_to_a_twentieth_above_the_baselines() -> None:
    whole = result()
    pleasing = tuple(replace(s, score=45.0) if s.arm == "candidate" else s for s in whole.samples)
    ours = summarised(replace(whole, samples=pleasing), "time")
    assert ours.loss == pytest.approx(-0.5)
    theirs = summarised(replace(whole, samples=pleasing, untrusted=True), "time")
    assert (theirs.loss_low, theirs.loss, theirs.loss_high) == pytest.approx((-0.05,) * 3)
    assert summarised(replace(whole, untrusted=True), "time").loss == pytest.approx(0.1)


def test_two_measurements_of_the_same_thing_differ_by_an_interval_around_zero() -> None:
    first = replace(result(), speedup=3.0, speedup_low=2.9, speedup_high=3.1)
    second = replace(result(), speedup=3.05, speedup_low=2.95, speedup_high=3.15)
    change = difference(first, second)
    assert change is not None
    assert change.covers(0.0)
    faster = replace(result(), speedup=4.0, speedup_low=3.9, speedup_high=4.1)
    change = difference(first, faster)
    assert change is not None
    assert not change.covers(0.0)
    assert change.median == pytest.approx(1 / 3)


def test_a_batch_counts_once_for_time_and_each_image_for_quality() -> None:
    single = result()
    batched = tuple(
        replace(s, batch=2, index=index, seconds=2 * s.seconds)
        for s in single.samples
        for index in (0, 1)
    )
    found = summarised(replace(single, samples=batched), "time")
    assert found.speedup == pytest.approx(2.0)
    assert found.seconds_per_image == pytest.approx(1.0)
    assert found.images_per_second == pytest.approx(1.0)
    assert found.seconds_p95 == pytest.approx(2.0)
    assert found.accuracy == pytest.approx(7 / 8)


def test_a_mix_of_shapes_counts_each_shape_by_its_time() -> None:
    """Small requests twice as fast and large ones, which take ten times as long, no faster."""
    samples = []
    for i in range(8):
        large = i % 2 == 1
        for arm, seconds in (("base", 2.0), ("candidate", 1.0)):
            position = 2 * (i % 2) + (arm == "candidate")
            taken = 20.0 if large else seconds
            samples.append(
                Sample(arm, i // 2, position, f"p{i}", i, taken, height=96 if large else 64)
            )
    found = summarised(replace(result(), samples=tuple(samples)), "time")
    assert found.speedup == pytest.approx((2 + 20) / (1 + 20))


def test_fidelity_is_the_loss_where_a_drift_is_given() -> None:
    samples = tuple(
        replace(s, ssim=0.96 if i < 14 else 0.48) if s.arm == "candidate" else s
        for i, s in enumerate(result().samples)
    )
    found = summarised(replace(result(), samples=samples), "time", drift=0.96)
    assert found.loss == pytest.approx(1 / 16)
    assert found.loss_worst == pytest.approx(0.5)
    assert summarised(replace(result(), samples=samples), "time").loss == pytest.approx(0.1)
