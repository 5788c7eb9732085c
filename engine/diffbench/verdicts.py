"""A verdict: what came of one program for one task, and everything that explains it."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

COMPILE = "compile"
KEY = "key_attribute"
ABSOLUTE = "absolute_quality"
QUALITY = "relative_quality"
SPEED = "relative_speed"
ERRORS = (COMPILE, KEY, ABSOLUTE, QUALITY, SPEED)
"""The five classes of the paper (figure 4). The last two do not exclude each other."""
INFRASTRUCTURE = "infrastructure"
UNDECIDED = "undecided"
OTHERS = (INFRASTRUCTURE, UNDECIDED)
"""Our own fault, and an interval that still straddles the target when the budget is spent. Neither
counts as passed, and neither is hidden among the five."""
PARTS = {
    "load": "load the program",
    "evidence": "an image for the counters",
    "reference": "the reference's pictures",
    "captions": "its own pictures",
    "again": "captions asked again",
    "baseline": "start the baseline",
    "speed": "time both",
}
"""What the seconds of a scoring go to, in the order of the work; the rest is reading and judging.
References are kept, so that a second scoring of a task spends nothing on them."""
REACHED = {COMPILE: 1, KEY: 1, ABSOLUTE: 2, QUALITY: 3, SPEED: 3, UNDECIDED: 3}
"""The stage that each class belongs to."""


@dataclass(frozen=True)
class Conditions:
    """Without these a score says nothing: they stand beside every verdict and every summary."""

    version: str
    """Version of the tasks, captions and seeds."""
    labels: str | None
    """Set of targets of L4 and L5; None where no such task was scored."""
    weights: str
    machine: str
    """Profile of the machine (``Machine.profile``)."""
    repeats: int
    """Times that every answer was scored."""
    contestant: str
    """Who answered, in words: agent and model, or the name of a submissions file."""
    memory: str = "fresh"
    """``fresh``, or ``shared`` where a task could learn from earlier ones (a score of its own)."""
    captions: str = "own"
    """Whose captions quality is measured on."""

    def departs(self, other: Conditions) -> str | None:
        """The first condition in which two sets of verdicts differ, in words; None if in none."""
        for item in dataclasses.fields(self):
            ours, theirs = getattr(self, item.name), getattr(other, item.name)
            if ours != theirs and not (item.name == "labels" and None in (ours, theirs)):
                return f"{item.name} is {ours!r} here and {theirs!r} there"
        return None


@dataclass(frozen=True)
class Verdict:
    """One program for one task. Losses and shares are fractions, times seconds an image."""

    task: str
    level: int
    conditions: Conditions
    repeat: int = 0
    """Number of this scoring of the same answer; the first, 0, is the one that counts."""
    passed: bool = False
    errors: tuple[str, ...] = ()
    """Classes out of ``ERRORS`` and ``OTHERS``; empty where it passed."""
    stage: int = 0
    """The last stage that was entered, 1 to 3; 0 where there was no program to look at."""
    reason: str = ""
    """One sentence for a person; empty where it passed."""
    traceback: str = ""
    difficulty: str | None = None
    pipeline: str = ""
    methods: tuple[str, ...] = ()
    """Techniques that the request names."""
    reading: Mapping[str, Any] | None = None
    """What the program's text says (``Reading.to_json``)."""
    mismatches: tuple[Mapping[str, str], ...] = ()
    """Fields of the task that the text does not keep: field, asked, found."""
    disagreements: tuple[Mapping[str, str], ...] = ()
    """Fields in which text and counters differ: field, asked (by the text), found (by the
    counters)."""
    evidence: Mapping[str, Any] | None = None
    """What the worker saw in one image (``Evidence.as_json``), the mapping to a miniature
    included."""
    suspicions: tuple[Mapping[str, str], ...] = ()
    """What the honesty checks found: code and reason."""
    figures: Mapping[str, Any] = field(default_factory=dict)
    """Measured numbers by name; see ``docs/diffbench-run.md``."""
    share: float | None = None
    """S_a of a hard task: the share of the required speed-up that was reached, at most 1; 0 unless
    stages 1 and 2 passed and the loss is within its bound. None for other tasks."""
    images: tuple[str, ...] = ()
    """Pictures of the program, relative to the run's folder; the reference's lie beside them."""
    reference_images: tuple[str, ...] = ()
    program: str = ""
    """The text that was scored."""
    seconds: float = 0.0
    """Wall time of scoring."""
    spent: Mapping[str, float] = field(default_factory=dict)
    """Seconds of it by part; see ``PARTS``."""
    answer_seconds: float | None = None
    """Wall time that the contestant took."""
    calls: int | None = None
    tokens: int | None = None
    cost: float | None = None
    """US dollars."""

    @property
    def key(self) -> tuple[str, int]:
        """A verdict's identity within one run."""
        return self.task, self.repeat

    def line(self) -> str:
        """The verdict as one JSON line, without its newline."""
        return _compact(dataclasses.asdict(self))

    def short_line(self) -> str:
        """The line without program, pictures, their captions and evidence: a kilobyte, for a
        repository. Among a run's verdicts it stands for the whole one."""
        explained = ("traceback", "reading", "evidence", "images", "reference_images", "program")
        # The scorer's captions are held out; a file to publish has no use for them.
        figures = {name: value for name, value in self.figures.items() if name != "prompts"}
        short = dataclasses.asdict(self) | {"figures": figures}
        return _compact(
            {
                name: value
                for name, value in short.items()
                if name not in explained and value not in (None, (), {}, "")
            }
        )

    @classmethod
    def of(cls, data: Mapping[str, Any]) -> Verdict:
        """A verdict from JSON; raises ValueError for what is none."""
        lists = ("errors", "methods", "mismatches", "disagreements", "suspicions", "images")
        try:
            known = {item.name for item in dataclasses.fields(cls)}
            fields = {name: value for name, value in data.items() if name in known}
            for name in (*lists, "reference_images"):
                fields[name] = tuple(fields.get(name, ()))
            return cls(**{**fields, "conditions": Conditions(**data["conditions"])})
        except (KeyError, TypeError) as error:
            raise ValueError(f"no verdict: {error}") from error


def _compact(data: Mapping[str, Any]) -> str:
    return json.dumps(data, separators=(",", ":"), allow_nan=False)
