"""A small local service that lends an agent of somebody else what ours has: measurements.

Programs run in the sandbox, on validation prompts, as often as our own agent may measure. Only the
requests are told, nothing that answers them; answers become a submissions file. The page ``/docs``
of the running service describes every call.
"""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import uvicorn
from fastapi import FastAPI, HTTPException
from pydantic import BaseModel, Field

from engine import console, session
from engine.diffbench import store, submissions
from engine.diffbench.bench import Bench
from engine.errors import UsageError

if TYPE_CHECKING:
    from engine.diffbench.tasks import Task
    from engine.schema import Config

Lend = Callable[["Task", str, int], Mapping[str, Any]]
"""Measures a program for a task on validation prompts; the number is that of the measurement."""


class Program(BaseModel):
    """A program to measure."""

    program: Annotated[str, Field(max_length=submissions.LARGEST)]


class Answer(Program):
    """The one program that is submitted for a task, and what it took."""

    calls: Annotated[int | None, Field(ge=0)] = None
    tokens: Annotated[int | None, Field(ge=0)] = None
    cost: Annotated[float | None, Field(ge=0, allow_inf_nan=False)] = None
    seconds: Annotated[float | None, Field(ge=0, allow_inf_nan=False)] = None


class Asked(BaseModel):
    """A task as an agent sees it."""

    id: str
    level: int
    request: str
    version: str
    measurements_left: int
    answered: bool


class Measured(BaseModel):
    """What came of a program on validation prompts.

    Where it failed, ``stage`` says at what and ``reason`` why. Losses are shares; ``speedup`` is
    that over the baseline which the request describes, with its 95 % interval.
    """

    ok: bool
    stage: str | None = None
    reason: str | None = None
    traceback: str = ""
    speedup: float | None = None
    speedup_low: float | None = None
    speedup_high: float | None = None
    loss: float | None = None
    seconds_per_image: float | None = None
    measurements_left: int = 0


class Desk:
    """What was measured and answered, in files of ``folder``, so that a restart forgets nothing."""

    def __init__(self, folder: Path, evaluations: int) -> None:
        self.answers = folder / "answers.jsonl"
        self._log = folder / "measurements.jsonl"
        self._most = evaluations
        self.lock = threading.Lock()
        """Measurements wait for each other: two at once would disturb both."""

    def used(self, task: str) -> int:
        return sum(row.get("task") == task for _, row in store.lines(self._log))

    def left(self, task: str) -> int:
        return max(0, self._most - self.used(task))

    def note(self, task: str, found: Mapping[str, Any]) -> None:
        store.append(self._log, json.dumps({"task": task, **found}))

    def answered(self, task: str) -> bool:
        return any(row.get("id") == task for _, row in store.lines(self.answers))


def app(tasks: Sequence[Task], lend: Lend, folder: Path, evaluations: int) -> FastAPI:
    """The service for these tasks."""
    known = {task.id: task for task in tasks}
    desk = Desk(folder, evaluations)
    made = FastAPI(title="DiffBench", description=__doc__ or "")

    def find(name: str) -> Task:
        if name not in known:
            raise HTTPException(404, f"there is no task {name}; GET /tasks lists them")
        return known[name]

    def told(task: Task) -> Asked:
        return Asked(
            id=task.id,
            level=task.level,
            request=task.request,
            version=task.version,
            measurements_left=desk.left(task.id),
            answered=desk.answered(task.id),
        )

    @made.get("/tasks")
    def listed() -> list[Asked]:
        """Every task that is offered."""
        return [told(task) for task in tasks]

    @made.get("/tasks/{name}")
    def one(name: str) -> Asked:
        """One task."""
        return told(find(name))

    @made.post("/tasks/{name}/measurements")
    def measured(name: str, given: Program) -> Measured:
        """Run a program in the sandbox and measure it on validation prompts. Each call counts,
        also that of a program which fails."""
        task = find(name)
        with desk.lock:
            used = desk.used(task.id)
            if desk.left(task.id) == 0:
                raise HTTPException(429, f"all {evaluations} measurements of {name} are used")
            found = dict(lend(task, given.program, used))
            desk.note(task.id, found)
        return Measured(**{**found, "measurements_left": desk.left(task.id)})

    @made.put("/tasks/{name}/answer")
    def answer(name: str, given: Answer) -> Asked:
        """Submit the answer to a task. There is one, and it stays."""
        task = find(name)
        with desk.lock:
            if desk.answered(task.id):
                raise HTTPException(409, f"{name} is answered already")
            if not given.program.strip():
                raise HTTPException(422, "program is empty")
            row = submissions.Submission(task.id, **given.model_dump())
            store.append(desk.answers, json.dumps(asdict(row)))
        return told(task)

    return made


def lender(bench: Bench) -> Lend:
    """Measurements by the request alone: its baseline is what the rules read, as for our agent."""
    from dataclasses import replace

    from engine.diffbench import tasks as every
    from engine.diffbench.foreign import runnable
    from engine.phrasing import by_rules

    last: list[str] = []

    def lend(task: Task, program: str, number: int) -> Mapping[str, Any]:
        asked = replace(task, specification=by_rules(task.request))
        plain = replace(asked, specification=replace(asked.specification, methods={}))
        if last != [task.id]:
            # What programs are compared with belongs to one task.
            bench.close()
            last[:] = [task.id]
        try:
            text = runnable(program)
        except (SyntaxError, ValueError) as error:
            return {"ok": False, "stage": "compile", "reason": str(error)}
        evaluator = bench.evaluator(asked)
        tried = evaluator.attempt(text)
        if not tried.ok:
            told = {"stage": tried.stage, "reason": tried.reason, "traceback": tried.traceback}
            return {"ok": False, **told}
        bench.base(asked, every.reference(plain))
        result = evaluator.evaluate(number, {}, "served", program=text)
        names = ("stage", "reason", "speedup", "speedup_low", "speedup_high", "loss")
        figures = {name: getattr(result, name) for name in (*names, "seconds_per_image")}
        return {"ok": result.ok, **figures}

    return lend


def serve(config: Config, tasks: Sequence[Task], folder: Path) -> None:
    """Serve until it is interrupted; raises UsageError where it cannot begin."""
    bench = config.bench
    ready = [task for task in tasks if task.labelled]
    if config.sandbox != "bwrap" and bench.host not in ("127.0.0.1", "localhost", "::1"):
        raise UsageError(
            f"bench.host={bench.host} would run anybody's programs without a sandbox; type "
            "sandbox=bwrap, or bench.host=127.0.0.1"
        )
    with Bench(config, session.machine_of(config), folder, folder.parent / ".cache") as measuring:
        console.say(f"{len(ready)} tasks at http://{bench.host}:{bench.port}/docs; Ctrl+C ends it")
        console.say(f"answers: {folder / 'answers.jsonl'}; score them with +bench=score")
        service = app(ready, lender(measuring), folder, bench.evaluations)
        uvicorn.run(service, host=bench.host, port=bench.port, log_level="warning")
