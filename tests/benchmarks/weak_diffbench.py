"""The weak programmer answers DiffBench: alone, in the paper's loop, with the whole agent.

    python -m tests.benchmarks.weak_diffbench alone          paper and full likewise
    python -m engine +bench=score bench.submissions=outputs/bench/weak/alone.jsonl \\
        bench.name=weak-alone hw.threads=1

The first writes a submissions file, one line a task of levels 1 to 3 in the sample of 60, and goes
on with those that are missing; the second judges it as anybody's. *Alone* is one shot at the
request: no template, no look at the program, no check. In the other two the model writes every
program, as the paper's does. Who has no program after all its repairs submits its last reason,
which is no Python: that counts as *compile*. Nothing is timed. Who the weak programmer is stands in
``tests/agent/weak.py``.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path

from engine import session
from engine.agent.asked import plan_of, stands_for
from engine.agent.llm import FormatFailure, Request
from engine.agent.opening import Task, briefing
from engine.agent.roles import Coder, program_of
from engine.config import from_mapping
from engine.diffbench import selection, store
from engine.diffbench.agents import Agent, composed
from engine.diffbench.bench import unavailable
from engine.diffbench.submissions import Submission
from engine.diffbench.tasks import subject, tasks
from engine.errors import TrialError, line
from engine.evaluate import Evaluator
from engine.phrasing import by_rules
from engine.schema import Config
from engine.specification import Specification
from tests.agent.weak import WeakProgrammer

VARIANTS = {
    "alone": (),
    "paper": ("agent=paper",),
    "full": ("agent.writes=always",),
}
"""Overrides of each contestant."""

Answers = Callable[[str, str, Path], Submission]


def programmer(asked: Specification) -> WeakProgrammer:
    """The weak programmer, whose luck is that of the request."""
    seed = sum(asked.request.encode())
    return WeakProgrammer(subject(asked), seed)


def alone(config: Config) -> Answers:
    """Answers in one shot, from the plan that the request states."""
    agent = Agent(config)

    def answer(task: str, request: str, folder: Path) -> Submission:
        started = time.monotonic()
        asked = by_rules(request)
        own = agent.composed(asked)
        stated = Task(asked, stands_for(asked, own.model.name, own.model.weights))
        with Evaluator(own, session.machine_of(own), folder) as evaluator:
            brief = briefing(own, evaluator, folder, stated)
        model = programmer(asked)
        messages = Coder(model, brief, knowledge=False).messages(plan_of(asked), "", "", ())
        reply = model.complete(Request("coder", messages))
        try:
            program = program_of(reply.text, reply.finish)
        except FormatFailure as failure:
            program = f"no program: {failure}"
        tokens = reply.usage.input_tokens + reply.usage.output_tokens
        return Submission(task, program, 1, tokens, 0.0, time.monotonic() - started)

    return answer


def with_agent(config: Config) -> Answers:
    """Answers of the agent whose model is the weak programmer."""
    agent = Agent(config, programmer)

    def answer(task: str, request: str, folder: Path) -> Submission:
        started = time.monotonic()
        try:
            return agent.answer(task, request, folder)
        except TrialError as error:
            seconds = time.monotonic() - started
            return Submission(task, f"no program: {line(error)}", seconds=seconds)

    return answer


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("variant", choices=sorted(VARIANTS))
    parser.add_argument("--sample", type=int, default=60)
    parser.add_argument("--levels", type=int, nargs="+", default=[1, 2, 3])
    parser.add_argument("--folder", type=Path, default=Path("outputs/bench/weak"))
    given = parser.parse_args(arguments)
    run = ("+bench=diffbench", f"bench.sample={given.sample}", "hw.threads=1")
    config = from_mapping(composed([*run, *VARIANTS[given.variant]]))
    answer = alone(config) if given.variant == "alone" else with_agent(config)
    path: Path = given.folder / f"{given.variant}.jsonl"
    path.parent.mkdir(parents=True, exist_ok=True)
    held = {row["id"] for _, row in store.lines(path)}
    chosen = selection.chosen(tasks(), config.bench)
    mine = [task for task in chosen if task.level in given.levels]
    able = [task for task in mine if not unavailable(task, config.bench.weights)]
    for number, task in enumerate(able, 1):
        if task.id not in held:
            folder = (given.folder / given.variant / task.id).resolve()
            found = answer(task.id, task.request, folder)
            store.append(path, json.dumps(vars(found)))
            told = f"{found.calls} calls, {found.seconds or 0:.0f} s"
            print(f"[{number}/{len(able)}] {task.id} {told}", file=sys.stderr, flush=True)
    print(f"{len(able)} answers: {path}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
