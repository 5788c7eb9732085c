"""A recording in place of a model."""

from __future__ import annotations

import difflib
import json
import threading
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from engine.agent import calls
from engine.agent.calls import Entry
from engine.agent.llm import ReplayMiss, Reply, Request
from engine.agent.record import answered
from engine.errors import UsageError
from engine.strategy import Value

SHOWN = 60
"""Characters of a differing line that a message shows."""


class Replay:
    """Answers from a recording alone, under the model's name and settings that it was made with."""

    def __init__(self, path: Path) -> None:
        """Raises UsageError where there is no recording."""
        path = path.expanduser()
        self._path = path / calls.FILE if path.is_dir() else path
        self._entries = calls.read(self._path)
        if not self._entries:
            raise UsageError(
                f"{self._path} holds no recorded call; llm.folder takes the folder of a study that "
                f"was run with a language model, which holds {calls.FILE}"
            )
        # Also a failure at the end is told: here nobody could be asked instead.
        self._told: dict[str, Entry] = {}
        for entry in self._entries:
            if entry.key not in self._told or entry.reply is not None:
                self._told[entry.key] = entry
        made = {json.dumps([e.model, e.defaults], sort_keys=True): e for e in self._entries}
        self._made: list[tuple[str, Mapping[str, Any]]] = [
            (entry.model, entry.defaults) for entry in made.values()
        ]
        self._asked: Counter[str] = Counter()
        self._lock = threading.Lock()

    @property
    def name(self) -> str:
        return self._entries[0].model

    @property
    def defaults(self) -> Mapping[str, Value]:
        """The settings that the configuration gave when the recording was made."""
        return self._entries[0].defaults

    def complete(self, request: Request) -> Reply:
        """The recorded reply with its own tokens, cost and seconds; raises ReplayMiss."""
        asked = {k: v for k, v in request.settings.items() if k != "timeout"}
        with self._lock:
            counter = calls.key_of("", asked, request, 0)
            occurrence = self._asked[counter]
            self._asked[counter] += 1
        for model, defaults in self._made:
            key = calls.key_of(model, {**defaults, **asked}, request, occurrence)
            if key in self._told:
                return answered(self._told[key])
        raise self._miss(request, {**self.defaults, **asked}, occurrence)

    def _miss(self, request: Request, settings: Mapping[str, Any], occurrence: int) -> ReplayMiss:
        key = calls.key_of(self.name, settings, request, occurrence)
        nearest = max(self._entries, key=lambda entry: _likeness(entry, request))
        differs = _difference(nearest, request, settings, occurrence)
        return ReplayMiss(
            nearest.key,
            f"{self._path} does not hold the {request.role}'s request {key[:12]}; the nearest is "
            f"{nearest.key[:12]} (line {self._entries.index(nearest) + 1}), where {differs}",
        )


def _likeness(entry: Entry, request: Request) -> float:
    """How much of the texts is the same, from 0 to 1, and more for the same role."""
    pairs = zip(entry.messages, request.messages, strict=False)
    alike = [
        1.0 if a.text == b.text else difflib.SequenceMatcher(None, a.text, b.text).quick_ratio()
        for a, b in pairs
    ]
    longest = max(len(entry.messages), len(request.messages), 1)
    return sum(alike) / longest + (0.5 if entry.role == request.role else 0.0)


def _difference(
    entry: Entry, request: Request, settings: Mapping[str, Any], occurrence: int
) -> str:
    """The first thing that differs, in words."""
    for number, (old, new) in enumerate(zip(entry.messages, request.messages, strict=False), 1):
        if old != new:
            return f"message {number} ({new.role}) differs: {_line(old.text, new.text)}"
    if len(entry.messages) != len(request.messages):
        return f"there are {len(entry.messages)} messages, not {len(request.messages)}"
    for name in sorted({*entry.settings, *settings}):
        old_value, new_value = entry.settings.get(name), settings.get(name)
        if old_value != new_value:
            return f"{name} is {old_value}, not {new_value}"
    if json.dumps(entry.schema, sort_keys=True) != json.dumps(request.schema, sort_keys=True):
        return "the schema differs"
    return f"it was asked for fewer times: this is number {occurrence + 1} of the same request"


def _line(old: str, new: str) -> str:
    """The first line that differs, cut to where the difference is seen."""
    olds: Sequence[str] = old.splitlines() or [""]
    news: Sequence[str] = new.splitlines() or [""]
    length = max(len(olds), len(news))
    for number in range(length):
        a = olds[number] if number < len(olds) else ""
        b = news[number] if number < len(news) else ""
        if a != b or number == length - 1:
            common = next((i for i, (x, y) in enumerate(zip(a, b, strict=False)) if x != y), 0)
            start = max(common - SHOWN // 2, 0)
            a, b = a[start : start + SHOWN], b[start : start + SHOWN]
            return f"line {number + 1} is recorded as {a!r} and now is {b!r}"
    return "its white space"
