"""Every call is written down before its reply is used, and no recorded call is paid again."""

from __future__ import annotations

import threading
import time
from collections import Counter
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from pathlib import Path

from engine.agent import calls
from engine.agent.calls import Entry
from engine.agent.llm import LlmError, Model, Reply, Request
from engine.strategy import Value


class Record:
    """Answers what the recording holds from there, asks for the rest and appends it.

    The same request asked again is another call: its key has an occurrence index, which starts
    anew with each process, so a study that is resumed walks through its recording first. A recorded
    failure is repeated if the study went on after it; one at the end of the recording, where the
    study stopped, is asked anew.
    """

    def __init__(
        self,
        inner: Model,
        path: Path,
        defaults: Mapping[str, Value],
        *,
        source: str = "model",
        hide: Callable[[str], str] = str,
    ) -> None:
        self._inner = inner
        self._path = path
        self._defaults = dict(defaults)
        self._source = source
        self._hide = hide
        self._told = told(calls.read(path))
        self._asked: Counter[str] = Counter()
        self._lock = threading.Lock()

    @property
    def name(self) -> str:
        return self._inner.name

    def complete(self, request: Request) -> Reply:
        """The recorded reply, or a new one, which then stands on the disk."""
        settings = {**self._defaults, **request.settings}
        first = calls.key_of(self.name, settings, request, 0)
        with self._lock:
            occurrence = self._asked[first]
            self._asked[first] += 1
        key = calls.key_of(self.name, settings, request, occurrence)
        if key in self._told:
            return answered(self._told[key])
        start = time.monotonic()
        reply, failure = None, None
        try:
            reply = self._inner.complete(request)
        except LlmError as error:
            failure = error.reason
            raise
        finally:
            if reply is not None or failure is not None:
                entry = Entry(
                    key,
                    occurrence,
                    datetime.now(UTC).isoformat(timespec="milliseconds"),
                    self._source,
                    request.role,
                    request.name,
                    self.name,
                    request.messages,
                    settings,
                    request.schema,
                    self._defaults,
                    reply,
                    failure,
                    time.monotonic() - start,
                )
                with self._lock:
                    calls.append(self._path, entry, self._hide)
        return reply


def told(entries: list[Entry]) -> dict[str, Entry]:
    """The calls to answer from, by key: the replies, and the failures that a call follows."""
    last = max((i for i, entry in enumerate(entries) if entry.reply is not None), default=-1)
    kept: dict[str, Entry] = {}
    for entry in entries[: last + 1]:
        if entry.key not in kept or entry.reply is not None:
            kept[entry.key] = entry
    return kept


def answered(entry: Entry) -> Reply:
    """The recorded reply; raises LlmError where the call failed."""
    if entry.reply is None:
        raise LlmError(entry.failure or "the recorded call failed")
    return entry.reply
