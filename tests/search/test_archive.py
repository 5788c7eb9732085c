"""Dominance with margins, fronts, ranks."""

from __future__ import annotations

import itertools

import numpy as np
import pytest

from engine.goal import within_goal
from engine.results import Result
from engine.search.archive import (
    dominates,
    front,
    hypervolume,
    outdone,
    ranks,
)


def point(
    trial: int,
    speedup: float | None,
    loss: float | None = 0.0,
    memory: float | None = None,
    accuracy: float | None = None,
) -> Result:
    return Result(
        trial=trial,
        genome={},
        key=str(trial),
        speedup=speedup,
        loss=loss,
        memory_gib=memory,
        accuracy=accuracy,
        accuracy_base=0.9,
        stage=None if speedup else "run",
    )


def cloud(seed: int, count: int = 40, spread: float = 0.1) -> list[Result]:
    rng = np.random.default_rng(seed)
    return [
        point(
            i,
            float(np.exp(rng.normal(1, spread))),
            float(rng.normal(0.02, spread / 8)),
            float(np.exp(rng.normal(0, spread))),
        )
        for i in range(count)
    ]


def test_differences_within_the_margins_do_not_dominate() -> None:
    assert not dominates(point(0, 2.03, 0.02), point(1, 2.0, 0.0))
    assert not dominates(point(0, 2.02, 0.01), point(1, 2.0, 0.01))
    assert not dominates(point(0, 2.0, 0.01), point(1, 2.0, 0.013))


def test_a_gain_beyond_its_margin_dominates_a_smaller_harm() -> None:
    assert dominates(point(0, 2.1, 0.012), point(1, 2.0, 0.01))
    assert dominates(point(0, 2.0, 0.01), point(1, 2.0, 0.02))
    assert not dominates(point(0, 2.1, 0.014), point(1, 2.0, 0.01))


def test_memory_counts_only_when_the_goal_names_it() -> None:
    small, large = point(0, 2.0, 0.0, 1.0), point(1, 2.2, 0.0, 2.0)
    assert dominates(large, small)
    assert not dominates(large, small, memory=True)
    assert len(front([small, large], memory=True)) == 2


def test_a_negative_loss_is_no_merit() -> None:
    assert not dominates(point(0, 2.0, -0.05), point(1, 2.0, 0.0))


@pytest.mark.parametrize("memory", [False, True])
@pytest.mark.parametrize("spread", [0.02, 0.1, 0.5])
def test_fronts_are_never_empty_and_account_for_all(memory: bool, spread: float) -> None:
    for seed in range(20):
        results = cloud(seed, spread=spread)
        kept = front(results, memory=memory)
        assert kept
        assert [r.speedup for r in kept] == sorted((r.speedup or 0 for r in kept), reverse=True)
        for a, b in itertools.permutations(kept, 2):
            assert not dominates(a, b, memory=memory)
        for left in results:
            assert left in kept or any(dominates(k, left, memory=memory) for k in kept)


def test_dominance_has_no_cycles_with_three_objectives() -> None:
    for seed in range(5):
        results = cloud(seed, spread=0.03)
        beats = {
            a.trial: {b.trial for b in results if dominates(a, b, memory=True)} for a in results
        }
        while beats:
            free = [t for t in beats if not any(t in others for others in beats.values())]
            assert free, "every one of the rest is dominated: a cycle"
            for t in free:
                del beats[t]


def test_a_chain_of_small_steps_does_not_swallow_the_fast_end() -> None:
    chain = [point(i, 1.019**i, 0.0031 * i) for i in range(30)]
    assert all(dominates(a, b) for a, b in itertools.pairwise(chain))
    kept = front(chain)
    assert len(kept) > 10
    assert max(r.speedup or 0 for r in kept) > 1.019**27


