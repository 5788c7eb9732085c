"""A study: ask, claim, launch, tell, until the budget or the goal ends it; then acceptance.

Everything that is needed to go on lies in the study's folder, so the same command resumes after a
kill at any moment: told trials are the ``result.json`` files, claims without one run again.
"""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from engine import console, handover, interrupt, proposals, results, session
from engine import goal as goals
from engine.agent.llm import LlmError
from engine.config import read
from engine.errors import GoalMissed, UsageError
from engine.evaluate import Evaluator
from engine.finalists import ACCEPTED, FURTHER, LOOKS, Choice
from engine.genome import canonical, key, overrides
from engine.results import Genome, Result
from engine.schema import Config
from engine.scope import configured, search_space, starting, worthless
from engine.search import Proposal, Searcher
from engine.search.ledger import Ledger
from engine.search.space import Space

if TYPE_CHECKING:
    from hydra.core.utils import JobReturn
    from omegaconf import DictConfig

    from engine.agent.llm import Model
    from engine.agent.opening import Task

Launch = Callable[[list[list[str]], int], "Sequence[JobReturn]"]
"""Runs jobs (their overrides, number of the first) through the configured launcher."""


def run(
    cfg: DictConfig,
    arguments: list[str],
    launch: Launch,
    model: Model | None = None,
    task: Task | None = None,
) -> None:
    """Run or resume the study that the configuration names. ``model`` stands in place of the
    language model that it names, and ``task`` is the request that it serves. Raises GoalMissed when
    no point keeps the goal, and RuntimeError when the measuring itself failed."""
    config = read(cfg)
    assert config.study is not None
    folder = Path(config.paths.outputs) / "sweeps" / config.study
    resume = handover.command(arguments)
    try:
        with interrupt.recognised(), session.evaluator(config, folder) as evaluator:
            study = _Study(config, evaluator, folder, launch, arguments, resume, model, task)
            study.run(cfg)
    except KeyboardInterrupt:
        console.say(f"\ninterrupted; nothing is lost, this goes on where it stopped:\n  {resume}")
        raise
    except LlmError:
        console.say(f"nothing is lost; once the model answers, this goes on:\n  {resume}")
        raise
    finally:
        session.close()


