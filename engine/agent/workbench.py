"""Where a program is tried before it is submitted: read first, then run once in the sandbox.

Reading costs nothing and finds what is stated wrongly; one image in the sandbox finds what breaks
and what the counters contradict. What was tried is kept, so that an interrupted study asks nothing
and runs nothing twice.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from engine.agent.prompts import steady
from engine.agent.roles import Failure
from engine.reading import NotPython, Reading, effective_key, read
from engine.specification import Specification, mismatches
from engine.strategy import find

if TYPE_CHECKING:
    from engine.results import Genome

LINES = 60
"""Most lines of a traceback that is kept."""


class Attempted(Protocol):
    """What the sandbox tells of one trial run (``engine.evaluate.Attempt``)."""

    @property
    def ok(self) -> bool: ...
    @property
    def stage(self) -> str | None: ...
    @property
    def reason(self) -> str | None: ...
    @property
    def traceback(self) -> str: ...


Attempt = Callable[[str], Attempted]
"""Loads a program in the sandbox and makes one image."""


@dataclass(frozen=True)
class Tried:
    """A program that was tried: its failure or None, and the key of what it effectively does
    ("" where its text is no Python)."""

    failure: Failure | None
    effective: str = ""


@dataclass
class Workbench:
    """Tries programs; ``folder`` keeps what came of each in ``attempts.jsonl``.

    Without ``check`` a program's text is not compared with what was asked; without ``run`` (where
    ``attempt`` is None) it is not run.
    """

    folder: Path
    attempt: Attempt | None
    check: bool = True
    seconds: float = 0.0
    _held: dict[str, Failure | None] = field(default_factory=dict)

    def __post_init__(self) -> None:
        path = self.folder / "attempts.jsonl"
        if path.exists():
            for text in path.read_text(encoding="utf-8").splitlines():
                row = _row(text)
                if row is not None:
                    self._held[row["program"]] = row["failure"] and Failure(**row["failure"])

    def tried(self, program: str, asked: Specification | None) -> Tried:
        """What comes of a program that is to keep a specification (None asks nothing)."""
        try:
            reading = read(program)
        except NotPython as error:
            return Tried(Failure("compile", str(error)))
        key = effective_key(reading)
        wrong = stated_wrong(asked, reading) if self.check and asked is not None else None
        failure = wrong or self._run(program)
        return Tried(failure, key)

    def _run(self, program: str) -> Failure | None:
        if self.attempt is None:
            return None
        name = hashlib.sha256(program.encode()).hexdigest()
        if name not in self._held:
            done = self.attempt(program)
            failure = None
            if not done.ok:
                trace = "\n".join(steady(done.traceback or "").splitlines()[-LINES:])
                failure = Failure(str(done.stage), steady(str(done.reason)), trace)
            self._held[name] = failure
            self._keep(name, failure)
        return self._held[name]

    def _keep(self, name: str, failure: Failure | None) -> None:
        self.folder.mkdir(parents=True, exist_ok=True)
        row = {"program": name, "failure": failure and dataclasses.asdict(failure)}
        with (self.folder / "attempts.jsonl").open("a", encoding="utf-8") as file:
            file.write(json.dumps(row) + "\n")


def _row(text: str) -> dict[str, Any] | None:
    """A line of the file; None for one that was cut off when the study was killed."""
    try:
        row: dict[str, Any] = json.loads(text)
        return row if {"program", "failure"} <= set(row) else None
    except ValueError:
        return None


def stated_wrong(asked: Specification, reading: Reading) -> Failure | None:
    """Where a program's text departs from what was asked."""
    wrong = mismatches(asked, reading)
    if not wrong:
        return None
    unread = [f"cannot be read: {sentence}" for sentence in reading.unread]
    return Failure("specification", "; ".join(map(str, wrong)), "\n".join(unread))


def specification_of(
    template: str, genome: Genome, model: str, structure: str, request: Specification | None
) -> Specification | None:
    """What a program of a plan must state: what the generated program of its genome states, and
    above that what the request states.

    Of a plan with a structure of its own only the techniques' names are asked, since it may set
    them otherwise. A technique that decides the steps is said by the scheduler and the steps. None
    where the generated program cannot be read.
    """
    try:
        stated = read(template)
    except NotPython:
        return request
    if stated.pipeline is None or stated.model_id is None:
        return request
    methods: dict[str, Mapping[str, Any]] = {
        m.name: {} if structure else dict(m.settings)
        for m in stated.methods
        if m.name in genome and not any(g.sets == "steps" for g in find(m.name).genes.values())
    }
    own = Specification(
        request="",
        model=model,
        pipeline=stated.pipeline,
        model_id=stated.model_id,
        controlnet=stated.controlnet,
        scheduler=stated.scheduler,
        steps=stated.steps,
        methods=methods,
        guidance_scale=stated.guidance_scale,
    )
    return own if request is None else over(own, request)


def over(own: Specification, request: Specification) -> Specification:
    """A plan's specification with all that the request states laid over it."""
    stated = {
        f.name: value
        for f in dataclasses.fields(request)
        if (value := getattr(request, f.name)) not in (None, (), False, {})
        and f.name not in ("methods", "keep_steps")
    }
    methods = {
        name: {**own.methods.get(name, {}), **request.methods.get(name, {})}
        for name in {**own.methods, **request.methods}
    }
    steps = own.steps if request.steps is None else request.steps
    return dataclasses.replace(
        own, **{**stated, "methods": methods, "keep_steps": request.keep_steps, "steps": steps}
    )


def required(asked: Specification | None) -> dict[str, Any]:
    """What a program must state, for a prompt."""
    if asked is None:
        return {}
    names = (
        "pipeline", "model_id", "controlnet", "scheduler", "steps", "guidance_scale", "height",
        "width", "dtype", "preprocessor",
    )  # fmt: skip
    found = {name: getattr(asked, name) for name in names if getattr(asked, name) is not None}
    methods = {name: dict(settings) for name, settings in asked.methods.items()}
    return found | ({"methods": methods} if methods else {})
