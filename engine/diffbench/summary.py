"""From verdicts to a score: whole numbers and intervals, never a percentage without its count."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

from engine.diffbench import paper
from engine.diffbench.verdicts import ERRORS, OTHERS, PARTS, Conditions, Verdict
from engine.errors import UsageError
from engine.measure.statistics import wilson

LEVELS = (1, 2, 3, 4, 5)
K = TypeVar("K", bound=Hashable)


@dataclass(frozen=True)
class Share:
    """``passed`` of ``count`` with Wilson's 95 % interval (Wilson 1927, JASA 22)."""

    passed: int
    count: int

    @property
    def value(self) -> float | None:
        return self.passed / self.count if self.count else None

    @property
    def interval(self) -> tuple[float, float]:
        """Low and high; 0 and 1 where nothing was counted."""
        return wilson(self.passed, self.count)

    def __str__(self) -> str:
        if self.value is None:
            return "none"
        low, high = self.interval
        figures = f"{100 * self.value:.1f} % ({100 * low:.1f} to {100 * high:.1f})"
        return f"{self.passed} of {self.count}, {figures}"

    def as_json(self) -> dict[str, Any]:
        low, high = self.interval
        return {"passed": self.passed, "of": self.count, "low": low, "high": high}


def share(verdicts: Iterable[Verdict]) -> Share:
    """How many of them passed."""
    listed = list(verdicts)
    return Share(sum(v.passed for v in listed), len(listed))


def conditions(verdicts: Sequence[Verdict]) -> Conditions:
    """What all of them share; raises UsageError where they do not belong together."""
    if not verdicts:
        raise UsageError("there is no verdict to sum up")
    # The one that names its labels, if any does.
    first = next((v for v in verdicts if v.conditions.labels), verdicts[0])
    for other in verdicts:
        why = first.conditions.departs(other.conditions)
        if why is not None:
            raise UsageError(
                f"the verdicts of {first.task} and {other.task} do not belong to one score: {why}; "
                "give each its own bench.name"
            )
    return first.conditions


def summary(verdicts: Sequence[Verdict], left_out: dict[str, str] | None = None) -> dict[str, Any]:
    """The score as JSON. Only the first scoring of every answer counts; further ones tell how
    well verdicts repeat. ``left_out`` are tasks that could not be run here, with the reason."""
    met = conditions(verdicts)
    counted = sorted((v for v in verdicts if v.repeat == 0), key=lambda v: v.task)
    return {
        "conditions": vars(met),
        "citation": paper.CITATION,
        "tasks": len(counted),
        "of": sum(paper.TASKS.values()),
        "left_out": dict(sorted((left_out or {}).items())),
        "all": share(counted).as_json(),
        "levels": _by(counted, lambda v: [v.level]),
        "difficulties": _by(counted, lambda v: [(v.level, v.difficulty)] if v.difficulty else []),
        "pipelines": _by(counted, lambda v: [v.pipeline]),
        "methods": _by(counted, lambda v: v.methods or ["none"]),
        "errors": errors(counted),
        "hard": hard(counted),
        "spent": spent(counted),
        "repeated": repeated(verdicts),
    }


def _by(verdicts: Sequence[Verdict], names: Callable[[Verdict], Iterable[K]]) -> dict[str, Any]:
    """Shares by what a verdict counts for; one may count for several things."""
    groups: dict[K, list[Verdict]] = {}
    for verdict in verdicts:
        for name in names(verdict):
            groups.setdefault(name, []).append(verdict)
    ordered = sorted(groups.items(), key=lambda item: str(item[0]))
    return {_spelt(name): share(group).as_json() for name, group in ordered}


def _spelt(name: Hashable) -> str:
    return f"L{name[0]} {name[1]}" if isinstance(name, tuple) else str(name)


def errors(verdicts: Sequence[Verdict]) -> dict[str, dict[str, int]]:
    """Count of each class by level. One verdict may have two classes, so sums may exceed the
    failures."""
    return {
        name: {
            "all": sum(name in v.errors for v in verdicts),
            **{
                str(level): sum(name in v.errors for v in verdicts if v.level == level)
                for level in LEVELS
            },
        }
        for name in (*ERRORS, *OTHERS)
    }


def hard(verdicts: Sequence[Verdict]) -> dict[str, Any]:
    """S_a: the mean share of the required speed-up over the hard tasks."""
    shares = [v.share for v in verdicts if v.share is not None]
    mean = sum(shares) / len(shares) if shares else None
    return {"count": len(shares), "mean": mean}


def spent(verdicts: Sequence[Verdict]) -> dict[str, Any]:
    """What answers and scoring took, in all and for a task on average; None where nobody said."""
    found: dict[str, Any] = {}
    for name in ("calls", "tokens", "cost", "answer_seconds", "seconds"):
        told = [getattr(v, name) for v in verdicts if getattr(v, name) is not None]
        whole = sum(told) if told else None
        mean = whole / len(told) if whole is not None else None
        found[name] = {"sum": whole, "mean": mean, "told": len(told)}
    for level in LEVELS:
        here = [v for v in verdicts if v.level == level]
        whole = sum(v.seconds + (v.answer_seconds or 0.0) for v in here)
        rate = 3600 * len(here) / whole if whole > 0 else None
        found.setdefault("tasks_per_hour", {})[str(level)] = rate
        found.setdefault("parts", {})[str(level)] = _parts(here)
    return found


