"""Programs of others as JSON lines: reading them with clear errors, and writing the requests.

A line of a submissions file is an object with

- ``id``: the task, as in the exported requests;
- ``program``: the text of the program, at most 256 KiB;
- ``calls``, ``tokens`` (whole numbers), ``cost`` (US dollars), ``seconds`` (of work): optional,
  what the answer took. Anything else is refused, so that a misspelt field is not lost in silence.
"""

from __future__ import annotations

import json
import math
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from engine.errors import UsageError
from engine.strategy import nearest

LARGEST = 256 * 2**10
"""Bytes of a program; a longer one holds something else than a program, such as pictures."""
KINDS: Mapping[str, tuple[type, ...]] = {
    "id": (str,),
    "program": (str,),
    "calls": (int,),
    "tokens": (int,),
    "cost": (int, float),
    "seconds": (int, float),
}
REQUIRED = ("id", "program")


@dataclass(frozen=True)
class Submission:
    """One answer to one task; ``cost`` is in US dollars, None where it is not known."""

    id: str
    program: str
    calls: int | None = None
    tokens: int | None = None
    cost: float | None = None
    seconds: float | None = None


class Asked(Protocol):
    """What is exported of a task."""

    @property
    def id(self) -> str: ...
    @property
    def level(self) -> int: ...
    @property
    def request(self) -> str: ...
    @property
    def version(self) -> str: ...


def read(path: Path, known: Collection[str]) -> list[Submission]:
    """The submissions of a file, in order; raises UsageError that names file and line.

    ``known`` are the ids that exist. A file may answer a part of the tasks only.
    """
    try:
        # Not splitlines(), which also splits at separators that JSON allows inside a text.
        lines = path.read_text(encoding="utf-8").split("\n")
    except (OSError, UnicodeDecodeError) as error:
        raise UsageError(
            f"bench.submissions={path} cannot be read ({error}); type bench.submissions=FILE with "
            'lines such as {"id": "L1-001", "program": "..."}'
        ) from None
    found: dict[str, tuple[int, Submission]] = {}
    for number, text in enumerate(lines, 1):
        if not text.strip():
            continue
        one = _submission(text, f"{path}, line {number}")
        if one.id not in known:
            raise UsageError(
                f"{path}, line {number}: unknown task {one.id!r}{_near(one.id, known)}"
            )
        if one.id in found:
            raise UsageError(
                f"{path}, line {number}: task {one.id} is answered twice, first in line "
                f"{found[one.id][0]}; a task takes one answer, so remove one of them"
            )
        found[one.id] = (number, one)
    if not found:
        raise UsageError(f"{path} holds no submission; a line is an object with id and program")
    return [one for _, one in found.values()]


def _submission(text: str, where: str) -> Submission:
    try:
        row = json.loads(text)
    except json.JSONDecodeError as error:
        raise UsageError(
            f"{where} is no JSON ({error.msg} at column {error.colno}); a line is one object, with "
            "the line breaks of its program written as \\n"
        ) from None
    if not isinstance(row, dict):
        raise UsageError(f'{where} is no object; write {{"id": ..., "program": ...}}')
    for name, value in row.items():
        if name not in KINDS:
            raise UsageError(f"{where} has a field {name!r}{nearest(name, KINDS)}")
        if value is not None or name in REQUIRED:
            _check(name, value, where)
    for name in REQUIRED:
        if name not in row:
            raise UsageError(f"{where} has no {name}; {' and '.join(REQUIRED)} are required")
    if not row["program"].strip():
        raise UsageError(f"{where}: program is empty; leave the line out to answer nothing")
    size = len(row["program"].encode())
    if size > LARGEST:
        raise UsageError(f"{where}: program has {size} bytes; allowed are {LARGEST}")
    return Submission(**row)


def _check(name: str, value: Any, where: str) -> None:
    kinds = KINDS[name]
    words = {str: "a text", int: "a whole number from 0"}.get(kinds[0], "a number from 0")
    words = "a number from 0" if len(kinds) == 2 else words
    fits = isinstance(value, kinds) and not isinstance(value, bool)
    if fits and not isinstance(value, str):
        fits = math.isfinite(value) and value >= 0
    if not fits:
        raise UsageError(f"{where}: {name} is {str(value)[:40]!r}; it takes {words}")


def _near(name: str, known: Collection[str]) -> str:
    # All 604 ids would bury the message.
    close = nearest(name, known).partition(" (known")[0]
    return f"{close}; ids look like L1-001, and +bench=export writes them"


def export(tasks: Iterable[Asked]) -> str:
    """The requests as JSON lines without anything that answers them."""
    rows = (
        {"id": task.id, "level": task.level, "request": task.request, "version": task.version}
        for task in tasks
    )
    return "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)
