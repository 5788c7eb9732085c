"""Runs that are interrupted, shared between machines, limited, and repeated."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections import Counter
from dataclasses import replace
from pathlib import Path

import pytest

from engine.diffbench import store
from engine.diffbench.runner import Run
from engine.diffbench.selection import chosen, pipeline_of, sample
from engine.diffbench.store import Store
from engine.diffbench.submissions import Submission, read
from engine.diffbench.summary import summary
from engine.diffbench.tasks import Task, tasks
from engine.diffbench.verdicts import Conditions, Verdict
from engine.errors import TrialError, UsageError
from engine.schema import BenchConfig

MET = Conditions("1", None, "mini", "cpu-two", 1, "rules")


class Counting:
    """A contestant that counts how often it is asked."""

    name = "rules"

    def __init__(self, failing: str | None = None, error: Exception | None = None) -> None:
        self.asked: list[str] = []
        self.failing = failing
        self.error = error or TrialError("load", "the model is not there")

    def answer(self, task: str, request: str, folder: Path) -> Submission:
        self.asked.append(task)
        if task == self.failing:
            raise self.error
        return Submission(task, f"# {request}", calls=2, tokens=100)


def good(task: Task, program: str, repeat: int) -> Verdict:
    assert program == f"# {task.request}"
    return Verdict(task.id, task.level, MET, repeat, passed=True, stage=2, program=program)


def some(*names: str) -> list[Task]:
    return [task for task in tasks() if task.id in names]


def run(folder: Path, who: Counting, **changed: object) -> Run:
    given = {"tasks": some("L1-001", "L1-002", "L2-001"), "score": good, "conditions": MET}
    return Run(folder, contestant=who, **{**given, **changed})  # type: ignore[arg-type]


def test_the_same_command_goes_on_where_it_stopped_and_asks_nobody_twice(tmp_path: Path) -> None:
    who = Counting()
    first = run(tmp_path, who, tasks=some("L1-001", "L1-002")).go()
    assert [v.task for v in first] == ["L1-001", "L1-002"]
    again = run(tmp_path, who).go()
    assert who.asked == ["L1-001", "L1-002", "L2-001"]
    assert [v.passed for v in again] == [True] * 3
    assert {v.calls for v in again} == {2}
    # The answers are a submissions file that can be scored again.
    found = read(tmp_path / "answers.jsonl", {t.id for t in tasks()})
    assert [one.id for one in found] == who.asked


def test_whoever_cannot_answer_one_request_goes_on_with_the_next(tmp_path: Path) -> None:
    who = Counting("L1-002", UsageError("without a language model nothing can write this"))
    verdicts = run(tmp_path, who).go()
    assert [v.errors for v in verdicts] == [(), ("compile",), ()]
    assert verdicts[1].reason == "no program: without a language model nothing can write this"


def test_a_fault_of_ours_is_told_as_such_and_tried_again(tmp_path: Path) -> None:
    def broken(task: Task, program: str, repeat: int) -> Verdict:
        raise RuntimeError("the baseline failed: no room")

    who = Counting(failing="L1-001")
    verdicts = run(tmp_path, who, score=broken).go()
    assert [v.errors for v in verdicts] == [("compile",), *[("infrastructure",)] * 2]
    assert "no program: failed at load: the model is not there" in verdicts[0].reason
    assert "the baseline failed" in verdicts[1].reason
    mended = run(tmp_path, Counting()).go()
    assert [v.passed for v in mended] == [False, True, True]


def test_a_folder_of_other_conditions_is_refused(tmp_path: Path) -> None:
    run(tmp_path, Counting()).go()
    with pytest.raises(UsageError, match="holds another run: weights is 'mini'"):
        run(tmp_path, Counting(), conditions=replace(MET, weights="hub")).go()


def test_shards_merge_within_one_machine_profile_only(tmp_path: Path) -> None:
    run(tmp_path, Counting(), tasks=some("L1-001"), shard="1/2").go()
    both = run(tmp_path, Counting(), tasks=some("L1-002"), shard="2/2").go()
    assert [v.task for v in both] == ["L1-001", "L1-002"]
    names = sorted(path.name for path in tmp_path.glob("verdicts*.jsonl"))
    assert names == ["verdicts-1of2.jsonl", "verdicts-2of2.jsonl"]
    other = Verdict("L1-003", 1, replace(MET, machine="cuda-h100"), passed=True)
    store.append(tmp_path / "verdicts-theirs.jsonl", other.line())
    with pytest.raises(UsageError, match=r"does not merge with .*: machine is 'cpu-two'"):
        Store(tmp_path).verdicts()


def test_the_scores_of_a_run_stand_for_its_verdicts_in_another_folder(tmp_path: Path) -> None:
    def figures(task: Task, program: str, repeat: int) -> Verdict:
        share = 0.0 if task.id == "L1-002" else None
        found = {"score": 80.0, "prompts": ["a red circle"]}
        return replace(
            good(task, program, repeat), share=share, reading={"steps": 30}, figures=found
        )

    theirs = run(tmp_path / "theirs", Counting("L2-001"), score=figures).go()
    for verdict in theirs:
        store.append(tmp_path / "mine" / "verdicts-theirs.jsonl", verdict.short_line())
    who = Counting()
    mine = run(tmp_path / "mine", who).go()
    assert who.asked == []
    assert summary(mine) == summary(theirs)
    assert {(v.program, v.reading) for v in mine} == {("", None)}
    assert [dict(v.figures) for v in mine] == [{"score": 80.0}, {"score": 80.0}, {}]


def test_a_line_that_was_cut_off_is_the_only_one_lost(tmp_path: Path) -> None:
    held = Store(tmp_path)
    held.add(Verdict("L1-001", 1, MET, passed=True))
    with held.path.open("a", encoding="utf-8") as file:
        file.write('{"task": "L1-002", "lev')
    held.add(Verdict("L1-003", 1, MET, passed=True))
    assert [v.task for v in held.verdicts()] == ["L1-001", "L1-003"]


def test_two_processes_cannot_write_one_shard(tmp_path: Path) -> None:
    with Store(tmp_path).writing():
        with pytest.raises(UsageError, match="another process writes"):
            run(tmp_path, Counting()).go()
        assert run(tmp_path, Counting(), shard="2/2").go()


def test_no_new_task_is_begun_when_the_minutes_are_over(tmp_path: Path) -> None:
    who = Counting()
    assert run(tmp_path, who, minutes=0.0).go() == []
    assert who.asked == []


def test_answers_are_scored_as_often_as_asked_and_given_once(tmp_path: Path) -> None:
    who = Counting()
    verdicts = run(tmp_path, who, conditions=replace(MET, repeats=2)).go()
    assert Counter(v.repeat for v in verdicts) == {0: 3, 1: 3}
    assert len(who.asked) == 3


KILLED = """
import sys, time
from pathlib import Path
from tests.diffbench.test_runner import Counting, good, run

