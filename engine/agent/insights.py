"""What earlier studies of the same model on the same kind of machine found out about each gene.

Read from the trials' files, so a study of last week informs the one of today. These are averages
of what searches chose to try, not controlled experiments, and the planner is told so.
"""

from __future__ import annotations

import json
import math
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from engine import results
from engine.errors import UsageError
from engine.results import Result
from engine.search import ledger
from engine.search.archive import measured

LEAST = 2
"""Trials with a value, and without it, from which an effect is told."""
MOST = 24
"""Effects that are told, the largest first."""
STUDIES = 12
"""Newest studies that are read."""


@dataclass(frozen=True)
class Effect:
    """What one value (or a whole technique, where ``gene`` is "") did, over several studies.

    ``speed`` is the factor on the speed-up, ``loss`` the difference of the losses (a fraction),
    against the trials of the same study without it (for a value: with another value of its gene);
    ``trials`` how many had it, ``failed`` how many of them failed.
    """

    technique: str
    gene: str
    value: str
    speed: float
    loss: float | None
    trials: int
    failed: int

    def __str__(self) -> str:
        what = f"{self.technique}.{self.gene}={self.value}" if self.gene else f"{self.technique} on"
        words = f"- {what}: speed {self.speed:.2f}x"
        words += "" if self.loss is None else f", loss {100 * self.loss:+.1f} points"
        words += f" ({self.trials} trials"
        return words + (f", {self.failed} failed)" if self.failed else ")")


def earlier(
    sweeps: Path, own: str | None, model: Mapping[str, Any], profile: str, objective: str
) -> list[list[Result]]:
    """The searched trials of each earlier study of this model, weights, machine profile and
    objective, newest study first; the study ``own`` and damaged ones are left out."""
    found = []
    if not sweeps.is_dir():
        return []
    for folder in sorted(sweeps.iterdir(), key=lambda p: p.name):
        path = folder / "study.json"
        if folder.name == own or not path.is_file():
            continue
        try:
            study = json.loads(path.read_text(encoding="utf-8"))
            same = study["objective"] == objective and _profile(study["machine"]) == profile
            same = same and all(study["model"][k] == model[k] for k in ("name", "weights"))
            if same:
                told = [_searched(folder, r) for r in ledger.results(folder)]
                found.append((str(study["started"]), told))
        except (ValueError, KeyError, TypeError, OSError, UsageError):
            # A study of an older version or a damaged file tells nothing; it must not stop this.
            continue
    found.sort(key=lambda f: f[0], reverse=True)
    return [told for _, told in found[:STUDIES]]


def _profile(machine: Mapping[str, Any]) -> str:
    from engine.hardware import Machine

    known = Machine.__dataclass_fields__
    return Machine(**{name: value for name, value in machine.items() if name in known}).profile()


def _searched(folder: Path, result: Result) -> Result:
    """What the search saw of a trial that was measured again at acceptance."""
    path = folder / str(result.trial) / "search.json"
    return results.load(path) if path.exists() else result


def effects(studies: Iterable[Sequence[Result]]) -> list[Effect]:
    """Effects of techniques and of their values, the strongest first."""
    pooled: dict[tuple[str, str, str], list[tuple[float, float | None, int, int]]]
    pooled = defaultdict(list)
    for told in studies:
        able = [r for r in told if measured(r)]
        for name in sorted({n for r in told for n in r.genome}):
            having = [r for r in told if name in r.genome]
            _compare(pooled, (name, "", ""), having, [r for r in able if name not in r.genome])
            for gene in sorted({g for r in having for g in r.genome[name]}):
                for value in sorted({r.genome[name][gene] for r in having}, key=str):
                    own = [r for r in having if r.genome[name][gene] == value]
                    rest = [r for r in having if r.genome[name][gene] != value and measured(r)]
                    _compare(pooled, (name, gene, str(value)), own, rest)
    found = [_effect(key, rows) for key, rows in pooled.items()]
    return sorted(found, key=lambda e: (-_strength(e), e.technique, e.gene, e.value))[:MOST]


def words(found: Sequence[Effect]) -> str:
    """The effects as lines; "" where nothing is known."""
    if not found:
        return ""
    head = (
        "Averages over what those searches tried, against the rest of the same study; other genes "
        "differed too."
    )
    return "\n".join([head, *map(str, found)])


def _compare(
    pooled: dict[tuple[str, str, str], list[tuple[float, float | None, int, int]]],
    key: tuple[str, str, str],
    having: Sequence[Result],
    rest: Sequence[Result],
) -> None:
    able = [r for r in having if measured(r)]
    if len(able) < LEAST or len(rest) < LEAST:
        return
    speed = _mean([_log(r) for r in able]) - _mean([_log(r) for r in rest])
    losses = [[r.loss for r in group if r.loss is not None] for group in (able, rest)]
    loss = _mean(losses[0]) - _mean(losses[1]) if all(losses) else None
    pooled[key].append((speed, loss, len(able), len(having) - len(able)))


def _effect(
    key: tuple[str, str, str], rows: Sequence[tuple[float, float | None, int, int]]
) -> Effect:
    """The studies' effects, weighed by their trials."""
    weight = sum(row[2] for row in rows)
    speed = sum(row[0] * row[2] for row in rows) / weight
    known = [(row[1], row[2]) for row in rows if row[1] is not None]
    loss = sum(x * n for x, n in known) / sum(n for _, n in known) if known else None
    return Effect(*key, math.exp(speed), loss, weight, sum(row[3] for row in rows))


def _strength(effect: Effect) -> float:
    """1 % of loss weighs like 10 % of speed."""
    return abs(math.log(effect.speed)) + 10 * abs(effect.loss or 0.0)


def _log(result: Result) -> float:
    assert result.speedup is not None
    return math.log(result.speedup)


def _mean(values: Sequence[float]) -> float:
    return sum(values) / len(values)
