"""Targets of L4 and L5: sets of labels, and what they make of the tasks.

A label is the fastest program that the frozen labeller (:mod:`engine.diffbench.labeller`) found for
a baseline within the allowed loss, as it was measured again on what its tasks are scored on.
*Medium* is :data:`MARGIN` of the lower end of that speed-up, *easy* and *hard* are shares of it.
A set belongs to one kind of machine and to one version of the tasks; it lies in
``data/labels/NAME.json``.

    python -m engine.diffbench.labels name=NAME                       all baselines, or go on
    python -m engine.diffbench.labels name=NAME 'baselines=[sd15-512,sd15-512-keep30]'
"""

from __future__ import annotations

import dataclasses
import json
import math
import sys
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from engine.diffbench import baselines, phrases
from engine.diffbench.chance import pick
from engine.diffbench.details import VERSION
from engine.diffbench.tasks import DATA, Task
from engine.errors import UsageError
from engine.results import Genome, write_json
from engine.specification import Target
from engine.strategy import nearest

FOLDER = DATA / "labels"
MARGIN = 0.93
"""Medium as a share of the lower end of the confirmed speed-up: the best of many noisy numbers is
no target that anyone could meet twice."""
FACTORS = {"easy": 0.8, "medium": 1.0, "hard": 1.2}
"""Target as a share of medium (the paper's differences of difficulty); a hard one may have no
solution."""


@dataclass(frozen=True)
class Label:
    """The best that the labeller found for one baseline, measured again as its tasks are scored.

    Speed-ups are against the baseline, ``loss`` is a share, times are medians in seconds an image.
    """

    genome: Genome
    speedup: float
    speedup_low: float
    speedup_high: float
    loss: float
    seconds: float
    seconds_base: float
    searched: float
    """The speed-up that the search saw."""
    passed_over: int
    """Faster candidates that lost too much, or failed, when they were measured again."""
    evaluations: int
    notes: tuple[str, ...] = ()

    @property
    def medium(self) -> float:
        """The speed-up that a medium task asks for, before rounding."""
        return MARGIN * self.speedup_low

    def _factor(self, difficulty: str) -> float:
        """A program that is slower than the baseline answers no request."""
        return max(1.0, FACTORS[difficulty] * self.medium)

    def speedup_for(self, difficulty: str) -> float:
        """The speed-up that a task asks for, down to two decimals, as its request says it."""
        return math.floor(100 * self._factor(difficulty) + 1e-9) / 100

    @property
    def said_base(self) -> float:
        """The baseline's seconds an image to three digits, as a request says them."""
        return float(f"{self.seconds_base:.3g}")

    def seconds_for(self, difficulty: str) -> float:
        """The seconds an image that a task allows, up to three digits: the baseline's time over
        the speed-up. A time measured later counts as its share of the baseline's time then,
        because a machine's own speed drifts."""
        exact = self.seconds_base / self._factor(difficulty)
        unit: float = 10.0 ** (math.floor(math.log10(exact)) - 2)
        return min(float(f"{math.ceil(exact / unit - 1e-9) * unit:.6g}"), self.said_base)


@dataclass(frozen=True)
class Labels:
    """A set of labels with what it holds for.

    ``settings`` are the labeller's, ``marks`` say in words where they are not the frozen ones, or
    where no time was measured; ``failed`` gives baselines without a label and the reason.
    """

    name: str
    version: str
    objective: str
    weights: str
    hw: str
    machine: Mapping[str, Any]
    settings: Mapping[str, Any]
    marks: tuple[str, ...] = ()
    labels: Mapping[str, Label] = field(default_factory=dict)
    failed: Mapping[str, str] = field(default_factory=dict)

    def of(self, task: Task) -> Label | None:
        """The label of a task's baseline, if there is one."""
        return self.labels.get(task.baseline or "")

    def target(self, task: Task) -> Target | None:
        """What the task asks for; None for L1 to L3 and for a baseline without a label."""
        label = self.of(task)
        if label is None or task.difficulty is None:
            return None
        if task.level == 4:
            return Target("speedup", label.speedup_for(task.difficulty))
        return Target("seconds", label.seconds_for(task.difficulty), label.said_base)

    def to_json(self) -> dict[str, Any]:
        """Plain data that ``json`` takes."""
        return dataclasses.asdict(self)

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> Labels:
        """The reverse of :meth:`to_json`."""
        held = {
            name: Label(**{**row, "notes": tuple(row["notes"])})
            for name, row in data["labels"].items()
        }
        return cls(**{**data, "marks": tuple(data["marks"]), "labels": held})