def _parts(verdicts: Sequence[Verdict]) -> dict[str, float]:
    """Mean seconds of a scoring by part, of those that were told: ``rest`` is what is left."""
    told = [v for v in verdicts if v.spent]
    if not told:
        return {}
    found = {name: sum(v.spent.get(name, 0.0) for v in told) / len(told) for name in PARTS}
    return found | {"rest": sum(v.seconds for v in told) / len(told) - sum(found.values())}


def pace(found: dict[str, Any]) -> list[tuple[str, ...]]:
    """Rows of tasks an hour and of the seconds that a task takes by part; empty where no level
    took any time."""
    rates, parts = found["spent"]["tasks_per_hour"], found["spent"].get("parts", {})
    levels = [level for level in map(str, LEVELS) if rates.get(level)]
    if not levels:
        return []
    rows = [("", *(f"L{level}" for level in levels))]
    rows.append(("tasks an hour", *(f"{rates[level]:.0f}" for level in levels)))
    for name, words in {**PARTS, "rest": "the rest"}.items():
        seconds = [parts.get(level, {}).get(name) for level in levels]
        if any(seconds):
            shown = ("" if each is None else f"{each:.1f}" for each in seconds)
            rows.append((f"s a task: {words}", *shown))
    return rows


def repeated(verdicts: Sequence[Verdict]) -> dict[str, int] | None:
    """Of the answers that were scored more than once, how many got the same verdict each time."""
    groups: dict[str, list[Verdict]] = {}
    for verdict in verdicts:
        groups.setdefault(verdict.task, []).append(verdict)
    several = [group for group in groups.values() if len(group) > 1]
    if not several:
        return None
    same = sum(len({(v.passed, v.errors) for v in group}) == 1 for group in several)
    return {"answers": len(several), "same": same}


def table(found: dict[str, Any], name: str) -> list[tuple[str, ...]]:
    """Rows of S_p in % by level, with our counts, above the paper's."""
    head = ("", *(f"L{level}" for level in LEVELS), "all", "S_a hard")
    ours = [_cell(found["levels"].get(str(level))) for level in LEVELS]
    mean = found["hard"]["mean"]
    own = (name, *ours, _cell(found["all"]), "" if mean is None else f"{100 * mean:.2f}")
    rows = [
        (
            f"{row.name} *",
            *(f"{value:.2f}" for value in row.levels),
            f"{row.whole:.2f}",
            "" if row.hard is None else f"{row.hard:.2f}",
        )
        for row in paper.ROWS
    ]
    return [head, own, *rows]


def _cell(part: dict[str, Any] | None) -> str:
    if part is None or part["of"] == 0:
        return ""
    return f"{100 * part['passed'] / part['of']:.2f} ({part['passed']}/{part['of']})"


def counted(count: int) -> str:
    """A number of tasks in words."""
    return f"{count} task" if count == 1 else f"{count} tasks"


def words(found: dict[str, Any]) -> list[str]:
    """The lines that must stand beside a score."""
    met = found["conditions"]
    memory = " Memory shared between tasks." if met["memory"] == "shared" else ""
    lines = [
        f"DiffBench {met['version']}: {_words(found['all'])} of the {found['tasks']} tasks scored "
        f"(of {found['of']}).",
        f"Answers by {met['contestant']}; weights={met['weights']}, labels="
        f"{met['labels'] or 'none'}, machine {met['machine']}, each answer scored "
        f"{met['repeats']} time{'s' if met['repeats'] > 1 else ''}, captions {met['captions']}."
        f"{memory}",
    ]
    if found["left_out"]:
        count = len(found["left_out"])
        are = "is" if count == 1 else "are"
        lines.append(f"{counted(count)} could not be run here and {are} not counted.")
    if found["repeated"]:
        same = found["repeated"]
        lines.append(f"Scored again: the same verdict for {same['same']} of {same['answers']}.")
    lines.append(f"* {paper.MARK} ({paper.CITATION}).")
    return lines


def _words(part: dict[str, Any]) -> str:
    return str(Share(part["passed"], part["of"]))


def markdown(found: dict[str, Any], command: str) -> str:
    """The summary as a page to commit: what was run, the table, the errors."""
    name = found["conditions"]["contestant"]
    rows = table(found, name)
    text = [f"`{command}`", "", *words(found), "", *_markdown(rows), ""]
    classes = [("error", "all", *(f"L{level}" for level in LEVELS))]
    classes += [
        (kind, *(str(counts[key]) for key in ("all", *map(str, LEVELS))))
        for kind, counts in found["errors"].items()
    ]
    text += [*_markdown(classes), ""]
    if rows := pace(found):
        text += [*_markdown(rows), ""]
    if versions := found.get("versions"):
        text += [", ".join(f"{name} {number}" for name, number in versions.items()) + ".", ""]
    return "\n".join(text)


def _markdown(rows: Sequence[Sequence[str]]) -> list[str]:
    head, *rest = rows
    rule = ["---", *["---:"] * (len(head) - 1)]
    return [f"| {' | '.join(row)} |" for row in (head, rule, *rest)]
