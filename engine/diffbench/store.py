"""Files of a run that only grow: one JSON line is written whole or not at all.

A run that is killed loses the line in work at most: what is cut off at the end of a file is left
out by readers, and the next line starts behind it.
"""

from __future__ import annotations

import contextlib
import json
import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from engine.diffbench.verdicts import INFRASTRUCTURE, Conditions, Verdict
from engine.errors import UsageError


def append(path: Path, text: str) -> None:
    """Add a line and wait until it is on the disk."""
    path.parent.mkdir(parents=True, exist_ok=True)
    handle = os.open(path, os.O_CREAT | os.O_APPEND | os.O_RDWR, 0o644)
    try:
        size = os.fstat(handle).st_size
        torn = size > 0 and os.pread(handle, 1, size - 1) != b"\n"
        # One write: another process that appends to the file cannot come between.
        os.write(handle, (b"\n" if torn else b"") + text.encode() + b"\n")
        os.fsync(handle)
    finally:
        os.close(handle)


def lines(path: Path) -> Iterator[tuple[int, Mapping[str, Any]]]:
    """The objects of a file with their line numbers; what was cut off is passed over."""
    if not path.exists():
        return
    for number, text in enumerate(path.read_text(encoding="utf-8").split("\n"), 1):
        with contextlib.suppress(json.JSONDecodeError):
            if text.strip() and isinstance(row := json.loads(text), dict):
                yield number, row


def named(kind: str, shard: str) -> str:
    """The file of a kind that a share of a run writes, as verdicts-1of4.jsonl."""
    part = "" if shard == "1/1" else "-" + shard.replace("/", "of")
    return f"{kind}{part}.jsonl"


class Store:
    """The verdicts of a run's folder: this process writes one shard and reads all of them.

    Shards may come from several machines of one profile; copy their files into the folder.
    """

    def __init__(self, folder: Path, shard: str = "1/1") -> None:
        self.folder = folder
        self.path = folder / named("verdicts", shard)

    @contextlib.contextmanager
    def writing(self) -> Iterator[None]:
        """Keep a second process off this shard; raises UsageError where one is at work."""
        self.folder.mkdir(parents=True, exist_ok=True)
        with (self.folder / f".{self.path.stem}.lock").open("w") as handle:
            if os.name == "posix":
                import fcntl

                try:
                    fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
                except OSError:
                    raise UsageError(
                        f"another process writes {self.path}; let it end, or type another "
                        "bench.name or bench.shard"
                    ) from None
            yield

    def add(self, verdict: Verdict) -> None:
        append(self.path, verdict.line())

    def verdicts(self) -> list[Verdict]:
        """The last verdict of every task and repeat, from all shards of the folder.

        Raises UsageError for a line that is no verdict, and for shards that do not belong
        together: another machine profile, version, label set, weights or contestant.
        """
        found: dict[tuple[str, int], Verdict] = {}
        first: tuple[Conditions, Path] | None = None
        for path in sorted(self.folder.glob("verdicts*.jsonl")):
            for number, row in lines(path):
                try:
                    verdict = Verdict.of(row)
                except ValueError as error:
                    raise UsageError(f"{path}, line {number} is damaged: {error}") from None
                first = self._belongs(verdict, path, first)
                found[verdict.key] = verdict
        return sorted(found.values(), key=lambda v: v.key)

    @staticmethod
    def _belongs(
        verdict: Verdict, path: Path, first: tuple[Conditions, Path] | None
    ) -> tuple[Conditions, Path]:
        if first is None:
            return verdict.conditions, path
        why = first[0].departs(verdict.conditions)
        if why is None and first[0].labels is None:
            # The first that names its labels speaks for those that have none.
            return verdict.conditions, path
        if why is None:
            return first
        raise UsageError(
            f"{path} does not merge with {first[1]}: {why}; shards merge only within one machine "
            "profile and one set of conditions"
        )

    def done(self) -> set[tuple[str, int]]:
        """What needs no second scoring: all but our own faults, which are tried again."""
        return {v.key for v in self.verdicts() if INFRASTRUCTURE not in v.errors}
