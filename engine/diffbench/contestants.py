"""Who answers: an agent, or the rules. A contestant sees the request and nothing else of a task.

The references are none: they know the tasks, and show what a benchmark's own answers reach.
"""

from __future__ import annotations

import time
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

from engine.diffbench.submissions import Submission

if TYPE_CHECKING:
    from engine.diffbench.targets import Targets


class Contestant(Protocol):
    """Turns a request into a program."""

    @property
    def name(self) -> str:
        """What a score calls it."""
        ...

    def answer(self, task: str, request: str, folder: Path) -> Submission:
        """The program for a request; ``task`` is its id, ``folder`` is the contestant's own.

        Raises TrialError or UsageError where it has none.
        """
        ...


class Rules:
    """The request read by rules and one program from our generator: no model, no measurement.

    An honest answer to L1 to L3; of L4 and L5 it gives the baseline, which reaches no target.
    """

    name = "rules, one generated program"

    def answer(self, task: str, request: str, folder: Path) -> Submission:
        from engine import program
        from engine.diffbench.tasks import asked_genome, subject
        from engine.genome import canonical, describe
        from engine.phrasing import by_rules

        started = time.monotonic()
        asked = by_rules(request)
        genome = canonical(asked_genome(asked))
        text = program.generate(subject(asked), genome, describe(genome))
        seconds = time.monotonic() - started
        return Submission(task, text, calls=0, tokens=0, cost=0.0, seconds=seconds)


class References:
    """The program behind each task: on L4 and L5 that of the label, which reaches easy and medium
    where the benchmark is sound."""

    name = "the references (a check of the benchmark, no score)"

    def __init__(self, targets: Targets) -> None:
        self._targets = targets
        self._tasks = {task.id: task for task in targets.tasks()}

    def answer(self, task: str, request: str, folder: Path) -> Submission:
        text = self._targets.reference(self._tasks[task])
        return Submission(task, text, calls=0, tokens=0, cost=0.0, seconds=0.0)


class Submitted:
    """Answers that are there already."""

    def __init__(self, name: str, answers: list[Submission]) -> None:
        self.name = name
        self._answers = {one.id: one for one in answers}

    def has(self, task: str) -> bool:
        """Whether there is an answer to a task."""
        return task in self._answers

    def answer(self, task: str, request: str, folder: Path) -> Submission:
        return self._answers[task]
