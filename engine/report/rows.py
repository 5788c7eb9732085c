"""The rows of the page's tables: the front, its workload, failures, and the trials."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import median
from typing import Any

from engine.goal import within_goal
from engine.report import genealogy, text
from engine.report.drawing import both, markup
from engine.report.material import Material, Point, starts
from engine.results import Result, Sample

TRIALS = 500
"""Rows of the table of trials; a longer study shows its most telling ones."""
FAILURES = 20
"""Different failures that are listed."""
NAMED = 12
"""Trials that are named for one failure."""
REASON = 160
"""Characters of a failure's reason in the short list; the table of trials has it whole."""


def front(material: Material, best: Point | None) -> list[dict[str, Any]]:
    """The rows of the front, fastest first."""
    return [_row(material, p, p is best) for p in material.points]


def _row(material: Material, point: Point, best: bool) -> dict[str, Any]:
    result = material.trial(point.trial)
    base = result.cost_base_flops if result else None
    share = point.cost_flops / base if base and point.cost_flops is not None else None
    return {
        "point": point,
        "best": best,
        "speedup": text.ratio_interval(point.speedup_low, point.speedup_high),
        "plain": text.ratio_interval(point.speedup_plain_low, point.speedup_plain_high),
        "loss": text.percent_interval(point.loss_low, point.loss_high),
        "cost_share": share,
        "pays": text.images(point.break_even, point.speedup),
        "latency": _latency(result.samples if result else (), "candidate"),
    }


def columns(material: Material) -> dict[str, bool]:
    """Which of the optional columns have anything to show."""
    return {
        "start": starts(material.points),
        "workload": bool(material.study.get("workload")),
        "accuracy": any(p.accuracy is not None for p in material.points),
    }


def _requests(samples: Sequence[Sample], arm: str) -> list[float]:
    # Seconds are those of the whole request, so that of a batch only one image counts.
    return [s.seconds for s in samples if s.arm == arm and s.index == 0 and s.clocked]


def _latency(samples: Sequence[Sample], arm: str) -> float | None:
    seconds = _requests(samples, arm)
    return median(seconds) if seconds else None


def shapes(material: Material, point: Point | None) -> dict[str, Any] | None:
    """How the point does on each shape of the workload; None without a workload or samples."""
    workload = material.study.get("workload")
    result = material.trial(point.trial) if point else None
    if not workload or result is None or point is None:
        return None
    by_shape: dict[tuple[Any, ...], list[Sample]] = defaultdict(list)
    for sample in result.samples:
        by_shape[(sample.height, sample.width, sample.batch)].append(sample)
    total = sum(float(s.get("weight", 1)) for s in workload.get("shapes", ())) or 1.0
    found = []
    for shape in workload.get("shapes", ()):
        samples = by_shape.get((shape["height"], shape["width"], shape.get("batch", 1)), [])
        base, own = _latency(samples, "base"), _latency(samples, "candidate")
        found.append(
            {
                "words": f"{shape['width']} x {shape['height']}, batch {shape.get('batch', 1)}",
                "share": float(shape.get("weight", 1)) / total,
                "requests": len(_requests(samples, "candidate")),
                "base": base,
                "own": own,
                "ratio": base / own if base and own else None,
            }
        )
    return {"name": workload.get("name"), "label": material.label(point.trial), "rows": found}


@dataclass(frozen=True)
class Failure:
    """Trials that failed for the same reason."""

    stage: str
    reason: str
    trials: tuple[int, ...]

    @property
    def named(self) -> tuple[int, ...]:
        return self.trials[:NAMED]


def failures(trials: Sequence[Result]) -> list[Failure]:
    """Failed trials by stage and first line of the reason, the most frequent first."""
    groups: dict[tuple[str, str], list[int]] = defaultdict(list)
    for trial in trials:
        if not trial.ok:
            stage = trial.stage or "unknown stage"
            groups[(stage, _first_line(trial.reason))].append(trial.trial)
    found = [Failure(stage, reason, tuple(n)) for (stage, reason), n in groups.items()]
    return sorted(found, key=lambda f: (-len(f.trials), f.trials[0]))


def _first_line(reason: str | None) -> str:
    line = (reason or "no reason was recorded").strip().partition("\n")[0]
    return line if len(line) <= REASON else line[:REASON].rstrip() + " \u2026"


def families(material: Material, best: Point | None) -> list[dict[str, Any]]:
    """The genealogy of each point of the front, the recommended one first."""
    if material.single:
        return []
    ordered = sorted(material.points, key=lambda p: p is not best)
    return [_family(material, p) for p in ordered if p.trial in material.numbered]


def _family(material: Material, point: Point) -> dict[str, Any]:
    known = material.numbered
    found = genealogy.family(known, point.trial)
    drawn = markup(both(lambda size: genealogy.drawing(found, known, size)))
    return {"point": point, "family": found, "drawing": drawn}


def listed(material: Material, families: Sequence[Mapping[str, Any]]) -> tuple[Result, ...]:
    """The trials of the table: all of them, or of a long study the front, the compositions that
    it came from, and then the fastest within the goal before all others."""
    if len(material.trials) <= TRIALS:
        return material.trials
    first = {p.trial for p in material.points}
    first |= {r.trial for item in families for r in item["family"].members}

    def place(trial: Result) -> tuple[bool, bool, float, int]:
        inside = within_goal(trial, material.goal)
        return (trial.trial not in first, not inside, -(trial.speedup or 0.0), trial.trial)

    chosen = sorted(material.trials, key=place)[:TRIALS]
    return tuple(sorted(chosen, key=lambda t: t.trial))