def slow(task, program, repeat):
    verdict = good(task, program, repeat)
    print(task.id, flush=True)
    if task.id == "L1-002":
        time.sleep(60)
    return verdict

run(Path(sys.argv[1]), Counting(), score=slow).go()
"""


def test_killing_a_run_loses_at_most_the_task_in_work(tmp_path: Path) -> None:
    process = subprocess.Popen(
        [sys.executable, "-c", KILLED, str(tmp_path)], stdout=subprocess.PIPE, text=True
    )
    assert process.stdout is not None
    for text in process.stdout:
        if text.startswith("L1-002"):
            break
    time.sleep(0.1)
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
    assert [v.task for v in Store(tmp_path).verdicts()] == ["L1-001"]
    who = Counting()
    assert len(run(tmp_path, who).go()) == 3
    assert who.asked == ["L2-001"], "the answer to the task in work was given already"


def test_a_sample_is_stratified_and_the_same_everywhere() -> None:
    few = sample(tasks(), 60)
    assert len({task.id for task in few}) == 60
    assert Counter(task.level for task in few) == {1: 4, 2: 12, 3: 26, 4: 9, 5: 9}
    shares = Counter(pipeline_of(task) for task in few)
    for name, whole in Counter(pipeline_of(task) for task in tasks()).items():
        assert abs(shares[name] - whole * 60 / 604) < 2.5
    for level in (4, 5):
        kinds = Counter(task.difficulty for task in few if task.level == level)
        assert set(kinds.values()) == {3}
    # Few labels serve all targets, and each is asked for in several difficulties.
    asked = [(t.baseline, t.difficulty) for t in few if t.level > 3]
    assert len({baseline for baseline, _ in asked}) == 5
    assert len(set(asked)) == 13
    assert few == sample(list(tasks()), 60)


def test_what_is_chosen_keeps_to_levels_ids_and_shares() -> None:
    every = tasks()
    assert {t.level for t in chosen(every, BenchConfig(levels=[1, 4]))} == {1, 4}
    assert [t.id for t in chosen(every, BenchConfig(ids=["L3-017"]))] == ["L3-017"]
    parts = [chosen(every, BenchConfig(shard=f"{n}/4")) for n in (1, 2, 3, 4)]
    assert sorted(t.id for part in parts for t in part) == sorted(t.id for t in every)
    order = [(t.level > 3, t.specification.model, t.baseline) for t in chosen(every, BenchConfig())]
    assert order == sorted(order, key=str), "a model, and a baseline, is worked off in one go"
    for wrong, said in (
        (BenchConfig(ids=["L3-17"]), "bench.ids has 'L3-17'"),
        (BenchConfig(shard="5/4"), "is no share"),
        (BenchConfig(levels=[7]), "bench.levels has 7; levels are 1 to 5"),
        (BenchConfig(levels=["one"]), "bench.levels has 'one'"),  # type: ignore[list-item]
        (BenchConfig(levels=[1], ids=["L3-017"]), r"none of bench.ids is of bench.levels=\[1\]"),
    ):
        with pytest.raises(UsageError, match=said):
            chosen(every, wrong)
