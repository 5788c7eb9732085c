"""``+list=``: what there is to choose from. Tables on a terminal, tab-separated when piped."""

from __future__ import annotations

import sys
from collections.abc import Sequence

from engine.config import CONF
from engine.errors import UsageError
from engine.strategy import nearest, registry

LISTS = ("strategies", "models", "hw")


def show(name: str) -> None:
    """Print one of ``LISTS``; raises UsageError for any other name."""
    if name == "strategies":
        head, rows = _strategies()
    elif name in ("models", "hw"):
        head, rows = _options(name)
    else:
        raise UsageError(f"there is no list {name!r}{nearest(name, LISTS)}")
    table(head, rows)


def table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    """A table for a person, or tab-separated lines for a program."""
    if not sys.stdout.isatty():
        for row in (head, *rows):
            print("\t".join(cell.replace("\n", "; ") for cell in row))
        return
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    drawn = Table(*head)
    for row in rows:
        drawn.add_row(*map(Text, row))
    Console().print(drawn)


def _strategies() -> tuple[list[str], list[list[str]]]:
    rows = []
    for s in registry().values():
        genes = "\n".join(f"{g.name}={g.default} ({g.allowed})" for g in s.genes.values())
        rows.append([s.name, s.slot, "exact" if s.exact else "lossy", genes, s.summary])
    return ["strategy", "slot", "picture", "genes (allowed)", "what it does"], rows


def _options(name: str) -> tuple[list[str], list[list[str]]]:
    import yaml

    columns = {
        "models": ["name", "id", "pipeline", "width", "height", "steps", "weights", "download_gib"],
        "hw": ["name", "device", "match", "memory_gib", "threads"],
    }[name]
    folder = CONF / {"models": "model", "hw": "hw"}[name]
    rows = []
    for path in sorted(folder.glob("*.yaml")):
        data = yaml.safe_load(path.read_text(encoding="utf-8"))
        rows.append(["-" if data[c] is None else str(data[c]) for c in columns])
    return columns, rows
