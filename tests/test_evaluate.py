"""The cascade on the miniature: what is timed, what is only scored, and what is given up early."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from engine import references, results, session
from engine.evaluate import PORTION, Evaluator
from engine.genome import canonical
from engine.models import CHECKPOINTS
from engine.results import Result
from engine.schema import Config

Composed = Callable[..., Config]
TINY = ("+debug=tiny", "objective=flops", "measure.search_prompts=4", "measure.scored_prompts=3")
SLOW = canonical({"sampler": {"name": "dpmpp_2m", "steps": 30}})
EVEN = canonical({"sampler": {"name": "dpmpp_2m", "steps": 18}})
FAST = canonical({"sampler": {"name": "dpmpp_2m", "steps": 5}})


@pytest.fixture
def evaluator(composed: Composed, tmp_path: Path) -> Callable[..., Evaluator]:
    def make(*overrides: str, **settings: Any) -> Evaluator:
        config = composed(*TINY, *overrides)
        return Evaluator(config, session.machine_of(config), tmp_path, **settings)

    return make


def test_a_candidate_is_timed_on_some_prompts_and_scored_on_more(
    evaluator: Callable[..., Evaluator], tmp_path: Path
) -> None:
    with evaluator() as mine:
        first, second = (mine.evaluate(trial, FAST, "user") for trial in range(2))
    for told in (first, second):
        assert told.rung == 1
        drawn = [s for s in told.samples if not s.clocked]
        assert len(told.samples) - len(drawn) == 2 * 4
        assert (
            [s.arm for s in drawn].count("base") == [s.arm for s in drawn].count("candidate") == 3
        )
        assert all(s.score is not None and s.correct is not None for s in drawn)
        assert all(s.ssim is not None for s in drawn if s.arm == "candidate")
        assert {s.image for s in drawn} == {None}
        assert all((tmp_path / str(told.trial) / str(s.image)).exists() for s in told.samples[:8])
        assert results.load(tmp_path / str(told.trial) / "result.json") == told
    asked = [
        [(s.prompt, s.seed, s.score) for s in r.samples if not s.clocked] for r in (first, second)
    ]
    assert asked[0] == asked[1], "all candidates answer the same further requests"
    timed = [{(s.prompt, s.seed) for s in r.samples if s.clocked} for r in (first, second)]
    assert not timed[0] & timed[1], "what is timed is fresh for every candidate"


def test_what_is_much_slower_is_given_up_unless_memory_is_wanted(
    evaluator: Callable[..., Evaluator],
) -> None:
    with evaluator() as mine:
        told = mine.evaluate(0, SLOW, "user")
    assert told.rung == 0
    assert told.ok
    assert "much slower than the baseline" in told.notes[-1]
    with evaluator("goal.memory_gib=64") as mine:
        assert mine.evaluate(1, SLOW, "user").rung == 1


def test_where_nothing_judges_an_image_all_images_are_timed(
    composed: Composed, tmp_path: Path
) -> None:
    config = composed(*TINY, f"model.weights={CHECKPOINTS / 'sd-mini'}", "model.scorer=null")
    with Evaluator(config, session.machine_of(config), tmp_path) as mine:
        told = mine.evaluate(0, FAST, "user")
    assert told.ok
    assert told.loss is None
    assert len(told.samples) == 2 * 4
    assert all(s.clocked for s in told.samples)


def test_another_look_adds_fresh_processes_and_prompts_to_what_was_measured(
    evaluator: Callable[..., Evaluator], tmp_path: Path
) -> None:
    with evaluator("measure.acceptance_prompts=4") as mine:
        first = mine.accept(mine.evaluate(0, FAST, "user"))
        process = mine.arms.base().worker.pid
        second = mine.look_again(first)
        assert mine.arms.base().worker.pid != process
    assert (first.looks, second.looks, second.rung) == (1, 2, 2)
    assert second.samples[: len(first.samples)] == first.samples
    assert len(second.samples) == 2 * len(first.samples)
    drawn = [s for s in second.samples if s.arm == "base"]
    assert len({s.prompt for s in drawn}) == len({s.seed for s in drawn}) == 8
    assert len({s.image for s in second.samples}) == 16
    assert all((tmp_path / "0" / str(s.image)).exists() for s in second.samples)
    scores = [s.score for s in second.samples if s.arm == "candidate" and s.score is not None]
    before = [s.score for s in second.samples if s.arm == "base" and s.score is not None]
    assert second.loss == pytest.approx(1 - sum(scores) / sum(before))
    assert second.wall_s is not None
    assert second.wall_s > (first.wall_s or 0)
    assert results.load(tmp_path / "0" / "result.json") == second


@pytest.mark.parametrize("prompts", [2, 4, 4 + PORTION])
def test_whoever_knows_enough_after_some_prompts_has_no_more_drawn(
    evaluator: Callable[..., Evaluator], prompts: int
) -> None:
    def enough(told: Result) -> str | None:
        return "it is known" if len(told.samples) == 2 * prompts else None

    with evaluator(f"measure.scored_prompts={PORTION + 2}", enough=enough) as mine:
        told = mine.evaluate(0, FAST, "user")
    assert (told.ok, told.rung, len(told.samples)) == (True, 0, 2 * prompts)
    assert told.notes[-1] == f"stopped after {prompts} prompts: it is known"


def test_whoever_asks_after_each_portion_has_the_same_pictures_in_the_end(
    evaluator: Callable[..., Evaluator],
) -> None:
    further = f"measure.scored_prompts={PORTION + 3}"
    asked: list[int] = []
    found = []
    for enough in (None, lambda told: asked.append(len(told.samples) // 2)):
        with evaluator(further, enough=enough) as mine:
            told = mine.evaluate(0, FAST, "user")
        assert told.rung == 1
        found.append([(s.round, s.position, s.prompt, s.seed, s.score) for s in told.samples])
    assert sorted(found[0]) == sorted(found[1])
    assert asked == [2, 4, 4 + PORTION], "of all that was drawn nobody needs to ask"


def test_a_technique_alone_is_timed_in_full_at_its_fastest_setting_unless_it_is_clearly_slower(
    evaluator: Callable[..., Evaluator], monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[tuple[object, int]] = []
    rates = {"feed_forward": 0.9, "all": 1.2}

    def gain(mine: Evaluator, strategy: Any, genes: dict[str, Any], prompts: int) -> dict[str, Any]:
        asked.append((genes["layers"], prompts))
        return {"genes": genes, "speedup": rates[genes["layers"]]}

    monkeypatch.setattr(references, "_gain", gain)
    with evaluator() as mine:
        found = references.alone(mine, ["dynamic_int8"])
        assert found["dynamic_int8"]["genes"]["layers"] == "all"
        assert asked == [("all", 2), ("feed_forward", 2), ("all", 4)]
        (mine.folder / "alone.json").unlink()
        rates["all"] = 0.8
        assert references.alone(mine, ["dynamic_int8"])["dynamic_int8"]["speedup"] == 0.9
    assert len(asked) == 5, "what is slower has no more prompts"


def test_a_study_for_a_speed_leaves_what_is_too_slow_once_a_faster_one_is_known(
    composed: Composed, tmp_path: Path
) -> None:
    config = composed(*TINY, "goal.speedup=100", "goal.max_loss=1", "goal.accuracy_drop=null")
    try:
        mine = session.evaluator(config, tmp_path)
        told = [mine.evaluate(trial, genome, "user") for trial, genome in enumerate((FAST, EVEN))]
    finally:
        session.close()
    assert [r.rung for r in told] == [1, 0]
    assert told[1].notes[-1].endswith("slower than asked for and than trial 0")


def test_operations_are_counted_where_they_are_asked_for(
    composed: Composed, tmp_path: Path
) -> None:
    config = composed("+debug=tiny", "measure.search_prompts=2", "measure.scored_prompts=0")
    with Evaluator(config, session.machine_of(config), tmp_path, counts=False) as mine:
        told = mine.evaluate(0, FAST, "user")
    assert told.ok
    assert told.speedup is not None
    assert (told.cost_flops, told.cost_base_flops) == (None, None)


def test_an_arm_that_is_run_for_its_times_alone_counts_no_operations(
    evaluator: Callable[..., Evaluator],
) -> None:
    with evaluator() as mine:
        text = mine.arms.program(FAST)
        with mine.arms.running(FAST, text) as (_, counted):
            pass
        with mine.arms.running(FAST, text, counted=False) as (_, uncounted):
            pass
    assert counted.flops
    assert uncounted.flops is None
