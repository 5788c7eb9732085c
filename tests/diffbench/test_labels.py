"""Labels: what a measured winner makes of targets, which winner it is, and one real labelling."""

from __future__ import annotations

import dataclasses
import json
import math
import re
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from engine import references
from engine.diffbench import baselines, labeller, labelling, labels, phrases, questions, tasks
from engine.diffbench.details import VERSION
from engine.diffbench.labels import Label, Labels
from engine.errors import UsageError
from engine.genome import canonical
from engine.measure.paired import Pairs
from engine.phrasing import by_rules
from engine.requests import Case, Request
from engine.results import Result, Sample
from engine.specification import Target

LABEL = Label(
    genome=canonical({"sampler": {"name": "unipc", "steps": 12}, "deepcache": {"interval": 3}}),
    speedup=4.4,
    speedup_low=4.2,
    speedup_high=4.6,
    loss=0.02,
    seconds=0.1,
    seconds_base=0.44,
    searched=4.9,
    passed_over=1,
    evaluations=50,
)
SET = Labels(
    name="some",
    version=VERSION,
    objective="time",
    weights="mini",
    hw="cpu",
    machine={"profile": "cpu-some-2c", "device": "Some CPU", "cores": 2, "versions": {}},
    settings={},
    labels={"sd15-512": LABEL},
)


def _of(level: int, difficulty: str, baseline: str = "sd15-512") -> tasks.Task:
    return next(
        t
        for t in tasks.tasks()
        if (t.level, t.difficulty, t.baseline) == (level, difficulty, baseline)
    )


# --- arithmetic


def test_medium_is_93_percent_of_the_lower_end_of_the_second_speed_up() -> None:
    assert LABEL.medium == pytest.approx(0.93 * 4.2)
    assert LABEL.speedup_for("medium") == 3.90


def test_easy_and_hard_are_0_8_and_1_2_of_medium_down_to_two_decimals() -> None:
    assert LABEL.speedup_for("easy") == 3.12
    assert LABEL.speedup_for("hard") == 4.68


def test_seconds_are_the_baselines_time_over_the_speed_up_and_never_rounded_down() -> None:
    for difficulty, factor in labels.FACTORS.items():
        exact = 0.44 / (factor * 0.93 * 4.2)
        found = LABEL.seconds_for(difficulty)
        assert exact <= found < exact * 1.01
        assert len(f"{found:g}".replace("0.", "").lstrip("0")) <= 3


@pytest.mark.parametrize("base", [0.012345, 0.9999, 7.0, 123.4])
def test_seconds_of_any_size_keep_three_digits(base: float) -> None:
    found = dataclasses.replace(LABEL, seconds_base=base).seconds_for("medium")
    exact = base / LABEL.medium
    assert exact <= found * (1 + 1e-12)
    assert found == float(f"{found:.3g}")
    assert math.isclose(found, exact, rel_tol=0.01)


@pytest.mark.parametrize("base", [0.012345, 0.9999, 7.0, 123.4])
def test_no_target_is_slower_than_the_baseline(base: float) -> None:
    slow = dataclasses.replace(LABEL, speedup_low=1.1, seconds_base=base)
    assert slow.speedup_for("easy") == 1
    assert slow.seconds_for("easy") == slow.said_base
    assert slow.speedup_for("hard") > 1.2


def test_rules_read_the_targets_of_every_labelled_request() -> None:
    slow = dataclasses.replace(LABEL, speedup_low=1.1)
    every = {
        t.baseline: LABEL if n % 2 else slow for n, t in enumerate(tasks.tasks()) if t.baseline
    }
    for task in labels.labelled(tasks.tasks(), dataclasses.replace(SET, labels=every)):
        if task.level > 3:
            read = by_rules(task.request)
            assert read.target == task.specification.target, task.request
            assert (read.hw, read.max_loss) == (task.specification.hw, 0.05)