def test_ranks_put_the_front_first_and_failures_last() -> None:
    results = [
        point(0, None),
        point(1, 1.5, 0.04),
        point(2, 3.0, 0.03),
        point(3, 9.0, 0.5),
        point(4, 2.0, 0.0),
        point(5, 8.0, 0.2),
    ]
    order = ranks(results, max_loss=0.05)
    assert sorted(order) == list(range(6))
    assert {order[2], order[4]} == {0, 1}
    assert [order[i] for i in (1, 5, 3, 0)] == [2, 3, 4, 5]


def test_crowded_points_of_a_front_come_later() -> None:
    results = [point(0, 1.0, 0.0), point(1, 3.0, 0.05), point(2, 3.2, 0.055), point(3, 4.0, 0.09)]
    order = ranks(results, max_loss=0.1)
    assert {order[0], order[3]} == {0, 1}


def test_hypervolume_is_the_area_of_the_union() -> None:
    assert hypervolume([(2.0, 0.1)]) == pytest.approx(0.1)
    assert hypervolume([(2.0, 0.1), (3.0, 0.15), (1.5, 0.12)]) == pytest.approx(0.15)
    assert hypervolume([(0.9, 0.0), (3.0, 0.2)]) == 0.0
    assert hypervolume([]) == 0.0


@pytest.mark.parametrize("memory", [False, True])
def test_each_front_is_what_one_by_one_comparison_leaves(memory: bool) -> None:
    for seed in range(10):
        left = cloud(seed, count=60)
        order = ranks(left, max_loss=9.0, memory=memory)
        by_rank = [left[order.index(place)] for place in range(len(left))]
        peeled: list[Result] = []
        while left:
            layer = front(left, memory=memory)
            assert {r.trial for r in layer} == {r.trial for r in one_by_one(left, memory)}
            peeled += layer
            assert {r.trial for r in by_rank[: len(peeled)]} == {r.trial for r in peeled}
            left = [r for r in left if r not in layer]


def one_by_one(results: list[Result], memory: bool) -> list[Result]:
    """The front by comparing every two, best sum of gains over the first point first."""

    def merit(r: Result) -> float:
        least = np.log(r.speedup or 0) / np.log(1.02) - max(0.0, r.loss or 0.0) / 0.003
        return float(least - (np.log(r.memory_gib or 0) / np.log(1.05) if memory else 0.0))

    kept: list[Result] = []
    for result in sorted(results, key=lambda r: -merit(r)):
        if not any(dominates(other, result, memory=memory) for other in kept):
            kept.append(result)
    return kept


def test_a_goal_is_kept_in_loss_and_accuracy() -> None:
    goal = {"max_loss": 0.05, "accuracy_drop": 0.05}
    assert within_goal(point(0, 5.0, 0.05, accuracy=0.85), goal)
    assert within_goal(point(1, 4.0, 0.0), goal), "a result without a checker is not held to it"
    assert not within_goal(point(2, 9.0, 0.06), goal)
    assert not within_goal(point(3, 6.0, 0.01, accuracy=0.84), goal)
    assert not within_goal(point(4, 8.0, None), goal), "a loss that was not measured"
    assert not within_goal(point(5, None), goal)


def test_a_goal_is_kept_in_every_limit_that_it_names() -> None:
    result = point(0, 2.0, 0.01, memory=1.5)
    assert within_goal(result, {"max_loss": 0.05, "speedup": 2.0, "memory_gib": 1.5})
    assert not within_goal(result, {"speedup": 2.1})
    assert not within_goal(result, {"memory_gib": 1.4})
    assert not within_goal(result, {"seconds": 9.0}), "seconds were not measured"


def test_a_candidate_is_outdone_only_by_what_is_clearly_faster_at_no_more_loss() -> None:
    accepted = [point(0, 4.7, 0.002), point(1, 6.0, 0.09)]
    assert outdone(point(2, 4.2, -0.03), accepted)
    assert outdone(point(2, 3.0, 0.01), accepted)
    assert not outdone(point(2, 4.4, 0.01), accepted), "so near that luck decides"
    assert not outdone(point(2, 4.2, -0.03), [point(0, 4.7, 0.01)]), "it may lose less"
    assert not outdone(point(2, 1.1), [])
