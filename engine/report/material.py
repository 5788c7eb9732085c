"""What a report is made from: the files of a study's or a run's folder, read and typed."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from engine.errors import UsageError
from engine.goal import within_goal
from engine.results import Genome, Result, load, row


@dataclass(frozen=True)
class Point:
    """A row of ``front.json`` with the figures against ``plain`` and the goal's verdict."""

    trial: int
    genome: Genome
    speedup: float | None = None
    speedup_low: float | None = None
    speedup_high: float | None = None
    speedup_paper: float | None = None
    speedup_plain: float | None = None
    speedup_plain_low: float | None = None
    speedup_plain_high: float | None = None
    loss: float | None = None
    loss_low: float | None = None
    loss_high: float | None = None
    accuracy: float | None = None
    accuracy_base: float | None = None
    memory_gib: float | None = None
    cost_flops: float | None = None
    seconds_per_image: float | None = None
    seconds_p95: float | None = None
    images_per_second: float | None = None
    loss_worst: float | None = None
    first_call_s: float | None = None
    recompilations: int | None = None
    break_even: float | None = None
    program: str | None = None
    command: str | None = None
    meets_goal: bool = False
    recommended: bool | None = None
    """Whether the study hands this one over; None where it was made before it said so."""


@dataclass(frozen=True)
class Material:
    """Everything that a page shows; ``folders`` maps a trial to where its pictures lie."""

    folder: Path
    study: Mapping[str, Any]
    points: tuple[Point, ...]
    trials: tuple[Result, ...]
    folders: Mapping[int, Path]
    searched: tuple[Result, ...] = ()
    """The trials as the search measured them, before any was measured again for the front."""
    unreadable: tuple[str, ...] = ()
    single: bool = False
    """Whether this is one composition's run and no search."""

    @property
    def goal(self) -> Mapping[str, Any]:
        goal: Mapping[str, Any] = self.study.get("goal") or {}
        return goal

    def label(self, number: int) -> str:
        """How the page names a trial: ``#7``; a run has only one composition and no number."""
        return "result" if self.single else f"#{number}"

    @cached_property
    def numbered(self) -> Mapping[int, Result]:
        return {t.trial: t for t in self.trials}

    def trial(self, number: int) -> Result | None:
        return self.numbered.get(number)


def points(front: Mapping[str, Any]) -> tuple[Point, ...]:
    """The rows of a ``front.json``, fastest first; unknown keys are left aside."""
    known = {f.name for f in dataclasses.fields(Point)}
    found = [
        Point(**{key: item for key, item in entry.items() if key in known})
        for entry in front.get("front", ())
    ]
    return tuple(sorted(found, key=lambda p: -(p.speedup or 0.0)))


def recommended(found: Sequence[Point]) -> Point | None:
    """The point that the study hands over, or None: the fastest within the goal, or the surest
    where the goal asks for something. A study that does not say which hands over the fastest."""
    return next(
        (
            p
            for p in found
            if p.speedup is not None and (p.meets_goal if p.recommended is None else p.recommended)
        ),
        None,
    )


def starts(points: Sequence[Point]) -> bool:
    """Whether a first call or a break-even is known for any of the points."""
    return any(p.first_call_s is not None or (p.break_even or 0) > 0 for p in points)


def _json(path: Path, what: str) -> Any:
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise UsageError(f"no {path.name} in {path.parent}: give the folder of {what}") from None
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        raise UsageError(f"{path} is damaged ({error}): restore it or run again") from None


def read_front(folder: Path, *, needed: bool = True) -> tuple[dict[str, Any], dict[str, Any]]:
    """The contents of study.json and front.json; the front is empty where there is none yet and
    none is ``needed``. Raises UsageError."""
    study: dict[str, Any] = _json(folder / "study.json", "a study")
    if not needed and not (folder / "front.json").exists():
        return study, {}
    return study, _json(folder / "front.json", "a finished study")


def read_study(folder: Path) -> Material:
    """Read ``study.json``, ``front.json`` and every ``<trial>/result.json`` of a folder.

    Raises UsageError when study.json or front.json cannot be read. A damaged trial is named in
    ``unreadable`` and costs only itself; without a front.json the front is empty.
    """
    study, front = read_front(folder, needed=False)
    trials, searched, folders, unreadable = [], [], {}, []
    for path in folder.glob("*/result.json"):
        if not path.parent.name.isdecimal():
            continue
        try:
            result = load(path)
            before = path.with_name("search.json")
            first = load(before) if before.exists() else result
        except (ValueError, OSError) as error:
            unreadable.append(str(error))
            continue
        trials.append(result)
        searched.append(first)
        folders[result.trial] = path.parent
    return Material(
        folder=folder,
        study=study,
        points=points(front),
        trials=tuple(sorted(trials, key=lambda t: t.trial)),
        folders=folders,
        searched=tuple(sorted(searched, key=lambda t: t.trial)),
        unreadable=tuple(sorted(unreadable)),
    )


def read_run(folder: Path) -> Material:
    """Read ``run.json`` and ``result.json`` of one composition; raises UsageError.

    The result becomes the only point. Its figure against ``plain`` is the product of the two
    speed-ups, with the products of the bounds as a cautious interval.
    """
    study = _json(folder / "run.json", "a run")
    if not (folder / "result.json").exists():
        raise UsageError(f"no result.json in {folder}: give the folder of a run that ended")
    try:
        result = load(folder / "result.json")
    except ValueError as error:
        raise UsageError(f"{error}: restore it or run again") from None
    found: tuple[Point, ...] = ()
    if result.ok:
        more = _against_plain(result, study.get("plain") or {}) | {
            "accuracy": result.accuracy,
            "accuracy_base": result.accuracy_base,
            "command": study.get("command"),
            "meets_goal": within_goal(result, study.get("goal") or {}),
        }
        found = points({"front": [row(result, **more)]})
    return Material(folder, study, found, (result,), {result.trial: folder}, single=True)


def _against_plain(result: Result, plain: Mapping[str, Any]) -> dict[str, float | None]:
    figures: dict[str, float | None] = {}
    for end in ("", "_low", "_high"):
        own: float | None = getattr(result, f"speedup{end}")
        other: float | None = plain.get(f"ratio{end}")
        known = own is not None and other is not None
        figures[f"speedup_plain{end}"] = own * other if known and own and other else None
    return figures