def test_a_labelled_task_says_its_target_and_names_the_device_on_l5() -> None:
    four, five = labels.labelled([_of(4, "hard"), _of(5, "easy")], SET)
    assert four.specification.target == Target("speedup", 4.68)
    assert "4.68" in four.request
    assert four.specification.hw is None
    assert five.specification.target == Target("seconds", LABEL.seconds_for("easy"), 0.44)
    assert f"{LABEL.seconds_for('easy'):g} s" in five.request
    assert re.search(r"\b(takes|needs) 0\.44 s", five.request)
    assert "a CPU" in five.request
    assert five.specification.hw == "cpu"
    for task in (four, five):
        assert task.labelled
        assert task.specification.request == task.request
        assert "{" not in task.request


def test_tasks_without_a_label_stay_as_they_are() -> None:
    some = [_of(4, "easy", "dit-256"), tasks.find("L1-001")]
    assert labels.labelled(some, SET) == some


def test_every_hardware_profile_has_words() -> None:
    from engine.config import CONF

    files = {file.stem for file in (CONF / "hw").glob("*.yaml")} - {"auto"}
    assert set(phrases.DEVICES) == files


# --- which candidate


def _told(trial: int, speedup: float | None, loss: float | None, **more: Any) -> Result:
    known: dict[str, Any] = {"rung": 1, "speedup": speedup, "loss": loss} | more
    return Result(trial, {}, f"{trial:016x}", **known)


def test_candidates_are_the_faster_ones_within_the_loss_fastest_first() -> None:
    told = [
        _told(0, 2.0, 0.01),
        _told(1, 3.0, 0.05),
        _told(2, 9.0, 0.051),
        _told(3, 0.9, 0.0),
        _told(4, 8.0, 0.0, rung=0),
        _told(5, 7.0, None),
        _told(6, None, None, stage="run", reason="it failed"),
    ]
    assert [r.trial for r in labeller.hopeful(told)] == [1, 0]


DRAWN = tuple(
    Sample(arm, n, 0, "a dog", n, 0.1) for n in range(12) for arm in ("base", "candidate")
)


def test_what_was_left_after_12_prompts_takes_its_turn_where_faster_ones_lose_too_much() -> None:
    told = [_told(0, 2.0, 0.01), _told(1, 3.0, 0.05), _told(2, 2.5, 0.0, rung=0, samples=DRAWN)]
    told.append(_told(3, 2.7, 0.0, rung=0, samples=DRAWN[:-2]))
    assert [r.trial for r in labeller.hopeful(told)] == [1, 2, 0]


ONE = baselines.named("sd15-512-keep20")


def test_what_is_clearly_slower_than_three_that_keep_their_quality_is_left() -> None:
    told = [_told(n, speed, 0.02) for n, speed in enumerate((2.0, 3.0, 4.0))]
    slow = _told(3, 1.8, 0.2, rung=0, loss_low=-0.1)
    assert labeller.beaten(slow, told) == "3 that keep their quality are faster"
    assert labeller.beaten(slow, told[:2]) is None
    lossy = dataclasses.replace(told[0], loss=0.06)
    assert labeller.beaten(slow, [lossy, *told[1:]]) is None
    near = dataclasses.replace(slow, speedup=1.83)
    assert labeller.beaten(near, told) is None


def test_what_is_scored_on_12_is_left_where_two_that_keep_their_quality_are_faster() -> None:
    told = [_told(n, speed, 0.02) for n, speed in enumerate((2.0, 3.0))]
    known = _told(2, 1.99, 0.02, rung=0, samples=DRAWN)
    assert labeller.beaten(known, told) == "2 that keep their quality are faster"
    assert labeller.beaten(dataclasses.replace(known, speedup=2.01), told) is None
    few = dataclasses.replace(known, samples=DRAWN[:-2])
    assert labeller.beaten(few, told) is None


def test_what_loses_too_much_by_its_interval_is_not_scored_further() -> None:
    known = _told(0, 9.0, 0.2, rung=0, loss_low=0.051)
    assert labeller.beaten(known, []) == "it loses more than 5 %"
    assert labeller.beaten(dataclasses.replace(known, loss_low=0.049), []) is None


