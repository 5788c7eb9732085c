"""Which trials of a search are measured again."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from engine.finalists import Choice
from engine.genome import canonical
from engine.results import Result
from engine.schema import GoalConfig

BASELINE = canonical({"sampler": {"steps": 50}})


def goal(**asked: Any) -> GoalConfig:
    plain: dict[str, Any] = {
        "quality": "prompt_score",
        "max_loss": 0.05,
        "max_worst": 0.15,
        "accuracy_drop": None,
        "keep_steps": False,
        "speedup": None,
        "seconds": None,
        "memory_gib": None,
    }
    return GoalConfig(**(plain | asked))


def trial(number: int, speedup: float, loss: float = 0.01, rung: int = 1) -> Result:
    genome = canonical({"sampler": {"steps": 20}, "tgate": {"gate": 0.2 + 0.05 * number}})
    return Result(
        number,
        genome,
        f"k{number}",
        rung=rung,
        speedup=speedup,
        speedup_low=0.95 * speedup,
        speedup_high=1.05 * speedup,
        loss=loss,
        loss_low=loss - 0.01,
        loss_high=loss + 0.01,
    )


def test_what_was_left_after_a_few_prompts_is_not_measured_again() -> None:
    choice = Choice(goal(), BASELINE)
    told = [trial(0, 3.0, 0.03), trial(1, 2.0, 0.0, rung=0)]
    assert [r.trial for r in choice.finalists(told, told)] == [0]
    full = [told[0], replace(told[1], rung=1)]
    assert [r.trial for r in choice.finalists(full, full)] == [0, 1]


def test_where_speed_is_asked_for_a_slower_point_is_outdone_whatever_it_loses() -> None:
    accepted = trial(0, 3.0, 0.03, rung=2)
    slower = trial(1, 2.0, 0.0)
    assert not Choice(goal(), BASELINE).outdone(slower, [accepted])
    asking = Choice(goal(speedup=3.5), BASELINE)
    assert asking.outdone(slower, [accepted])
    assert not asking.outdone(trial(2, 2.9), [accepted])
    assert not asking.outdone(slower, [replace(accepted, loss=0.06)])
    assert not asking.outdone(slower, [replace(accepted, rung=1)])


def test_a_goal_is_met_by_an_accepted_trial_whose_whole_interval_keeps_it() -> None:
    asking = Choice(goal(speedup=2.8), BASELINE)
    sure = trial(0, 3.0, rung=2)
    assert asking.met([trial(1, 9.0), sure]) == sure
    assert asking.met([replace(sure, rung=1)]) is None
    assert asking.met([replace(sure, speedup_low=2.7)]) is None
    assert asking.met([replace(sure, loss_high=0.06)]) is None
    assert Choice(goal(), BASELINE).met([sure]) is None


def test_where_speed_is_asked_for_the_surest_is_measured_again_and_not_the_fastest() -> None:
    asking = Choice(goal(speedup=2.5), BASELINE)
    fastest, surest = trial(0, 3.6, 0.048), trial(1, 2.8, 0.0)
    told = [fastest, surest, trial(2, 2.4, -0.02), replace(trial(3, 3.0), rung=0)]
    assert asking.likely(told) == surest
    assert Choice(goal(), BASELINE).likely(told) is None


def test_a_trial_that_looks_less_sure_than_what_was_measured_again_is_not() -> None:
    asking = Choice(goal(speedup=2.5), BASELINE)
    known = replace(trial(0, 2.6, 0.03, rung=2), speedup_low=2.51, loss_high=0.06)
    less, more = trial(1, 3.6, 0.047), trial(2, 2.8, 0.04)
    assert asking.kept([known, more]) == known
    assert asking.likely([known, less]) is None
    assert asking.likely([known, less, more]) == more
    missed = replace(known, loss=0.07, loss_high=0.1)
    assert asking.kept([missed]) is None
    assert asking.likely([missed, less]) == less
    sure = replace(known, loss_high=0.049)
    assert asking.likely([sure, trial(3, 2.9, -0.05)]) is None, "the goal is met"