@dataclass
class _Study:
    config: Config
    evaluator: Evaluator
    folder: Path
    launch: Launch
    arguments: list[str]
    resume: str
    model: Model | None = None
    """In place of the language model that the configuration names."""
    task: Task | None = None
    """The request that the study serves."""

    def run(self, cfg: DictConfig) -> None:
        started = time.monotonic()
        self._ready()
        book = handover.Book(self.config, self.evaluator, self.folder, self.resume, cfg)
        console.say(f"study {self.config.study} in {self.folder}")
        with console.working("loading the libraries and the baseline"):
            here = search_space(self.config, self.evaluator.arms)
        start = starting(self.config, here, self.folder, self.evaluator.arms)
        if not start and not self.config.generations:
            raise UsageError(
                f"nothing to measure: search.generations=0 and no start for "
                f"model={self.config.model.name} can run here; type +sweep=ga to search"
            )
        fingerprint = self._fingerprint(here)
        url = f"sqlite:///{self.folder / 'ledger.db'}"
        profile = self.evaluator.machine.profile()
        with Ledger.open(url, str(self.config.study), fingerprint, profile) as ledger:
            ledger.rebuild(session.told(self.folder))
            with console.working("A/A control: the baseline against itself"):
                book.control()
            book.forecast()
            deadline = _deadline(started, self.config.search.minutes)
            narrowed = self._narrowed(here)
            source = self._searcher(narrowed)
            try:
                self._search(ledger, source, start, book, deadline)
            finally:
                self._spent(source, book)
            self._accept(ledger, book)
        book.finish(self._results())
        if not self.config.generations and book.rows:
            following = handover.following(self.arguments, str(self.config.study))
            console.say(f"the long search, which starts from these:\n  {following}")
        if book.best is None:
            raise GoalMissed(missed(getattr(source, "ended", None)))

    def _ready(self) -> None:
        """Raises UsageError for a model or a sandbox that cannot be, before minutes are spent on
        the baseline."""
        if not self._by_model:
            return
        from engine.agent.doors import ready

        if self.model is None:
            ready(self.config.llm)
        self.evaluator.arms.require_sandbox()

    def _narrowed(self, here: Space) -> Space:
        """The space without the techniques that, alone, gain nothing on this machine."""
        with console.working("techniques whose worth hangs on the machine, each alone"):
            without = worthless(self.config, self.evaluator, here)
        for name, why in without.items():
            console.say(f"left out: {name}, {why}")
        return search_space(self.config, self.evaluator.arms, without) if without else here

    def _fingerprint(self, here: Space) -> dict[str, Any]:
        config = self.config
        return {
            "space": here.describe(),
            "model": dataclasses.asdict(config.model),
            "baseline": config.baseline.technique,
            "goal": dataclasses.asdict(config.goal),
            "objective": config.objective,
            "search": {"name": config.search.name, "seed": config.search.seed}
            | config.search.options(),
            "start": list(config.search.start),
            "data": self.evaluator.asked.data(),
            "workload": self.evaluator.asked.workload(),
            "program": self.evaluator.arms.baseline_program(),
        } | config.by_whom()

    def _searcher(self, here: Space) -> Searcher:
        if self.config.by_agent:
            from engine.agent.opening import opened

            with console.working("the agent's model and sandbox"):
                return opened(self.config, self.evaluator, here, self.folder, self.model, self.task)
        return configured(self.config, here)

    def _spent(self, source: Searcher, book: handover.Book) -> None:
        """What the language model has cost so far: stored, kept for the report, and shown."""
        if self._by_model:
            from engine.agent.opening import account

            book.data["agent"] = account(self.config, self.folder, source)

    @property
    def _by_model(self) -> bool:
        """Whether a language model plans: some of its plans may come to nothing."""
        return self.model is not None or self.config.llm.name != "offline"

    def _results(self) -> list[Result]:
        return session.told(self.folder).read()

    # --- search

    def _search(
        self,
        ledger: Ledger,
        ask: Searcher,
        start: list[Proposal],
        book: handover.Book,
        deadline: float | None,
    ) -> None:
        """What the study starts from, then generation by generation; one that was begun is asked
        for again with what was known when it began, so that an interrupted study proposes what an
        uninterrupted one does."""
        population = self.config.population
        whole = len(start) + population * self.config.generations
        firsts = range(len(start), whole, population)
        for first in [0, *firsts] if start else firsts:
            told = self._results()
            book.save(told)
            if _passed(deadline) or self._goal_reached(ledger, told):
                return
            earlier = [self._as_searched(r) for r in told if r.trial < first]
            asked = start
            if first or not start:
                taken = {r.key for r in earlier} | {key(self.evaluator.arms.baseline)}
                asked = ask.ask(population, earlier, taken, first)
            claims = dict(ledger.open_claims())
            done = {r.trial for r in told}
            pending = [
                (trial, self._claimed(trial, claims) or proposal)
                for trial, proposal in enumerate(asked, first)
                if trial not in done
            ]
            for trial, proposal in pending:
                # Written first: a claim does not hold a proposal's program.
                proposals.write(self.folder / str(trial), trial, proposal)
                ledger.claim(trial, proposal.key, proposal)
            self._generation(ledger, pending, deadline)
            ended = getattr(ask, "ended", None)
            if ended is not None:
                console.say(f"the search ends here: {ended}")
                return
            if asked is not start and len(asked) < population and not self._by_model:
                console.say("the space is exhausted: every composition has been measured")
                return
        book.save(self._results())

    def _claimed(self, trial: int, claims: Mapping[int, Proposal]) -> Proposal | None:
        """What an interrupted study has claimed for a trial, its program included."""
        folder = self.folder / str(trial)
        if trial in claims and (folder / "proposal.json").exists():
            return proposals.read(folder)
        return claims.get(trial)

    def _as_searched(self, result: Result) -> Result:
        path = self.folder / str(result.trial) / "search.json"
        return results.load(path) if path.exists() else result

    def _generation(
        self, ledger: Ledger, claimed: list[tuple[int, Proposal]], deadline: float | None
    ) -> None:
        """Launch trials in runs of consecutive numbers; one by one under a time limit, since a
        launcher cannot be stopped in the middle."""
        size = 1 if deadline is not None else max(1, len(claimed))
        for batch in _consecutive(claimed, size):
            if _passed(deadline):
                return
            jobs = [self._job(trial, proposal.genome) for trial, proposal in batch]
            returned = self.launch(jobs, batch[0][0])
            for (trial, _), job in zip(batch, returned, strict=True):
                path = self.folder / str(trial) / "result.json"
                if not path.exists():
                    # Reading the value of a failed job raises what the job raised.
                    raise RuntimeError(f"trial {trial} left no result: {job.return_value}")
                ledger.told(results.load(path))

    def _job(self, trial: int, genome: Genome) -> list[str]:
        return [*self.arguments, *overrides(genome), f"trial={self.config.study}/{trial}"]

    def _goal_reached(self, ledger: Ledger, told: list[Result]) -> bool:
        """Whether all that the goal asks for is kept with confidence.

        A trial of a few prompts cannot say so: the one that seems to keep the goal most surely is
        measured on the held-out prompts, and that measurement decides.
        """
        likely = self._choice.likely(told)
        if likely is not None:
            self._accepted(ledger, likely)
        sure = self._choice.met(self._results())
        if sure is not None:
            console.say(f"the goal is met with confidence by trial {sure.trial}")
        return sure is not None

    # --- acceptance

    @property
    def _choice(self) -> Choice:
        return Choice(self.config.goal, self.evaluator.arms.baseline)

    def _accept(self, ledger: Ledger, book: handover.Book) -> None:
        """Measure trials on the held-out prompts: where the goal asks for something, those that
        seem to keep it most surely, until one does; without such a one, and where it asks for
        nothing, the front's points and the best single technique."""
        choice = self._choice
        for _ in range(ACCEPTED):
            likely = choice.likely(self._results())
            if likely is None:
                break
            self._accepted(ledger, likely)
        if choice.kept(self._results()) is None:
            self._accept_front(ledger)
        with console.working("the baseline against the plain program"):
            book.plain()

    def _accept_front(self, ledger: Ledger) -> None:
        choice = self._choice
        told = self._results()
        for candidate in choice.finalists(told, [self._as_searched(r) for r in told if r.ok]):
            told = self._results()
            if not choice.met(told) and not choice.outdone(candidate, told):
                self._accepted(ledger, candidate)
        for _ in range(FURTHER):
            told = self._results()
            further = None if choice.met(told) else choice.further(told)
            if further is None:
                break
            self._accepted(ledger, further)

    def _accepted(self, ledger: Ledger, candidate: Result) -> Result:
        name = f"acceptance of trial {candidate.trial} on the held-out prompts"
        accepted = self._measured(ledger, name, partial(self.evaluator.accept, candidate))
        goal = dataclasses.asdict(self.config.goal)
        while (
            goals.asks(goal)
            and accepted.looks < LOOKS
            and goals.another_look_decides(accepted, goal)
        ):
            name = f"look {accepted.looks + 1} at trial {candidate.trial}, on fresh processes"
            again = partial(self.evaluator.look_again, accepted)
            accepted = self._measured(ledger, name, again)
        return accepted

    def _measured(self, ledger: Ledger, name: str, measure: Callable[[], Result]) -> Result:
        """What a further measurement of a trial finds, told and in the ledger."""
        with console.working(name):
            found = measure()
        ledger.rebuild(session.told(self.folder))
        console.say(f"  {name}: {handover.figures(found)}")
        return found