def test_an_earlier_program_is_judged_alike_when_labelling_goes_on() -> None:
    later = [_told(n, 4.0, 0.0) for n in (4, 5, 6)]
    known = _told(3, 1.8, 0.0, rung=0, loss_low=-0.1)
    assert labeller.beaten(known, later) is None


class _Again:
    """Stands in for the evaluator, and for what it asks, where a candidate is measured again:
    losses by trial."""

    def __init__(self, folder: Path, losses: dict[int, float]) -> None:
        self.folder = folder
        self.losses = losses
        self.trials: list[int] = []
        measure = SimpleNamespace(acceptance_prompts=36)
        self.config = SimpleNamespace(objective="time", measure=measure)
        self.asked_for: list[Request] = []
        for trial in losses:
            (folder / str(trial)).mkdir()
            (folder / str(trial) / "accelerated.py").write_text("")

    @property
    def asked(self) -> _Again:
        return self

    def seeded(self, seed: int) -> _Again:
        return self

    def cases(self, count: int, part: str, salt: int) -> list[Case]:
        return [Case(f"caption {n} of {part}") for n in range(count)]

    def acceptance(
        self, blank: Result, text: str, folder: Path, repeat: int, pairs: Pairs
    ) -> Result:
        self.trials.append(blank.trial)
        self.asked_for = pairs.draw(100)
        return dataclasses.replace(
            blank,
            rung=2,
            speedup=2.0,
            speedup_low=1.9,
            speedup_high=2.1,
            loss=self.losses[blank.trial],
            seconds_per_image=0.1,
            seconds_base=0.2,
        )


def test_the_next_best_takes_the_place_of_a_winner_that_loses_too_much_again(
    tmp_path: Path,
) -> None:
    told = [_told(0, 4.0, 0.03), _told(1, 3.0, 0.02), _told(2, 2.0, 0.0)]
    again = _Again(tmp_path, {0: 0.041, 1: 0.04, 2: 0.0})
    found = labeller._confirmed(again, told, ONE)  # type: ignore[arg-type]
    assert isinstance(found, Label)
    assert (found.searched, found.passed_over, found.loss) == (3.0, 1, 0.04)
    assert again.trials == [0, 1]


def test_a_winner_is_confirmed_on_the_captions_of_its_tasks(tmp_path: Path) -> None:
    again = _Again(tmp_path, {0: 0.0})
    labeller._confirmed(again, [_told(0, 4.0, 0.03)], ONE)  # type: ignore[arg-type]
    asked = questions.requests(again, VERSION, ONE.id, questions.LOSS, 36)  # type: ignore[arg-type]
    assert again.asked_for == asked
    assert len({one.seed for one in asked}) == 36


def test_a_measurement_that_was_made_again_is_not_made_a_third_time(tmp_path: Path) -> None:
    told = [_told(0, 4.0, 0.03)]
    evaluator = _Again(tmp_path, {0: 0.0})
    first = labeller._confirmed(evaluator, told, ONE)  # type: ignore[arg-type]
    assert labeller._confirmed(evaluator, told, ONE) == first  # type: ignore[arg-type]
    assert evaluator.trials == [0]


def test_without_a_candidate_the_reason_is_said(tmp_path: Path) -> None:
    found = labeller._confirmed(_Again(tmp_path, {0: 0.2}), [_told(0, 4.0, 0.03)], ONE)  # type: ignore[arg-type]
    assert found == "of 1 programs none was faster and kept its quality twice (1 once)"


def test_counted_operations_give_seconds_of_a_nominal_machine() -> None:
    again = _told(
        0, 2.0, 0.0, speedup_low=2.0, speedup_high=2.0, cost_flops=1e11, cost_base_flops=2e11
    )
    found = labeller.label_from(again, again, 0, 50, counted=True)
    assert (found.seconds, found.seconds_base) == (1.0, 2.0)


def test_a_missing_figure_is_an_error_and_no_zero() -> None:
    with pytest.raises(ValueError, match="lacks a figure"):
        labeller.label_from(_told(0, 2.0, 0.0), _told(0, 2.0, 0.0), 0, 50)


