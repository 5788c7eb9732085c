"""Whether a result keeps a goal, and whether it does so at the worse end of its intervals."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import pytest

from engine.goal import (
    another_look_decides,
    asks,
    asks_speed,
    beaten,
    chance,
    recommended,
    slack,
    surely_within,
    surest,
    within_goal,
)
from engine.results import Result, Sample
from engine.study import missed

GOAL: dict[str, Any] = {"max_loss": 0.05, "accuracy_drop": 0.05, "quality": "prompt_score"}
POINT = Result(
    0,
    {},
    "k",
    speedup=3.0,
    speedup_low=2.8,
    speedup_high=3.2,
    loss=0.02,
    loss_low=0.0,
    loss_high=0.04,
    seconds_per_image=0.10,
    seconds_low=0.09,
    seconds_high=0.12,
    memory_gib=1.0,
)


def test_only_a_speed_up_a_time_or_a_memory_ends_a_search() -> None:
    assert not asks(GOAL)
    for name in ("speedup", "seconds", "memory_gib"):
        assert asks(GOAL | {name: 1.0})


@pytest.mark.parametrize(
    ("limits", "kept", "sure"),
    [
        ({}, True, True),
        ({"max_loss": 0.03}, True, False),
        ({"max_loss": 0.01}, False, False),
        ({"speedup": 2.8}, True, True),
        ({"speedup": 2.9}, True, False),
        ({"speedup": 3.1}, False, False),
        ({"seconds": 0.12}, True, True),
        ({"seconds": 0.11}, True, False),
        ({"seconds": 0.09}, False, False),
        ({"memory_gib": 1.0}, True, True),
        ({"memory_gib": 0.9}, False, False),
    ],
)
def test_a_limit_is_kept_by_the_estimate_and_surely_by_the_whole_interval(
    limits: dict[str, Any], kept: bool, sure: bool
) -> None:
    assert within_goal(POINT, GOAL | limits) is kept
    assert surely_within(POINT, GOAL | limits) is sure
    if "memory_gib" not in limits:
        assert (slack(POINT, GOAL | limits) > -1e-9) is kept
        assert (slack(POINT, GOAL | limits) > 1 - 1e-9) is sure


def test_slack_is_that_of_the_limit_which_is_kept_least() -> None:
    assert slack(POINT, GOAL) == pytest.approx(1.5)
    assert slack(POINT, GOAL | {"speedup": 2.9}) == pytest.approx(0.49, abs=0.01)
    assert slack(POINT, {}) == math.inf
    assert slack(replace(POINT, speedup=None), {"speedup": 2.0}) == -math.inf
    counted = replace(POINT, speedup_low=3.0, speedup_high=3.0)
    assert slack(counted, {"speedup": 2.9}) == math.inf
    assert slack(counted, {"speedup": 3.1}) == -math.inf


def test_the_worst_prompts_count_where_fidelity_is_the_quality() -> None:
    goal = GOAL | {"quality": "same_image", "max_worst": 0.15}
    assert not within_goal(POINT, goal), "it was not measured"
    assert within_goal(replace(POINT, loss_worst=0.15), goal)
    assert not within_goal(replace(POINT, loss_worst=0.16), goal)
    assert within_goal(replace(POINT, loss_worst=0.16), GOAL)


def test_what_failed_or_was_not_measured_keeps_no_limit() -> None:
    assert not within_goal(replace(POINT, stage="run"), GOAL)
    assert not within_goal(replace(POINT, loss=None), GOAL)
    assert not surely_within(replace(POINT, loss_high=None), GOAL)


def test_a_study_that_a_budget_ended_without_a_result_says_so() -> None:
    spent = "llm.budget.calls=1 is used up (1); a higher limit goes on from here"
    assert missed(spent).endswith(spent)
    assert "search longer" not in missed(spent)
    assert "search longer" in missed(None)


def drawn(speedup: float, images: int) -> Result:
    """A trial after so many timed images."""
    sample = Sample("candidate", 0, 0, "a red circle", 0, 0.1)
    return replace(
        POINT,
        trial=5,
        rung=0,
        speedup=speedup,
        speedup_low=speedup - 0.1,
        speedup_high=speedup + 0.1,
        samples=(sample,) * images,
    )


def test_what_is_slower_than_asked_for_is_left_where_another_keeps_its_quality_and_is_faster() -> (
    None
):
    asked = GOAL | {"speedup": 4.0}
    fastest = replace(POINT, rung=1)
    assert beaten(drawn(2.5, 2), [fastest], asked) == (
        "2.50x, slower than asked for and than trial 0"
    )
    assert beaten(drawn(2.8, 2), [fastest], asked) is None, "two images tell little"
    assert beaten(drawn(2.8, 8), [fastest], asked) is not None
    assert beaten(drawn(3.1, 8), [fastest], asked) is None, "it may be the answer"
    for useless in (replace(POINT, rung=0), replace(POINT, rung=1, loss=0.06)):
        assert beaten(drawn(2.5, 8), [useless], asked) is None


def test_nothing_is_left_that_may_reach_the_target() -> None:
    asked = GOAL | {"speedup": 2.8}
    faster = [replace(POINT, rung=1, speedup=9.0)]
    assert beaten(drawn(2.75, 8), faster, asked) is None, "its interval holds the target"
    assert beaten(drawn(2.6, 8), faster, asked) is not None
    in_time = GOAL | {"seconds": 0.1}
    slow, slower = (replace(drawn(x, 8), seconds_base=0.28) for x in (2.75, 2.6))
    assert beaten(slow, faster, in_time) is None
    assert beaten(slower, faster, in_time) is not None
    assert [asks_speed(GOAL | {name: 1.0}) for name in ("speedup", "seconds", "memory_gib")] == [
        True,
        True,
        False,
    ]


def test_the_surest_is_the_fastest_of_those_that_are_sure() -> None:
    asked = GOAL | {"speedup": 2.8}
    luckier = replace(POINT, trial=1, speedup=3.5, speedup_low=2.7, speedup_high=4.3)
    faster = replace(POINT, trial=2, speedup=3.2, speedup_low=3.0, speedup_high=3.4)
    assert surest([POINT, luckier, faster], asked) == faster
    assert surest([], asked) is None


@pytest.mark.parametrize(
    ("speedup", "looks", "decides"),
    [
        (2.8, 1, False),  # sure already
        (2.82, 1, True),
        (2.85, 1, True),
        (2.9, 1, False),  # two looks would be too few
        (2.85, 2, False),
        (2.82, 2, True),
        (3.1, 1, False),  # missed
    ],
)
def test_another_look_is_worth_it_where_the_same_figures_would_then_be_sure(
    speedup: float, looks: int, decides: bool
) -> None:
    asked = GOAL | {"speedup": speedup}
    assert another_look_decides(replace(POINT, looks=looks), asked) is decides


def test_the_chance_that_a_limit_is_kept_again_is_even_on_the_limit() -> None:
    assert chance(POINT, GOAL | {"max_loss": 0.02}) == pytest.approx(0.5)
    # One half width of the interval away; a second measurement has an error of its own.
    assert chance(POINT, GOAL | {"max_loss": 0.04}) == pytest.approx(0.917, abs=0.001)
    assert chance(POINT, GOAL | {"max_loss": 0.0}) == pytest.approx(0.083, abs=0.001)
    assert chance(POINT, {}) == 1.0
    assert chance(replace(POINT, loss=None), GOAL) == 0.0


def test_a_study_hands_over_its_fastest_point_or_the_surest_where_it_was_asked_for_something() -> (
    None
):
    surer = replace(POINT, trial=1)
    faster = replace(POINT, trial=2, speedup=3.2, speedup_low=3.0, loss=0.049, loss_high=0.07)
    ruined = replace(POINT, trial=3, speedup=9.0, loss=0.2)
    found = [faster, surer, ruined]
    assert recommended(found, GOAL) == faster
    assert recommended(found, GOAL | {"speedup": 2.5}) == surer
    assert recommended([ruined], GOAL) is None
