"""A run of the benchmark: answers and verdicts of many tasks, resumable, within a budget."""

from __future__ import annotations

import json
import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from engine import console
from engine.agent.llm import LlmError
from engine.diffbench import store, submissions
from engine.diffbench.selection import pipeline_of
from engine.diffbench.submissions import Submission
from engine.diffbench.verdicts import COMPILE, INFRASTRUCTURE, Conditions, Verdict
from engine.errors import LanguageModelError, TrialError, UsageError, line
from engine.results import write_json

if TYPE_CHECKING:
    from engine.diffbench.contestants import Contestant
    from engine.diffbench.tasks import Task

Score = Callable[["Task", str, int], Verdict]
"""Scores a program for a task; the number is that of the repeat."""


@dataclass
class Run:
    """One run in ``folder``; ``minutes`` is its budget, None has no limit."""

    folder: Path
    tasks: Sequence[Task]
    contestant: Contestant
    score: Score
    conditions: Conditions
    shard: str = "1/1"
    minutes: float | None = None

    def __post_init__(self) -> None:
        self.store = store.Store(self.folder, self.shard)
        self.answers = self.folder / store.named("answers", self.shard)

    def go(self) -> list[Verdict]:
        """Score what is not scored yet; the verdicts of all shards. Stops in order when the budget
        is spent. Raises UsageError where the folder belongs to another run."""
        started = time.monotonic()
        with self.store.writing():
            self._claim()
            done = self.store.done()
            every = [(t, r) for r in range(self.conditions.repeats) for t in self.tasks]
            pending = [(task, repeat) for task, repeat in every if (task.id, repeat) not in done]
            if len(pending) < len(every):
                console.say(f"{len(every) - len(pending)} of {len(every)} are scored already")
            answers = self._answered()
            for number, (task, repeat) in enumerate(pending):
                spent = (time.monotonic() - started) / 60
                if self.minutes is not None and spent >= self.minutes:
                    console.say(
                        f"bench.minutes={self.minutes:g} are over with {len(pending) - number} "
                        "left; the same command goes on"
                    )
                    break
                with console.working(f"{task.id}: {task.request[:60]}"):
                    verdict = self._one(task, repeat, answers)
                self.store.add(verdict)
                self._say(verdict, pending[number + 1 :], len(every) - len(pending) + number + 1)
        return self.store.verdicts()

    def _claim(self) -> None:
        """Write what this folder is for, or refuse one that is for something else."""
        path = self.folder / "bench.json"
        if path.exists():
            held = json.loads(path.read_text(encoding="utf-8"))
            why = Conditions(**held).departs(self.conditions)
            if why is not None:
                raise UsageError(
                    f"{self.folder} holds another run: {why} (here: what it holds); type another "
                    "bench.name"
                )
            if held["labels"] is not None:
                return
        write_json(path, vars(self.conditions))

    def _answered(self) -> dict[str, Submission]:
        """Answers of an interrupted run: they are not paid for twice."""
        return {
            str(row["id"]): Submission(**row)
            for _, row in store.lines(self.answers)
            if row.keys() <= submissions.KINDS.keys()
        }

    def _one(self, task: Task, repeat: int, answers: dict[str, Submission]) -> Verdict:
        """The verdict of one task; what fails on our side is one of its own class."""
        try:
            if task.id not in answers:
                given = self.contestant.answer(
                    task.id, task.request, self.folder / "contestant" / task.id
                )
                answers[task.id] = given
                store.append(self.answers, json.dumps(vars(given)))
            given = answers[task.id]
        except (TrialError, UsageError, LanguageModelError) as error:
            # Who cannot reach a model has not answered wrongly; everything else is no program.
            unreached = isinstance(error, LlmError)
            return replace(
                self._blank(task, repeat),
                errors=(INFRASTRUCTURE if unreached else COMPILE,),
                reason=f"no program: {line(error)}",
            )
        started = time.monotonic()
        try:
            verdict = self.score(task, given.program, repeat)
        except (TrialError, RuntimeError, OSError) as error:
            reason = f"the scorer failed: {line(error)}"
            blank = self._blank(task, repeat)
            verdict = replace(blank, errors=(INFRASTRUCTURE,), reason=reason, program=given.program)
        return replace(
            verdict,
            conditions=self.conditions,
            pipeline=pipeline_of(task),
            difficulty=task.difficulty,
            methods=methods_of(task),
            seconds=time.monotonic() - started,
            answer_seconds=given.seconds,
            calls=given.calls,
            tokens=given.tokens,
            cost=given.cost,
        )

    def _blank(self, task: Task, repeat: int) -> Verdict:
        return Verdict(
            task.id,
            task.level,
            self.conditions,
            repeat,
            difficulty=task.difficulty,
            pipeline=pipeline_of(task),
            methods=methods_of(task),
            share=0.0 if task.difficulty == "hard" else None,
        )

    def _say(self, verdict: Verdict, rest: Sequence[tuple[Task, int]], number: int) -> None:
        whole = len(self.tasks) * self.conditions.repeats
        word = "passed" if verdict.passed else f"{' and '.join(verdict.errors)}: {verdict.reason}"
        left = self._left(rest)
        about = "" if left is None else f"; about {_duration(left)} left"
        console.say(
            f"[{number}/{whole}] {verdict.task} {word[:200]} ({verdict.seconds:.0f} s{about})"
        )

    def _left(self, rest: Sequence[tuple[Task, int]]) -> float | None:
        """Seconds that the rest will take, by what tasks of the same level took."""
        if not rest:
            return None
        known = self.store.verdicts()
        took = {
            level: statistics.fmean(
                [v.seconds + (v.answer_seconds or 0.0) for v in known if v.level == level]
            )
            for level in {v.level for v in known}
        }
        other = statistics.fmean(took.values())
        return sum(took.get(task.level, other) for task, _ in rest)


def methods_of(task: Task) -> tuple[str, ...]:
    """The techniques that a request names, half precision included."""
    half = ("float16",) if task.specification.dtype == "float16" else ()
    return (*task.specification.methods, *half)


def _duration(seconds: float) -> str:
    if seconds < 90:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"