def missed(ended: str | None) -> str:
    """Why a study hands over nothing; ``ended`` is why its search ended early, where it did."""
    if ended is not None:
        return f"no point kept the goal so far, and the search ended early: {ended}"
    return "no point kept the goal; search longer, or allow more with goal.max_loss=VALUE"


def _deadline(started: float, minutes: float | None) -> float | None:
    return None if minutes is None else started + 60 * minutes


def _passed(deadline: float | None) -> bool:
    return deadline is not None and time.monotonic() > deadline


def _consecutive(
    claimed: list[tuple[int, Proposal]], size: int
) -> list[list[tuple[int, Proposal]]]:
    """Runs of consecutive trial numbers, at most ``size`` long."""
    runs: list[list[tuple[int, Proposal]]] = []
    for item in sorted(claimed, key=lambda c: c[0]):
        if runs and item[0] == runs[-1][-1][0] + 1 and len(runs[-1]) < size:
            runs[-1].append(item)
        else:
            runs.append([item])
    return runs


def job(config: Config) -> dict[str, float]:
    """One launched trial, in whatever process the launcher gave it; idempotent."""
    study, _, number = str(config.trial).partition("/")
    folder = Path(config.paths.outputs) / "sweeps" / study
    trial = int(number)
    path = folder / number / "result.json"
    if path.exists():
        result = results.load(path)
    else:
        proposal = proposals.read(folder / number)
        evaluator = session.evaluator(config, folder)
        with console.working(f"trial {trial}"):
            result = evaluator.evaluate(
                trial,
                canonical(config.technique),
                proposal.origin,
                proposal.parents,
                proposal.program,
                proposal.note,
            )
        handover.report_trial(config, folder, result)
    return {"speedup": result.speedup or 0.0, "loss": result.loss or 0.0}