def path(name: str) -> Path:
    """The file of a set."""
    return FOLDER / f"{name}.json"


def names() -> list[str]:
    """The sets that are there."""
    return sorted(file.stem for file in FOLDER.glob("*.json"))


def load(name: str) -> Labels:
    """A set of labels; raises UsageError for one that is not there, is damaged or belongs to
    another version of the tasks."""
    file = path(name)
    make = f"python -m engine.diffbench.labels name={name}"
    if not file.is_file():
        raise UsageError(
            f"bench.labels={name} does not exist{nearest(name, names())}; make it: {make}"
        )
    found = read(file)
    if found.version != VERSION:
        raise UsageError(
            f"bench.labels={name} is of version {found.version} of the tasks, these are version "
            f"{VERSION}; make another set: python -m engine.diffbench.labels name=OTHER"
        )
    return found


def read(file: Path) -> Labels:
    """A set from its file; raises UsageError for a damaged one."""
    try:
        return Labels.from_json(json.loads(file.read_text(encoding="utf-8")))
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise UsageError(f"{file} is damaged ({error}); move it away and label again") from None


def save(found: Labels) -> None:
    """Write a set, whole."""
    write_json(path(found.name), found.to_json())


def labelled(tasks: Iterable[Task], found: Labels) -> list[Task]:
    """The tasks with the targets of a set in request and specification; those of a baseline that
    has no label stay as they are (``Task.labelled`` is then false)."""
    return [_labelled(task, found) for task in tasks]


def _labelled(task: Task, found: Labels) -> Task:
    target = found.target(task)
    if target is None:
        return task
    device = phrases.DEVICES[found.hw]
    if target.seconds_base is not None:
        takes = pick(phrases.TAKES, task.id, "takes")
        device += takes.format(seconds=f"{target.seconds_base:g}")
    words = {
        phrases.SPEEDUP: f"{target.value:.2f}",
        phrases.SECONDS: f"{target.value:g}",
        phrases.DEVICE: device,
    }
    text = task.request
    for key, value in words.items():
        text = text.replace(key, value)
    hw = found.hw if task.level == 5 else None
    asked = dataclasses.replace(task.specification, request=text, target=target, hw=hw)
    return dataclasses.replace(task, request=text, specification=asked)


def main(arguments: Sequence[str]) -> int:
    """Label baselines; 0 if all that were asked for have a label, else 1."""
    from engine import interrupt
    from engine.diffbench import labelling
    from engine.errors import line

    try:
        with interrupt.recognised():
            return labelling.command(dict(map(_key_and_value, arguments)))
    except KeyboardInterrupt:
        print("\ninterrupted; nothing is lost, the same command goes on", file=sys.stderr)
        return 130
    except UsageError as error:
        print(f"error: {line(error)}", file=sys.stderr)
        return 2


def _key_and_value(text: str) -> tuple[str, str]:
    key, equals, value = text.partition("=")
    if not equals:
        raise UsageError(f"{text!r} is not KEY=VALUE, such as name=NAME")
    return key, value


def chosen(text: str | None) -> list[baselines.Baseline]:
    """The baselines that a list such as ``[sd15-512,dit-256]`` names; all for None."""
    if text is None:
        return list(baselines.baselines())
    known = [one.id for one in baselines.baselines()]
    wanted = [name.strip() for name in text.strip("[]").split(",") if name.strip()]
    for name in wanted:
        if name not in known:
            raise UsageError(f"baselines: there is no {name!r}{nearest(name, known)}")
    return [baselines.named(name) for name in wanted]


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
