"""The agent as a searcher: asked for candidates, it asks a language model for plans and programs.

``agent=paper`` is the loop of DiffAgent (arXiv 2601.03178) to the letter: P plans, later M refined
ones whose parents are drawn by fitness and P - M new ones, each written, repaired and written
again. ``agent=diffagent`` lets the model choose structures and the configured searcher tune their
numbers, takes parents by rank from the Pareto archive, and measures nothing twice.

A study asks for every generation anew when it resumes. The recording answers the same questions
and the workbench keeps what it tried, so asking again costs nothing and gives the same programs.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping, Sequence, Set
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from engine.agent import feedback
from engine.agent.llm import BudgetSpent
from engine.agent.plans import Plan
from engine.agent.roles import Planner, Told
from engine.agent.writer import Unwritten, Writer, Written, effective_of
from engine.errors import UsageError
from engine.results import Genome, Result, write_json
from engine.search import Proposal, Searcher
from engine.search.archive import SLACK, measured, ranks
from engine.search.paper import Paper
from engine.search.space import Space

if TYPE_CHECKING:
    import numpy as np

    from engine.schema import AgentConfig

SHOWN = 8
"""Best trials that a planner sees."""
MODEL = "model"
"""Origin of a new plan."""
REFINED = "refined"
"""Origin of a plan that refines an earlier one."""

Tuner = Callable[[Space], Searcher]
"""The configured searcher over a space."""


@dataclass
class Log:
    """What became of every plan, in the order of asking; ``plans.json`` of the study."""

    rows: list[dict[str, Any]] = field(default_factory=list)

    def add(
        self, first: int, plan: Plan, genome: Genome, outcome: str, history: Sequence[Any] = ()
    ) -> None:
        row = {"first_trial": first, **dataclasses.asdict(plan), "genome": genome}
        events = [dataclasses.asdict(event) for event in history]
        self.rows.append(row | {"outcome": outcome, "history": events})


@dataclass
class AgentSource:
    """Plans by a model, programs by a model or the generator, numbers by a searcher.

    It has the searcher's ``ask``. ``ended`` says why it will propose no more (the budget), None
    while it may. ``titles`` are the plans' titles by trial.
    """

    agent: AgentConfig
    space: Space
    planner: Planner
    writer: Writer
    tuner: Tuner
    selector: Paper
    base: feedback.Base
    goal: Mapping[str, Any]
    max_loss: float
    memory: bool
    """Whether the goal names memory."""
    seed: int
    insights: str
    """What earlier studies say, in lines; "" where nothing is known or memory is switched off."""
    folder: Path
    ended: str | None = None
    titles: dict[int, str] = field(default_factory=dict)
    log: Log = field(default_factory=Log)
    _effective: dict[str, str] = field(default_factory=dict)
    """Key of what a measured program does to the trial or plan that does it."""

    def ask(
        self, count: int, told: Sequence[Result], taken: Set[str], first_trial: int
    ) -> list[Proposal]:
        """Up to ``count`` proposals: the searcher's share, then the model's, then what fills the
        places of plans that came to nothing. Fewer, and ``ended`` set, when the budget is spent.

        Raises LlmError when the model cannot be reached.
        """
        if self.ended is not None:
            return []
        self._know(told)
        work = _Generation(self, count, told if self.agent.selector else (), taken, first_trial)
        try:
            work.tune(work.share_of_searcher)
            work.plan(count - len(work.found))
            if work.tuned:
                work.tune(count - len(work.found))
        except BudgetSpent as spent:
            self.ended = spent.reason
        write_json(self.folder / "plans.json", {"plans": self.log.rows})
        for trial, proposal in enumerate(work.found, first_trial):
            self.titles[trial] = proposal.note
        return work.found

    def _know(self, told: Sequence[Result]) -> None:
        """Learn what the told trials do, the ones that the study started from included."""
        if self.agent.name == "paper":
            return
        for result in told:
            key = result.effective or effective_of(self.writer.template(result.genome))
            self._effective.setdefault(key, f"trial {result.trial}")

    def known(self, written: Written) -> str | None:
        """What has the same effect already, in words; None where nothing has. The paper's loop
        measures whatever it planned."""
        if self.agent.name == "paper" or not written.effective:
            return None
        return self._effective.get(written.effective)

    def does(self, genome: Genome) -> str | None:
        """What does already what the generated program of a genome would, in words."""
        return self._effective.get(effective_of(self.writer.template(genome)))

    def remember(self, written: Written, trial: int) -> None:
        self._effective.setdefault(written.effective, f"trial {trial}")


class _Generation:
    """The proposals of one call."""

    def __init__(
        self,
        source: AgentSource,
        count: int,
        told: Sequence[Result],
        taken: Set[str],
        first: int,
    ) -> None:
        self.source = source
        self.agent = source.agent
        self.count = count
        self.told = told
        self.first = first
        self.seen = set(taken)
        self.found: list[Proposal] = []

    @property
    def rng(self) -> np.random.Generator:
        import numpy as np

        return np.random.default_rng((self.source.seed, self.first))

    @property
    def tuned(self) -> bool:
        """Whether the searcher has a share at all."""
        return self.agent.tuning and self.agent.selector and self.agent.name != "paper"

    @property
    def share_of_searcher(self) -> int:
        """Places that the searcher fills first; the model has at least one."""
        return min(self.agent.tuned, self.count - 1) if self.tuned else 0

    # --- the searcher's share

    def tune(self, count: int) -> None:
        """Numbers for structures that were measured and are useful, else for any."""
        if count <= 0:
            return
        structures = {frozenset(r.genome) for r in self.told if self._useful(r)}
        whole = self.source.space
        spaces = [whole]
        if structures:
            within = dataclasses.replace(
                whole, allowed=lambda g: frozenset(g) in structures and whole.allowed(g)
            )
            spaces = [within, whole]
        wanted = len(self.found) + count
        for space in spaces:
            missing = wanted - len(self.found)
            if missing <= 0:
                return
            try:
                asked = self.source.tuner(space).ask(missing, self.told, self.seen, self.first)
            except UsageError:
                # Every composition of these structures has been measured.
                continue
            for proposal in asked:
                self._take(proposal)

    def _useful(self, result: Result) -> bool:
        return (
            measured(result, memory=self.source.memory)
            and (result.speedup or 0.0) > 1
            and (result.loss or 0.0) <= SLACK * self.source.max_loss
        )

    # --- the model's share

    def plan(self, count: int) -> None:
        """Plans of the model, written; what cannot be written is planned once more."""
        if count <= 0:
            return
        parents = self._parents(count)
        told = self._told(parents)
        name = f"plans for trials {self.first + len(self.found)} and on"
        numbers = [r.trial for r in parents]
        planner = self.source.planner
        planned = planner.plans(count - len(numbers), numbers, told, name)
        lost = self._write_all(planned.plans)
        if not lost:
            return
        failed = "; ".join(f"{u.plan.title!r} failed {u.failure}"[:300] for u in lost)
        note = f"These could not be turned into working programs, plan something else: {failed}"
        again = planner.plans(len(lost), [], told, f"{name}, instead of failed ones", note)
        self._write_all(again.plans)

    def _write_all(self, planned: Sequence[tuple[Plan, Genome]]) -> list[Unwritten]:
        lost = []
        for plan, genome in planned:
            if len(self.found) == self.count:
                break
            trial = self.first + len(self.found)
            if self._doubled(plan, genome, trial):
                continue
            try:
                written = self.source.writer.write(plan, genome, f"trial {trial}, {plan.title}")
            except Unwritten as unwritten:
                self.source.log.add(
                    self.first, plan, genome, f"failed {unwritten.failure}", unwritten.history
                )
                lost.append(unwritten)
                continue
            self._submit(written, trial)
        return lost

    def _doubled(self, plan: Plan, genome: Genome, trial: int) -> bool:
        """Whether a plan without a structure of its own repeats what was measured or proposed;
        found before a program is paid for."""
        if plan.structure or self.agent.name == "paper":
            return False
        double = self.source.space.key(genome) in self.seen
        if not double and self.source.writer.always:
            # Written by hand it would do what its generated program does.
            double = self.source.does(genome) is not None
        if double:
            self.source.log.add(self.first, plan, genome, "repeats a composition")
        return double

    def _submit(self, written: Written, trial: int) -> None:
        known = self.source.known(written)
        if known is not None:
            words = f"does what {known} does"
            self.source.log.add(self.first, written.plan, written.genome, words, written.history)
            return
        plan = written.plan
        refined = plan.refines is not None
        proposal = Proposal(
            written.genome,
            REFINED if refined else MODEL,
            (plan.refines,) if plan.refines is not None else (),
            program=written.program,
            note=plan.title,
        )
        if self._take(proposal):
            self.source.remember(written, trial)
            words = f"trial {trial}"
            self.source.log.add(self.first, plan, written.genome, words, written.history)

    def _take(self, proposal: Proposal) -> bool:
        """Add a proposal unless it, or its program, was proposed before."""
        key = proposal.key
        if key in self.seen or len(self.found) == self.count:
            return False
        self.seen.add(key)
        self.found.append(proposal)
        return True

    # --- parents and what the planner is told

    def _parents(self, count: int) -> list[Result]:
        """The trials whose plans the model refines."""
        wanted = min(self.agent.refined, count if self.agent.name == "paper" else count - 1)
        able = [r for r in self.told if measured(r, memory=self.source.memory)]
        if not able or wanted <= 0:
            return []
        if self.agent.name == "paper":
            return self.source.selector.drawn(wanted, count, self.told, self.rng)
        places = ranks(able, self.source.max_loss, memory=self.source.memory)
        weights = [1 / (1 + place) for place in places]
        shares = [w / sum(weights) for w in weights]
        wanted = min(wanted, len(able))
        chosen = self.rng.choice(len(able), wanted, replace=False, p=shares)
        return [able[i] for i in chosen]

    def _told(self, parents: Sequence[Result]) -> Told:
        source = self.source
        figures = (source.base, source.goal, source.titles)
        able = [r for r in self.told if measured(r, memory=source.memory)]
        places = ranks(able, source.max_loss, memory=source.memory)
        best = [r for _, r in sorted(zip(places, able, strict=True), key=lambda x: x[0])]
        shown = [r for r in best if r not in parents][:SHOWN]
        return Told(
            trials="\n".join(feedback.line(r, *figures) for r in shown),
            failures=feedback.failures(self.told),
            insights=source.insights,
            refined="\n".join(feedback.report(r, *figures) for r in parents),
        )
