"""Which tasks are run: by level, by id, a stratified sample, a share of them on one machine."""

from __future__ import annotations

import re
from collections.abc import Hashable, Sequence
from typing import TYPE_CHECKING, TypeVar

from engine.diffbench.allocation import LEVELS
from engine.diffbench.chance import number
from engine.errors import UsageError

if TYPE_CHECKING:
    from engine.diffbench.tasks import Task
    from engine.schema import BenchConfig

K = TypeVar("K", bound=Hashable)
PIPELINES = {
    "sd15": "SD1.5",
    "sd21": "SD2.1",
    "sdxl": "SDXL",
    "pixart-alpha": "PixArt-alpha",
    "pixart-sigma": "PixArt-Sigma",
    "dit": "DiT",
}


def pipeline_of(task: Task) -> str:
    """The pipeline that a task counts for, by the paper's names (its Fig. 2)."""
    if task.specification.controlnet is not None:
        return "ControlNet"
    model = task.specification.model
    return next(name for begin, name in PIPELINES.items() if model.startswith(begin))


def chosen(tasks: Sequence[Task], bench: BenchConfig) -> list[Task]:
    """The tasks that the configuration asks for, in the order of running them: those of one model
    and baseline side by side. Raises UsageError for what names no task."""
    for level in bench.levels:
        if level not in LEVELS:
            raise UsageError(
                f"bench.levels has {level!r}; levels are 1 to 5, as in bench.levels=[1,2]"
            )
    known = {task.id for task in tasks}
    strange = [name for name in bench.ids if name not in known]
    if strange:
        raise UsageError(
            f"bench.ids has {strange[0]!r}; ids are L1-001 to L5-093, as in bench.ids=[L3-017]"
        )
    found = [t for t in tasks if not bench.levels or t.level in bench.levels]
    found = [t for t in found if not bench.ids or t.id in bench.ids]
    if bench.sample is not None:
        found = sample(found, bench.sample)
    if not found:
        levels = ",".join(map(str, bench.levels))
        raise UsageError(
            f"none of bench.ids is of bench.levels=[{levels}]; leave out one of the two"
        )
    part, parts = shard(bench.shard)
    # A model's worker, and the baseline that programs are timed against, are started once.
    found.sort(key=lambda t: (t.level > 3, t.specification.model, t.baseline or "", t.level, t.id))
    # Whole baselines and models stay together on one machine as far as a share allows.
    size = -(-len(found) // parts)
    mine = found[(part - 1) * size : part * size]
    if not mine:
        raise UsageError(f"bench.shard={bench.shard} holds none of {len(found)} tasks")
    return mine


def shard(text: str) -> tuple[int, int]:
    """ "2/4" as its two numbers; raises UsageError for anything else."""
    match = re.fullmatch(r"(\d+)/(\d+)", text)
    if match is None or not 1 <= int(match[1]) <= int(match[2]):
        raise UsageError(
            f"bench.shard={text!r} is no share; type bench.shard=1/4 for the first of 4"
        )
    return int(match[1]), int(match[2])


def sample(tasks: Sequence[Task], count: int) -> list[Task]:
    """``count`` tasks in proportion to levels, and within a level to pipelines; the difficulties
    of L4 and L5 take turns. The same tasks on every machine."""
    if count >= len(tasks):
        return list(tasks)
    found: list[Task] = []
    for level, share in _shares(_grouped([(t.level, t) for t in tasks]), count):
        cells = _grouped([(pipeline_of(t), t) for t in level])
        taken: list[Task] = []
        for cell, few in _shares(cells, share):
            taken += _turned(cell, few, len(taken) + cell[0].level)
        found += taken
    return found


def _grouped(pairs: Sequence[tuple[K, Task]]) -> dict[K, list[Task]]:
    groups: dict[K, list[Task]] = {}
    for name, task in pairs:
        groups.setdefault(name, []).append(task)
    return groups


def _shares(groups: dict[K, list[Task]], count: int) -> list[tuple[list[Task], int]]:
    """Each group with its part of ``count``, by the largest remainders."""
    whole = sum(map(len, groups.values()))
    exact = {name: count * len(group) / whole for name, group in groups.items()}
    parts = {name: int(share) for name, share in exact.items()}
    # Equal remainders go to the larger group, and then to the one that comes first.
    order = sorted(groups, key=lambda n: (parts[n] - exact[n], -len(groups[n])))
    for name in order[: count - sum(parts.values())]:
        parts[name] += 1
    return [(group, parts[name]) for name, group in groups.items()]


def _turned(tasks: Sequence[Task], count: int, turn: int) -> list[Task]:
    """``count`` of the tasks by their hashes, one difficulty after the other from ``turn`` on.

    Tasks with a target go by the hash of their baseline: a label costs minutes, and this way few
    of them serve a sample.
    """
    rest = sorted(tasks, key=lambda t: (number("sample", t.baseline or t.id), t.id))
    kinds = sorted({t.difficulty or "" for t in rest}, key=("", "easy", "medium", "hard").index)
    found: list[Task] = []
    while len(found) < count:
        wanted = kinds[(turn + len(found)) % len(kinds)]
        task = next((t for t in rest if (t.difficulty or "") == wanted), rest[0])
        rest.remove(task)
        found.append(task)
    return found
