"""What ``+bench=`` asks for: a run, the scoring of a file, the requests, a server."""

from __future__ import annotations

import json
import shlex
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from engine import console, files, interrupt, results, session
from engine.diffbench import page, selection, store, submissions, summary
from engine.diffbench.bench import Bench, unavailable
from engine.diffbench.contestants import Contestant, References, Rules, Submitted
from engine.diffbench.runner import Run
from engine.diffbench.targets import Targets
from engine.diffbench.verdicts import Conditions, Verdict
from engine.errors import UsageError

if TYPE_CHECKING:
    from engine.diffbench.tasks import Task
    from engine.schema import Config

CACHE = ".cache"
"""Folder beside the runs for references that all of them share."""


def run(config: Config, folder: Path, arguments: Sequence[str]) -> dict[str, float] | None:
    """Do what ``bench.do`` says in ``folder``, which is ``<outputs>/bench/<name>``."""
    targets = Targets.of(config.bench.labels)
    chosen = selection.chosen(targets.tasks(), config.bench)
    if config.bench.do == "export":
        _export(chosen, folder)
        return None
    if config.bench.list:
        _list(chosen, folder, config.bench.shard)
        return None
    if config.bench.do == "serve":
        try:
            from engine.diffbench.serve import serve
        except ImportError as error:
            raise UsageError(
                f"+bench=serve needs {error.name}: pip install -e '.[serve]'"
            ) from None

        serve(config, chosen, folder)
        return None
    contestant = _contestant(config, targets)
    if isinstance(contestant, Submitted):
        chosen = [task for task in chosen if contestant.has(task.id)]
        if not chosen:
            raise UsageError("bench.submissions answers none of the tasks that were asked for")
    return _score(config, targets, chosen, contestant, folder, arguments)


def _export(chosen: Sequence[Task], folder: Path) -> None:
    ready = [task for task in chosen if task.labelled]
    path = folder / "requests.jsonl"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(submissions.export(ready), encoding="utf-8")
    console.say(f"{len(ready)} requests: {path}")
    _say_unlabelled(len(chosen) - len(ready))


def _list(chosen: Sequence[Task], folder: Path, shard: str) -> None:
    from engine.diffbench.tasks import text

    path = folder / store.named("tasks", shard)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text(chosen), encoding="utf-8")
    console.say(f"{summary.counted(len(chosen))}: {path}")


def _say_unlabelled(count: int) -> None:
    if count:
        console.say(f"left out: {summary.counted(count)} of L4 and L5; they need bench.labels=NAME")


def _contestant(config: Config, targets: Targets) -> Contestant:
    if config.bench.do == "score":
        if config.bench.submissions is None:
            raise UsageError("+bench=score needs bench.submissions=FILE; docs/diffbench-run.md")
        from engine.diffbench.tasks import tasks

        path = Path(config.bench.submissions).expanduser()
        found = submissions.read(path, {task.id for task in tasks()})
        return Submitted(f"submissions {path.name}", found)
    if config.bench.contestant == "rules":
        return Rules()
    if config.bench.contestant == "reference":
        return References(targets)
    from engine.diffbench.agents import Agent

    return Agent(config)


def _score(
    config: Config,
    targets: Targets,
    chosen: Sequence[Task],
    contestant: Contestant,
    folder: Path,
    arguments: Sequence[str],
) -> dict[str, float]:
    machine = session.machine_of(config)
    left_out = {
        task.id: why
        for task in chosen
        if (why := targets.missing(task) or unavailable(task, config.bench.weights))
    }
    runnable = [task for task in chosen if task.id not in left_out]
    for why in sorted(set(left_out.values())):
        console.say(f"left out: {summary.counted(list(left_out.values()).count(why))}, {why}")
    if (warning := targets.foreign(machine)) and any(task.level > 3 for task in runnable):
        console.say(f"warning: {warning}")
    if not runnable:
        raise UsageError(f"none of {summary.counted(len(chosen))} can be run here; see above")
    met = Conditions(
        version=runnable[0].version,
        labels=targets.name if any(task.level > 3 for task in runnable) else None,
        weights=config.bench.weights,
        machine=machine.profile(),
        repeats=config.bench.repeats,
        contestant=contestant.name,
        memory=config.bench.memory,
        captions="own" if config.bench.captions is None else Path(config.bench.captions).name,
    )
    cache = folder.parent / CACHE
    _list(chosen, folder, config.bench.shard)
    line = shlex.join(["python", "-m", "engine", *arguments])
    try:
        with interrupt.recognised(), Bench(config, machine, folder, cache) as bench:

            def scored(task: Task, program: str, repeat: int) -> Verdict:
                from engine.diffbench.stages import score

                goal = targets.goal(task)
                return score(task, program, bench, targets.reference(task), goal, repeat)

            shard, minutes = config.bench.shard, config.bench.minutes
            verdicts = Run(folder, runnable, contestant, scored, met, shard, minutes).go()
    except KeyboardInterrupt:
        console.say(f"\ninterrupted; this goes on with the task that was in work:\n  {line}")
        raise
    # Verdicts of earlier commands under this name may be of other tasks.
    return _summed_up(verdicts, targets.tasks(), left_out, folder, line, machine.versions)


def _summed_up(
    verdicts: Sequence[Verdict],
    tasks: Sequence[Task],
    left_out: dict[str, str],
    folder: Path,
    command: str,
    versions: Mapping[str, str],
) -> dict[str, float]:
    if not verdicts:
        raise UsageError("no task has been scored yet; give bench.minutes more time")
    found = summary.summary(verdicts, left_out)
    found |= {"command": command, "versions": dict(versions)}
    results.write_json(folder / "summary.json", json.loads(json.dumps(found)))
    text = summary.markdown(found, command)
    files.write_text(folder / "summary.md", text)
    scores = "".join(f"{verdict.short_line()}\n" for verdict in verdicts)
    files.write_text(folder / "scores.jsonl", scores)
    written = page.write(folder, verdicts, {t.id: t for t in tasks}, found, command)
    console.show(_table(found))
    for line in summary.words(found):
        console.say(line)
    console.say(f"report:  {written}")
    return {"passed": float(found["all"]["passed"]), "tasks": float(found["all"]["of"])}


def _table(found: dict[str, object]) -> object:
    from rich import box
    from rich.table import Table

    conditions = found["conditions"]
    assert isinstance(conditions, dict)
    head, *rows = summary.table(found, str(conditions["contestant"]))
    shown = Table(box=box.SIMPLE_HEAD, padding=0, show_edge=False)
    for number, name in enumerate(head):
        first = number == 0
        shown.add_column(
            name.replace(" ", "\n"),
            justify="left" if first else "right",
            # What is left of 80 columns when every level was run whole.
            width=26 if first else None,
            no_wrap=not first,
        )
    for row in rows:
        # Our counts stand below their shares.
        shown.add_row(row[0], *(cell.replace(" (", "\n").rstrip(")") for cell in row[1:]))
    return shown
