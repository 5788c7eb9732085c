"""Studies of the weak programmer as planner: which part of the loop finds fast programs.

Nothing is drawn here. A trial's figures come from the table that ``record_table`` measured on
sd-mini (speed-up by counted operations, loss of the CLIP score over 24 captions), so that hundreds
of studies take minutes. The generator writes the programs; how the coder's come about is the
matter of ``weak_programs``. A study has 28 evaluations as the paper's (P = 7, T_sel = 4).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any

from engine.agent import feedback, insights
from engine.agent.brief import Brief
from engine.agent.roles import Coder, Debugger, Planner
from engine.agent.source import AgentSource
from engine.agent.workbench import Workbench
from engine.agent.writer import Writer, effective_of
from engine.genome import describe
from engine.program import generate
from engine.results import Genome, Result
from engine.schema import AgentConfig
from engine.search import paper, searcher
from tests.agent.weak import WeakProgrammer
from tests.benchmarks.searchers import MAX_LOSS, Table
from tests.test_program import SUBJECT

VARIANTS: dict[str, tuple[str, ...]] = {
    "full agent": (),
    "no knowledge": ("agent.knowledge=false",),
    "no memory": ("agent.memory=false",),
    "no selector": ("agent.selector=false",),
    "no tuning": ("agent.tuning=false",),
    "paper mode": ("agent=paper", "agent.writes=structure"),
}
"""Overrides of each row."""
OFFLINE = "searcher alone"
SHARES = {"easy": 0.8 * 0.93, "middling": 0.85, "medium": 0.93}
"""Targets as shares of the best speed-up in the table within the limit on loss. As in DiffBench
(paper.md) medium is 0.93 times what a search of everything finds and easy 0.8 times that; its hard
target lies beyond everything in the table."""
EARLIER = 28
"""Evaluations of the earlier study whose effects a planner with a memory is told."""


@dataclass(frozen=True)
class Found:
    """One study: the evaluation that first reached each target (None if none did), the calls of the
    model, and the evaluations made."""

    reached: dict[str, int | None]
    calls: int
    evaluations: int


@dataclass
class Counted:
    """The weak programmer and how often it was asked."""

    inner: WeakProgrammer
    calls: int = 0

    @property
    def name(self) -> str:
        return self.inner.name

    def complete(self, request: Any) -> Any:
        self.calls += 1
        return self.inner.complete(request)


@dataclass
class Studies:
    """Studies on one table; ``folder`` receives what the agent writes."""

    table: Table
    folder: Path
    _programs: dict[str, str] = field(default_factory=dict)
    _effective: dict[str, str] = field(default_factory=dict)

    @cached_property
    def targets(self) -> dict[str, float]:
        """Speed-ups that the targets name."""
        true = [self.table.true(key) for key in self.table.speedups]
        best = max(speed for speed, loss in true if loss <= MAX_LOSS)
        return {name: share * best for name, share in SHARES.items()}

    def template(self, genome: Genome) -> str:
        key = self.table.space.key(genome)
        if key not in self._programs:
            self._programs[key] = generate(SUBJECT, genome, describe(genome))
        return self._programs[key]

    def measured(self, genome: Genome, trial: int, seed: int) -> Result:
        """A trial's result, with the key of what its program does."""
        result = self.table.measure(genome, trial, seed, exact=False)
        if result.key not in self._effective:
            self._effective[result.key] = effective_of(self.template(genome))
        return replace(result, effective=self._effective[result.key])

    def earlier(self, seed: int) -> str:
        """The effects in an earlier random study."""
        drawn = searcher("random", self.table.space, 10_000 + seed)
        told: list[Result] = []
        for proposal in drawn.ask(EARLIER, told, set(), 0):
            told.append(self.table.measure(proposal.genome, len(told), 10_000 + seed, exact=False))
        return insights.words(insights.effects([told]))

    def source(self, agent: AgentConfig, model: Counted, seed: int) -> AgentSource:
        """The agent over the table's space."""
        space = self.table.space
        brief = Brief("", "sd-mini", "", "20 DPM-Solver++ steps", "as fast as possible")
        baseline: Genome = {}
        bench = Workbench(self.folder, None, agent.check)
        return AgentSource(
            agent=agent,
            space=space,
            planner=Planner(model, brief, space, baseline, agent.knowledge),
            writer=Writer(
                Coder(model, brief, agent.knowledge),
                Debugger(model, agent.knowledge, agent.memory),
                bench,
                self.template,
                lambda plan, genome: None,
                agent.repairs,
                agent.rewrites,
                agent.writes == "always",
            ),
            tuner=lambda within: searcher("genetic", within, seed, max_loss=MAX_LOSS),
            selector=paper.Paper(space, seed, paper.Options(refined=agent.refined)),
            base=feedback.Base(20, None, False),
            goal={"max_loss": MAX_LOSS, "speedup": None, "seconds": None, "memory_gib": None},
            max_loss=MAX_LOSS,
            memory=False,
            seed=seed,
            insights=self.earlier(seed) if agent.memory else "",
            folder=self.folder,
        )

    def study(self, agent: AgentConfig, seed: int) -> Found:
        """One study of the agent."""
        model = Counted(WeakProgrammer(SUBJECT, seed))
        told = self._run(self.source(agent, model, seed), agent, seed)
        return self._found(told, model.calls)

    def searched(self, agent: AgentConfig, seed: int) -> Found:
        """One study of the searcher without a model."""
        own = searcher("genetic", self.table.space, seed, max_loss=MAX_LOSS)
        return self._found(self._run(own, agent, seed), 0)

    def _run(self, asked: Any, agent: AgentConfig, seed: int) -> list[Result]:
        told: list[Result] = []
        for _ in range(agent.generations):
            taken = {result.key for result in told}
            for proposal in asked.ask(agent.plans, told, taken, len(told)):
                told.append(self.measured(proposal.genome, len(told), seed))
        return told

    def _found(self, told: Sequence[Result], calls: int) -> Found:
        true = [self.table.true(result.key) for result in told]
        reached = {
            name: next(
                (
                    number
                    for number, (speed, loss) in enumerate(true, 1)
                    if speed >= target and loss <= MAX_LOSS
                ),
                None,
            )
            for name, target in self.targets.items()
        }
        return Found(reached, calls, len(told))
