"""From a plan to a program that may be measured: write, try, repair, write again.

The paper's loop: at most T_debug repairs of a program, then the coder starts again from the same
plan, at most T_code times; what still fails goes back to the planner.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from engine.agent.llm import FormatFailure
from engine.agent.plans import Plan
from engine.agent.roles import Coder, Debugger, Failure, state_required
from engine.agent.workbench import Workbench, required
from engine.reading import NotPython, effective_key, read
from engine.results import Genome
from engine.specification import Specification

Template = Callable[[Genome], str]
"""The generated program of a genome."""
Asked = Callable[[Plan, Genome], "Specification | None"]
"""What a program of that plan must state."""


@dataclass(frozen=True)
class Event:
    """One thing that happened to a program: ``what`` is wrote, repaired or failed."""

    what: str
    words: str


@dataclass(frozen=True)
class Written:
    """A program that may be measured. ``program`` is None where the generated one of the genome
    says all of the plan; ``effective`` is the key of what it does."""

    plan: Plan
    genome: Genome
    program: str | None
    effective: str
    history: tuple[Event, ...] = ()


class Unwritten(Exception):
    """No version of a plan's program worked; the planner is told the last failure."""

    def __init__(self, plan: Plan, failure: Failure, history: tuple[Event, ...]) -> None:
        super().__init__(f"{plan.title}: {failure}")
        self.plan = plan
        self.failure = failure
        self.history = history


@dataclass(frozen=True)
class Writer:
    """Carries the loop out. ``debugger`` is None where it is switched off: programs are then
    neither run nor repaired before they are submitted. With ``always`` the coder writes every
    program, else only those whose plan says what no genome can."""

    coder: Coder
    debugger: Debugger | None
    bench: Workbench
    template: Template
    asked: Asked
    repairs: int
    rewrites: int
    always: bool

    def write(self, plan: Plan, genome: Genome, name: str) -> Written:
        """The program of a plan; ``name`` says for a person which plan it is.

        Raises Unwritten, LlmError and BudgetSpent.
        """
        template = self.template(genome)
        if not plan.structure and not self.always:
            return Written(plan, genome, None, effective_key(read(template)))
        work = _Work(self, plan, genome, template, name)
        for version in range(1 + self.rewrites):
            written = work.version(version)
            if written is not None:
                return written
        assert work.failures
        raise Unwritten(plan, work.failures[-1], tuple(work.history))


class _Work:
    """One plan on its way to a program."""

    def __init__(
        self, writer: Writer, plan: Plan, genome: Genome, template: str, name: str
    ) -> None:
        self.writer = writer
        self.plan = plan
        self.genome = genome
        self.template = template
        self.name = name
        self.asked = writer.asked(plan, genome)
        self.required = state_required(required(self.asked))
        self.failures: list[Failure] = []
        """How each version of the coder ended."""
        self.reflections: list[str] = []
        self.history: list[Event] = []

    def version(self, number: int) -> Written | None:
        """One program of the coder with its repairs; None where it did not come to work."""
        again = f", written again ({number})" if number else ""
        try:
            program = self.writer.coder.write(
                self.plan, self.template, self.required, self.failures, self.name + again
            )
        except FormatFailure as error:
            self._failed(Failure("answer", error.reason))
            self.failures.append(Failure("answer", error.reason))
            return None
        self.history.append(Event("wrote", f"version {number + 1}"))
        repairs = self.writer.repairs if self.writer.debugger is not None else 0
        for repair in range(repairs + 1):
            tried = self.writer.bench.tried(program, self.asked)
            if tried.failure is None:
                done = tuple(self.history)
                return Written(self.plan, self.genome, program, tried.effective, done)
            self._failed(tried.failure)
            repaired = self._repaired(program, tried.failure, repair) if repair < repairs else None
            if repaired is None:
                self.failures.append(tried.failure)
                return None
            program = repaired
        return None

    def _repaired(self, program: str, failure: Failure, number: int) -> str | None:
        """The debugger's program; None where its answer holds none or the same again."""
        debugger = self.writer.debugger
        assert debugger is not None
        name = f"{self.name}, repair {number + 1}"
        try:
            repair = debugger.repair(
                program, self.plan, failure, self.reflections, self.required, name
            )
        except FormatFailure as error:
            self._failed(Failure("answer", error.reason))
            return None
        self.reflections.append(f"{failure.stage}: {repair.reflection}")
        self.history.append(Event("repaired", repair.reflection))
        return None if repair.program == program else repair.program

    def _failed(self, failure: Failure) -> None:
        self.history.append(Event("failed", str(failure)))


def effective_of(program: str) -> str:
    """The key of what a program does; "" where its text is no Python."""
    try:
        return effective_key(read(program))
    except NotPython:
        return ""