# --- sets


@pytest.fixture
def shelf(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """An empty folder of sets."""
    monkeypatch.setattr(labels, "FOLDER", tmp_path / "sets")
    return tmp_path / "sets"


def test_a_set_comes_back_as_it_was_saved(shelf: Path) -> None:
    labels.save(SET)
    assert labels.load("some") == SET
    assert labels.names() == ["some"]


def test_a_set_that_is_not_there_is_named_with_what_makes_it(shelf: Path) -> None:
    with pytest.raises(UsageError, match=r"python -m engine.diffbench.labels name=other"):
        labels.load("other")


def test_a_damaged_set_and_one_of_other_tasks_are_refused(shelf: Path) -> None:
    labels.save(dataclasses.replace(SET, version="0"))
    with pytest.raises(UsageError, match="version 0 of the tasks"):
        labels.load("some")
    labels.path("some").write_text('{"name": "some"}', encoding="utf-8")
    with pytest.raises(UsageError, match="is damaged"):
        labels.load("some")


def test_a_set_is_not_mixed_with_other_settings_or_machines() -> None:
    for changed, word in (
        ({"objective": "flops"}, "objective was time"),
        ({"weights": "hub"}, "weights was mini"),
        ({"machine": {**SET.machine, "profile": "cpu-other-4c"}}, "machine was"),
    ):
        with pytest.raises(UsageError, match=word):
            labelling._require_same(dataclasses.replace(SET, **changed), SET)
    labelling._require_same(SET, SET)


def test_what_departs_from_the_frozen_labeller_is_marked() -> None:
    assert labeller.Settings().marks("time") == ()
    marks = labeller.Settings(evaluations=6).marks("flops")
    assert marks[0] == "evaluations=6 instead of 50"
    assert "no time was measured" in marks[1]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["name"], "is not KEY=VALUE"),
        (["baselines=[dit-256]"], "name=NAME is needed"),
        (["name=../up"], "name=NAME is needed"),
        (["name=some", "baselines=[sd15-511]"], "sd15-512"),
        (["name=some", "evaluation=3"], "did you mean evaluations"),
        (["name=some", "evaluations=none"], "a whole number of 2 or more"),
        (["name=some", "objective=memory"], "time or flops"),
    ],
)
def test_wrong_words_on_the_command_line_give_one_line(
    arguments: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert labels.main(arguments) == 2
    said = capsys.readouterr().err
    assert message in said
    assert said.count("\n") == 1


def test_an_interrupted_labelling_says_how_to_go_on(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def struck(given: object) -> int:
        raise KeyboardInterrupt

    monkeypatch.setattr(labelling, "command", struck)
    assert labels.main(["name=some"]) == 130
    assert "the same command goes on" in capsys.readouterr().err


def test_committed_sets_belong_to_these_tasks_and_their_baselines() -> None:
    known = {one.id for one in baselines.baselines()}
    for name in labels.names():
        found = labels.load(name)
        assert found.name == name
        assert set(found.labels) | set(found.failed) <= known
        assert all(canonical(label.genome) == label.genome for label in found.labels.values())
        assert all(label.loss <= labeller.CONFIRMED_LOSS for label in found.labels.values())
        for one in found.labels:
            steps = found.labels[one].genome["sampler"]["steps"]
            assert baselines.named(one).keep in (None, steps)


# --- configurations and references


def test_a_miniature_draws_at_the_same_share_of_its_own_size() -> None:
    assert "model.height=48" in baselines.overrides(baselines.named("sd15-384"), "mini")
    assert "model.width=48" in baselines.overrides(baselines.named("sdxl-1024x768"), "mini")
    found = baselines.overrides(baselines.named("sdxl-768"), "hub")
    assert {"model.height=768", "model.width=768"} <= set(found)
    same = baselines.overrides(baselines.named("sd15-512-keep30"), "mini")
    assert same == [
        "model=sd15",
        "model.weights=mini",
        "baseline=plain",
        "model.steps=30",
        "goal.keep_steps=true",
    ]


@pytest.mark.parametrize(("asked", "small"), [(384, 48), (768, 96), (640, 80), (256, 32)])
def test_a_size_is_scaled_as_the_mapping_of_programs_scales_it(asked: int, small: int) -> None:
    assert small == max(16, round(asked * 64 / 512 / 16) * 16)
    assert baselines.sizes("sd15", asked, 512, "mini") == [f"model.height={small}"]
    assert baselines.sizes("sd15", None, asked, "hub") == [f"model.width={asked}"]


def test_every_baseline_composes_to_its_own_steps_and_goal() -> None:
    asked = labelling._asked({"name": "some"})
    for name in ("sd15-512-keep25", "sd21-768x576", "dit-256"):
        one = baselines.named(name)
        config = labeller.configuration(one, asked, "cpu")
        assert config.model.steps == one.steps
        assert config.goal.keep_steps == (one.keep is not None)
        assert config.goal.max_loss in (0.05, None)
        assert config.baseline.technique == {}
        stated = f"guidance_scale={config.model.guidance_scale}"
        # Else labels hold for other pictures than those that are scored.
        assert stated in tasks.reference(next(t for t in tasks.tasks() if t.baseline == name))
        assert (config.measure.search_prompts, config.measure.scored_prompts) == (4, 32)


def test_the_reference_of_a_hard_task_is_the_winner_of_its_label() -> None:
    program = tasks.reference(_of(4, "medium"), LABEL.genome)
    compile(program, "reference", "exec")
    assert "unipc" in program
    assert "deepcache_apply(pipe, CTX, interval=3, branch=0)" in program
    assert "deepcache" not in tasks.reference(_of(4, "medium"))


@pytest.mark.parametrize("void", [0, 2, 3])
def test_a_burst_of_other_load_does_not_cost_the_label(
    void: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Timings cannot be made to scatter at will, so that the controls' words are given here."""
    asked: list[int] = []

    def control(_evaluator: object, repeat: int) -> dict[str, Any]:
        asked.append(repeat)
        return {"low": 0.9, "high": 1.1, "ok": len(asked) > void, "word": "void: scatter"}

    monkeypatch.setattr(references, "control", control)
    evaluator: Any = SimpleNamespace(folder=tmp_path)
    word = labeller._control(evaluator)
    if void == 3:
        assert (asked, word) == ([0, 1, 2], "A/A control 0.900 to 1.100, void: scatter")
        assert not (tmp_path / "control.json").exists(), "the next run measures it again"
        return
    assert word is None
    assert asked == list(range(void + 1))
    assert labeller._control(evaluator) is None
    assert len(asked) == void + 1, "a good one is kept"


@pytest.mark.slow
def test_labelling_counts_operations_and_goes_on_where_it_stopped(
    shelf: Path, tmp_path: Path
) -> None:
    """A real search of four evaluations on the shipped miniature; run again it measures nothing."""
    arguments = [
        "name=counted",
        "baselines=[sd15-512-keep20]",
        "objective=flops",
        "evaluations=4",
        "samples=4",
        f"outputs={tmp_path}",
    ]
    code = labels.main(arguments)
    found = labels.load("counted")
    assert code == (0 if found.labels else 1)
    assert found.marks[0] == "evaluations=4 instead of 50"
    told = sorted((tmp_path / "labels" / "counted" / "sd15-512-keep20").glob("[0-9]*/result.json"))
    assert len(told) == 4
    seen = [file.stat().st_mtime_ns for file in told]
    genomes = [json.loads(file.read_text())["genome"] for file in told]
    assert all(genome["sampler"]["steps"] == 20 for genome in genomes)
    labels.path("counted").unlink()
    (told[3]).unlink()
    assert labels.main(arguments) == code
    assert [file.stat().st_mtime_ns for file in told[:3]] == seen[:3]
    assert json.loads(told[3].read_text())["genome"] == genomes[3]
    assert labels.load("counted").labels == found.labels
