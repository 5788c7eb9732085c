"""Programs for requests: the weak programmer with the agent's writer and each part switched off.

A request names a sampler, its steps and some methods with all their settings, and no target, so
that one program is wanted: planned, written, tried, repaired, compared with the request. What was
submitted is judged by what it draws (``weak_judge``), never by the agent's own checks.
"""

from __future__ import annotations

import contextlib
import random
import shutil
import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from engine.agent.answer import _by_model
from engine.agent.asked import plan_of
from engine.agent.llm import FormatFailure, Reply, Request
from engine.agent.opening import Task, briefing
from engine.agent.plans import Plan
from engine.agent.roles import Coder, program_of
from engine.errors import TrialError
from engine.evaluate import Evaluator
from engine.genome import canonical, describe
from engine.results import Genome
from engine.schema import Config
from engine.specification import SOLVERS, Specification
from engine.strategy import Value
from tests.agent.weak import Diary, WeakProgrammer
from tests.benchmarks.weak_judge import Judge, same_code

GRIDS: dict[str, dict[str, list[Value]]] = {
    "sampler": {
        "name": ["ddim", "dpmpp_2m", "unipc"],
        "steps": [8, 10, 12, 15, 20],
        "spacing": ["trailing"],
    },
    "deepcache": {"interval": [2, 3, 4], "branch": [0]},
    "tome": {"ratio": [0.3, 0.5, 0.6], "max_downsample": [2]},
    "tgate": {"gate": [0.4, 0.5, 0.7]},
}
"""What requests ask for; all of it applies to the miniature."""
ALWAYS = ("agent.writes=always",)
VARIANTS: dict[str, tuple[str, ...]] = {
    "full agent": ALWAYS,
    "no debugger": (
        *ALWAYS,
        "agent.debugger=false",
    ),
    "no knowledge": (
        *ALWAYS,
        "agent.knowledge=false",
    ),
    "no memory": (
        *ALWAYS,
        "agent.memory=false",
    ),
    "no check": (
        *ALWAYS,
        "agent.check=false",
    ),
    "no debugger, no check": (*ALWAYS, "agent.debugger=false", "agent.check=false"),
    "paper mode": ("agent=paper",),
    "generator writes": (),
}
"""Overrides of each row. The model writes every program, but for the last row: there, by default,
the generator writes what settings can say."""
ALONE = "alone, one shot"


@dataclass(frozen=True)
class Outcome:
    """What came of one request. ``right`` is None where nothing was submitted; ``left`` are the
    injected faults that no repair and no rewriting took away."""

    request: int
    right: bool | None
    calls: int
    diary: Diary
    left: tuple[str, ...]


@dataclass
class Counting:
    """A ``llm.Model`` around the weak programmer, which counts calls by role."""

    inner: WeakProgrammer
    calls: dict[str, int] = field(default_factory=dict)

    @property
    def name(self) -> str:
        return self.inner.name

    def complete(self, request: Request) -> Reply:
        self.calls[request.role] = self.calls.get(request.role, 0) + 1
        return self.inner.complete(request)


def asked_for(number: int, seed: int) -> Genome:
    """The composition of a request: a sampler, and one to three methods."""
    rng = random.Random(f"{seed}/{number}")
    methods = rng.sample(["deepcache", "tome", "tgate"], rng.randint(1, 3))
    names = ["sampler", *methods]
    drawn = {name: {g: rng.choice(v) for g, v in GRIDS[name].items()} for name in names}
    return canonical(drawn)


def words_of(genome: Genome) -> str:
    """The request in words, in a form that names every setting."""
    parts = [
        f"{name} ({', '.join(f'{gene} {value}' for gene, value in genes.items())})"
        for name, genes in genome.items()
    ]
    return f"Run sd-mini in float32 with {', '.join(parts)}."


def specification(genome: Genome, config: Config) -> Specification:
    """What the request states, as the reader of requests would hand it on."""
    sampler = genome["sampler"]
    names = {solver: cls for cls, (technique, solver) in SOLVERS.items() if technique == "sampler"}
    return Specification(
        request=words_of(genome),
        model=config.model.name,
        pipeline=config.model.pipeline,
        model_id=config.model.id,
        scheduler=names[str(sampler["name"])],
        steps=int(sampler["steps"]),
        methods={name: dict(genes) for name, genes in genome.items() if name != "sampler"},
        dtype="float32",
    )


@dataclass
class Bench:
    """What all requests share: one evaluator with its sandbox, one judge, one folder in which the
    workbench keeps what it tried, so that no text is run twice."""

    evaluator: Evaluator
    judge: Judge
    folder: Path
    seed: int
    say: Callable[[str], None] = lambda line: print(line, file=sys.stderr, flush=True)

    def row(self, config: Config, name: str, numbers: Sequence[int]) -> list[Outcome]:
        """The outcomes of requests under the switches of a configuration."""
        return [self.answered(config, name, number) for number in numbers]

    def answered(self, config: Config, name: str, number: int) -> Outcome:
        """One request, from its plan to what is submitted."""
        genome = asked_for(number, self.seed)
        asked = specification(genome, config)
        model = Counting(self.programmer(number))
        folder = self.folder / name.replace(" ", "-") / str(number)
        folder.mkdir(parents=True)
        with self._tried(folder):
            try:
                # What ``answer`` does for a request without a target, with an evaluator of ours,
                # so that its baseline and its sandbox start once.
                made = _by_model(asked, config, self.evaluator, model, folder, plan_of(asked))
            except TrialError:
                return self.outcome(number, genome, model, None)
        return self.outcome(number, genome, model, made.program)

    @contextlib.contextmanager
    def _tried(self, folder: Path) -> Iterator[None]:
        """Hands on what the workbench has tried, so that no text runs twice."""
        shared, own = self.folder / "attempts.jsonl", folder / "attempts.jsonl"
        if shared.exists():
            shutil.copyfile(shared, own)
        yield
        if own.exists():
            shutil.copyfile(own, shared)

    def alone(self, config: Config, number: int) -> Outcome:
        """One request in one shot: no plan of its own, no template, no look at the program."""
        genome = asked_for(number, self.seed)
        model = Counting(self.programmer(number))
        brief = briefing(config, self.evaluator, self.folder, Task(specification(genome, config)))
        plan = Plan(describe(genome), "", genome)
        messages = Coder(model, brief, knowledge=False).messages(plan, "", "", ())
        reply = model.complete(Request("coder", messages))
        try:
            program: str | None = program_of(reply.text, reply.finish)
        except FormatFailure:
            program = None
        return self.outcome(number, genome, model, program)

    def programmer(self, number: int) -> WeakProgrammer:
        return WeakProgrammer(self.evaluator.arms.subject, 1000 * self.seed + number)

    def outcome(self, number: int, genome: Genome, model: Counting, program: str | None) -> Outcome:
        reference = self.evaluator.arms.program(genome)
        right = None if program is None else self.judge.right(program, reference)
        diary = model.inner.diary
        faults = [injected.fault for injected in diary.injected]
        # What the coder gave up is gone with its faults. Where nothing was submitted, no fault
        # counts as taken away.
        left = [] if right else faults if program is None else list(diary.present)
        same = program is not None and same_code(program, reference)
        self.say(f"  {number}: {right} after {model.calls}, {faults}{'' if same else ', drawn'}")
        return Outcome(number, right, sum(model.calls.values()), diary, tuple(left))
