"""The recording of calls: one line of JSON for each, appended and flushed to the disk.

A process that is killed while it writes leaves a torn last line, which is dropped; any other line
that cannot be read is an error. No line ever holds a key.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from engine.agent.budget import Spent
from engine.agent.llm import Message, Reply, Request, Role, Usage
from engine.errors import UsageError
from engine.strategy import Value

FILE = "calls.jsonl"


@dataclass(frozen=True)
class Entry:
    """One call. ``reply`` is None where it failed, for the ``failure`` that is then told.

    ``model`` is the name of the door; ``settings`` are the request's over the configuration's.
    ``occurrence`` counts the same request: 0 the first time. ``source`` is "replay" where the reply
    came from another recording and cost nothing, else "model". ``time`` is UTC (ISO 8601).
    """

    key: str
    occurrence: int
    time: str
    source: str
    role: Role
    name: str
    model: str
    messages: tuple[Message, ...]
    settings: Mapping[str, Value]
    schema: Mapping[str, Any] | None
    defaults: Mapping[str, Value]
    """What of the settings came from the configuration."""
    reply: Reply | None
    failure: str | None
    seconds: float


def key_of(model: str, settings: Mapping[str, Value], request: Request, occurrence: int) -> str:
    """SHA-256 of what decides a reply, in hex. Neither the role nor the name is part of it."""
    whole = {
        "model": model,
        "messages": [[message.role, message.text] for message in request.messages],
        "settings": dict(settings),
        "schema": request.schema,
        "occurrence": occurrence,
    }
    text = json.dumps(whole, sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()


def read(path: Path) -> list[Entry]:
    """The calls in their order; none where the file is absent. Raises UsageError for a line that
    is no call; what stands behind the last end of a line was torn, and is no line."""
    if not path.exists():
        return []
    content = path.read_bytes()
    entries = []
    for number, line in enumerate(content[: _whole(content)].splitlines(), 1):
        try:
            entries.append(_entry(json.loads(line)))
        except (ValueError, KeyError, TypeError) as error:
            raise UsageError(
                f"{path} is damaged in line {number}; restore the file from a copy, or remove it "
                "and pay its calls again"
            ) from error
    return entries


def append(path: Path, entry: Entry, hide: Callable[[str], str] = str) -> None:
    """Write one more call and wait until the disk has it. ``hide`` takes the keys out of the text.

    A torn last line of an earlier process is cut off first.
    """
    line = hide(json.dumps(dataclasses.asdict(entry))) + "\n"
    created = not path.exists()
    path.parent.mkdir(parents=True, exist_ok=True)
    with open(path, "r+b" if not created else "x+b") as file:
        size = file.seek(0, os.SEEK_END)
        file.seek(max(size - 1, 0))
        if file.read(1) not in (b"", b"\n"):
            file.seek(0)
            file.truncate(_whole(file.read()))
            file.seek(0, os.SEEK_END)
        file.write(line.encode("ascii"))
        file.flush()
        os.fsync(file.fileno())
    if created and os.name == "posix":
        folder = os.open(path.parent, os.O_RDONLY)
        try:
            os.fsync(folder)
        finally:
            os.close(folder)


def spent(entries: Sequence[Entry]) -> Spent:
    """What the recorded calls have cost."""
    total = Spent()
    for entry in entries:
        if entry.reply is None:
            total = total.plus_failure(entry.seconds)
        else:
            total = total.plus(entry.reply)
    return total


def _whole(content: bytes) -> int:
    """How many bytes of a recording are whole lines."""
    return content.rfind(b"\n") + 1


def _entry(data: dict[str, Any]) -> Entry:
    reply = data["reply"]
    if reply is not None:
        reply = Reply(**{**reply, "usage": Usage(**reply["usage"])})
    messages = tuple(Message(**message) for message in data["messages"])
    return Entry(**{**data, "messages": messages, "reply": reply})
