"""What the language model of a study has cost, by role and model: counted from its recording."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from engine.agent import calls
from engine.agent.calls import Entry
from engine.results import write_json

if TYPE_CHECKING:
    from rich.table import Table

FILE = "spent.json"


@dataclass(frozen=True)
class Row:
    """The calls of one role to one model.

    ``calls`` were answered, ``failed`` were not, ``replayed`` came from another recording and cost
    nothing now: their tokens, dollars and seconds are left out. ``dollars`` is the sum of the known
    prices, ``unpriced`` the number of calls without one. ``seconds`` is the time of waiting.
    """

    role: str
    model: str
    calls: int = 0
    failed: int = 0
    replayed: int = 0
    input_tokens: int = 0
    output_tokens: int = 0
    dollars: float = 0.0
    unpriced: int = 0
    seconds: float = 0.0

    def plus(self, entry: Entry) -> Row:
        """With one more call."""
        if entry.reply is None:
            return dataclasses.replace(
                self, failed=self.failed + 1, seconds=self.seconds + entry.seconds
            )
        if entry.source == "replay":
            return dataclasses.replace(self, replayed=self.replayed + 1)
        reply = entry.reply
        return dataclasses.replace(
            self,
            calls=self.calls + 1,
            input_tokens=self.input_tokens + reply.usage.input_tokens,
            output_tokens=self.output_tokens + reply.usage.output_tokens,
            dollars=self.dollars + (reply.cost or 0.0),
            unpriced=self.unpriced + (reply.cost is None),
            seconds=self.seconds + reply.seconds,
        )


def rows(entries: Sequence[Entry]) -> list[Row]:
    """One row for each role and model, in the order of their first calls."""
    found: dict[tuple[str, str], Row] = {}
    for entry in entries:
        place = (entry.role, entry.model)
        found[place] = found.get(place, Row(*place)).plus(entry)
    return list(found.values())


def total(found: Sequence[Row]) -> Row:
    """The sum of rows, as the role "total"."""
    numbers = [field.name for field in dataclasses.fields(Row) if field.type in ("int", "float")]
    sums: dict[str, Any] = {name: sum(getattr(row, name) for row in found) for name in numbers}
    models = sorted({row.model for row in found})
    return Row("total", ", ".join(models), **sums)


def write(folder: Path) -> list[Row]:
    """Store what ``<folder>/calls.jsonl`` holds as ``spent.json``; returns its rows."""
    found = rows(calls.read(folder / calls.FILE))
    data = {
        "rows": [dataclasses.asdict(row) for row in found],
        "total": dataclasses.asdict(total(found)),
    }
    write_json(folder / FILE, data)
    return found


def table(found: Sequence[Row]) -> Table:
    """The rows and their sum as a table for a person."""
    from rich.table import Table

    shown = Table(title="Language model", title_justify="left")
    for name in ("role", "model"):
        shown.add_column(name)
    for name in ("calls", "failed", "tokens in", "tokens out", "US dollars", "seconds"):
        shown.add_column(name, justify="right")
    for row in [*found, *([total(found)] if len(found) > 1 else [])]:
        number = f"{row.calls:,}"
        if row.replayed:
            number += f" + {row.replayed:,} replayed"
        shown.add_row(
            row.role,
            row.model,
            number,
            f"{row.failed:,}",
            f"{row.input_tokens:,}",
            f"{row.output_tokens:,}",
            money(row),
            f"{row.seconds:,.0f}",
        )
    return shown


def money(row: Row) -> str:
    """Dollars in words: what is known, and how many calls have no known price."""
    if row.unpriced and row.unpriced == row.calls:
        return "unknown"
    known = f"{row.dollars:.2f}" if row.dollars == 0 or row.dollars >= 0.1 else f"{row.dollars:.4f}"
    return f"{known} + {row.unpriced} unknown" if row.unpriced else known
