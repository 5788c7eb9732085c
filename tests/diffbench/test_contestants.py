"""Contestants see the request only; what the rules answer; memory that is fresh or lent."""

from __future__ import annotations

from pathlib import Path

from engine.config import from_mapping
from engine.diffbench.agents import Agent, _lend, composed
from engine.diffbench.contestants import References, Rules
from engine.diffbench.targets import Targets
from engine.diffbench.tasks import reference, tasks
from engine.phrasing import by_rules
from engine.reading import read
from engine.specification import mismatches


def test_the_rules_answer_what_requests_of_the_first_levels_state(tmp_path: Path) -> None:
    some = [task for task in tasks() if task.level < 4][::20]
    for task in some:
        answer = Rules().answer(task.id, task.request, tmp_path)
        assert (answer.id, answer.cost) == (task.id, 0.0)
        assert mismatches(task.specification, read(answer.program)) == ()


def test_the_references_answer_hard_tasks_with_the_program_behind_the_label(
    tmp_path: Path,
) -> None:
    targets = Targets.of("counted")
    assert targets.labels is not None
    who = References(targets)
    hard = next(task for task in targets.tasks() if task.level == 4 and task.labelled)
    label = targets.labels.of(hard)
    assert label is not None
    answer = who.answer(hard.id, hard.request, tmp_path)
    assert answer.program == reference(hard, label.genome)
    assert answer.program != reference(hard)
    easy = next(task for task in targets.tasks() if task.level == 1)
    assert who.answer(easy.id, easy.request, tmp_path).program == reference(easy)


def test_shared_memory_lends_finished_studies_of_other_tasks_and_no_others(tmp_path: Path) -> None:
    for name, done in (("L4-001", True), ("L4-002", False), ("L4-003", True)):
        study = tmp_path / name / "sweeps" / "search"
        study.mkdir(parents=True)
        if done:
            (study / "front.json").write_text("{}", encoding="utf-8")
    _lend(tmp_path / "L4-003")
    _lend(tmp_path / "L4-003")
    lent = sorted(path.name for path in (tmp_path / "L4-003" / "sweeps").iterdir())
    assert lent == ["L4-001", "search"]
    assert (tmp_path / "L4-003" / "sweeps" / "L4-001" / "front.json").exists()


def test_a_target_bounds_the_clip_score_and_not_the_miniatures_own_checker() -> None:
    targets = Targets.of("counted")
    task = next(task for task in targets.tasks() if task.level == 4 and task.labelled)
    config = Agent(from_mapping(composed(("+bench=diffbench",)))).composed(by_rules(task.request))
    assert config.goal.speedup is not None
    assert (config.goal.max_loss, config.goal.accuracy_drop) == (0.05, None)


def test_a_study_for_a_task_computes_in_the_formats_that_its_answer_is_scored_in() -> None:
    targets = Targets.of("counted")
    task = next(task for task in targets.tasks() if task.level == 4 and task.labelled)
    asked = by_rules(task.request)
    plain = from_mapping(composed(("+bench=diffbench", "hw=cpu")))
    assert plain.hw.half_precision
    assert not Agent(plain).composed(asked).hw.half_precision
    real = from_mapping(composed(("+bench=diffbench", "hw=cpu", "bench.weights=hub")))
    assert Agent(real).composed(asked).hw.half_precision


def test_a_study_for_a_task_measures_as_the_command_line_says() -> None:
    targets = Targets.of("counted")
    task = next(task for task in targets.tasks() if task.level == 4 and task.labelled)
    plain = from_mapping(composed(("+bench=diffbench", "measure.acceptance_prompts=12")))
    assert Agent(plain).composed(by_rules(task.request)).measure.acceptance_prompts == 12
