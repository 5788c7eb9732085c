"""Main effects on synthetic searches whose truth is known."""

from __future__ import annotations

import math
import random
from dataclasses import replace

import pytest

from engine.report import effects
from engine.report.contributions import LEAST, Contributions, Effect, contributions
from engine.results import Genome, Result

ALWAYS: Genome = {"sampler": {"name": "a", "steps": 10}}


def search(count: int, seed: int, noise: float = 0.03) -> list[Result]:
    """Trials of which the truth is known.

    Cache multiplies speed by 1.5 (1.8 at interval 4, 1.25 at 2) and costs 2 points of loss, merge
    does nothing, the sampler is always on and each of its steps costs 3 % of speed.
    """
    rng = random.Random(seed)
    found = []
    for trial in range(count):
        steps = rng.choice([6, 8, 10, 12, 14, 16])
        genome: Genome = {"sampler": {"name": "a", "steps": steps}}
        logs, loss = -0.03 * steps, 0.01
        if trial % 2:
            interval = 2 + 2 * (trial // 2 % 2)
            genome["cache"] = {"interval": interval}
            logs += math.log(1.25 if interval == 2 else 1.8)
            loss += 0.02
        if rng.random() < 0.5:
            genome["merge"] = {"ratio": rng.choice([0.1, 0.5])}
        found.append(
            Result(
                trial,
                genome,
                f"k{trial}",
                speedup=math.exp(logs + rng.gauss(0, noise)),
                loss=loss + rng.gauss(0, noise / 3),
            )
        )
    return found


def effect(found: Contributions | None, label: str) -> Effect:
    assert found is not None
    return next(e for e in found.effects if e.label == label)


def test_nothing_is_told_from_fewer_than_thirty_measured_trials() -> None:
    trials = search(LEAST, 0)
    assert contributions(trials) is not None
    failed = replace(trials[0], stage="run", speedup=None)
    assert contributions([failed, *trials[1:]]) is None


def test_known_effects_are_found() -> None:
    found = contributions(search(400, 1))
    cache = effect(found, "cache")
    assert cache.speed is not None
    assert cache.loss is not None
    assert math.exp(cache.speed.value) == pytest.approx(1.5, rel=0.02)
    assert cache.loss.value == pytest.approx(0.02, abs=0.003)
    assert cache.speed.clear
    assert cache.loss.clear
    high, low = (effect(found, f"cache interval={i}") for i in (4, 2))
    assert high.speed is not None
    assert low.speed is not None
    assert high.speed.value - low.speed.value == pytest.approx(math.log(1.8 / 1.25), abs=0.02)
    assert found is not None
    assert (found.explained_speed or 0) > 0.9


def test_intervals_cover_the_truth_about_as_often_as_they_say() -> None:
    wide, inside = [], 0
    for seed in range(60):
        found = contributions(search(60, seed), seed)
        merge = effect(found, "merge").speed
        cache = effect(found, "cache").loss
        assert merge is not None
        assert cache is not None
        inside += int(merge.low <= 0 <= merge.high) + int(cache.low <= 0.02 <= cache.high)
        wide.append(merge.high - merge.low)
    # Of 120 intervals at 95 % fewer than 103 cover with a probability below one in a thousand.
    assert inside >= 103
    assert sum(wide) / len(wide) < 0.08


def test_a_technique_that_is_always_on_has_values_but_no_effect_of_its_own() -> None:
    found = contributions(search(200, 2))
    assert effect(found, "sampler").speed is None
    assert found is not None
    few, *_, many = (e for e in found.effects if e.gene == "steps")
    assert few.value.startswith("6")
    assert many.value.endswith("16")
    assert few.speed is not None
    assert many.speed is not None
    assert few.speed.value > 0 > many.speed.value
    assert not [e for e in found.effects if e.gene == "name"]


def test_too_few_trials_with_a_value_give_no_estimate() -> None:
    trials = search(60, 3)
    rare: Genome = {**trials[0].genome, "rare": {}}
    found = contributions([replace(t, genome=rare) if t.trial < 2 else t for t in trials])
    assert effect(found, "rare").speed is None
    assert effect(found, "rare").trials == 2


def test_techniques_that_never_parted_are_named() -> None:
    trials = [
        replace(t, genome={**t.genome, "twin": {}}) if "cache" in t.genome else t
        for t in search(60, 4)
    ]
    found = contributions(trials)
    assert found is not None
    assert found.together == (("cache", "twin"),)


def test_without_measured_losses_speed_alone_is_told() -> None:
    found = contributions([replace(t, loss=None) for t in search(60, 5)])
    assert effect(found, "cache").loss is None
    assert effect(found, "cache").speed is not None
    assert found is not None
    assert found.explained_loss is None


def test_equal_compositions_and_thousands_of_trials_are_no_trouble() -> None:
    same = [Result(i, ALWAYS, "k", speedup=2.0, loss=0.0) for i in range(40)]
    found = contributions(same)
    assert found is not None
    assert found.explained_speed is None
    large = contributions(search(3000, 6))
    cache = effect(large, "cache").speed
    assert cache is not None
    assert cache.low < math.log(1.5) < cache.high


def test_figures_are_factors_and_points() -> None:
    found = contributions(search(200, 1))
    cache = effect(found, "cache")
    assert cache.speed is not None
    assert cache.loss is not None
    assert effects.factor(cache.speed)[0].startswith("1.5")
    assert effects.points(cache.loss)[0] in ("+1.9", "+2.0", "+2.1")
