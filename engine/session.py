"""One evaluator a process and study: its workers and its baseline stay warm between jobs.

Hydra's basic launcher runs a sweep's jobs in the controller's own process, other launchers run
them elsewhere; in either place the next job finds the evaluator that the last one left.
"""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import TYPE_CHECKING

from engine import goal as goals
from engine.evaluate import Evaluator
from engine.results import Result
from engine.schema import Config
from engine.search.ledger import Results

if TYPE_CHECKING:
    from engine.hardware import Machine

_open: dict[Path, Evaluator] = {}
_told: dict[Path, Results] = {}
# The one module state besides the registry: a job has no other way to reach what its process holds.


def machine_of(config: Config) -> Machine:
    """The machine as the configuration wants it used; refuses a profile that contradicts it."""
    from engine import hardware

    machine = hardware.inspect(config.hw.device)
    hardware.require(config.hw, machine)
    return hardware.permitted(config.hw, machine)


def evaluator(config: Config, folder: Path) -> Evaluator:
    """The evaluator of a study's folder in this process, made on first use."""
    folder = folder.resolve()
    if folder not in _open:
        goal = dataclasses.asdict(config.goal)

        def enough(result: Result) -> str | None:
            return goals.beaten(result, told(folder).read(), goal)

        _open[folder] = Evaluator(
            config,
            machine_of(config),
            folder,
            enough=enough if goals.asks_speed(goal) else None,
        )
    return _open[folder]


def told(folder: Path) -> Results:
    """What has been told in a study's folder; unchanged files are read once a process."""
    return _told.setdefault(folder.resolve(), Results(folder))


def close() -> None:
    """Kill all workers of this process."""
    while _open:
        _open.popitem()[1].close()
    _told.clear()
