"""``+list=``: what there is to choose from. Tables on a terminal, tab-separated when piped."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path

from engine.config import CONF
from engine.errors import UsageError
from engine.strategy import nearest, registry

LISTS = ("strategies", "models", "presets", "hw", "experiments", "studies")


def show(name: str) -> None:
    """Print one of ``LISTS``; raises UsageError for any other name."""
    if name == "strategies":
        head, rows = _strategies()
    elif name == "presets":
        head, rows = _presets()
    elif name == "experiments":
        head, rows = _experiments()
    elif name == "studies":
        head, rows = _studies()
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


def _presets() -> tuple[list[str], list[list[str]]]:
    """Name, genome and the comment that says where a preset comes from."""
    import yaml

    from engine.genome import describe

    rows = []
    for path in sorted((CONF / "preset").glob("*.yaml")):
        text = path.read_text(encoding="utf-8")
        notes = [one.lstrip("# ") for one in text.splitlines() if one.startswith("#")]
        genome = yaml.safe_load(text)["technique"]
        rows.append([path.stem, describe(genome), " ".join(notes[1:])])
    return ["preset", "techniques", "source"], rows


def _experiments() -> tuple[list[str], list[list[str]]]:
    """Name, command and purpose, from the comments at the head of each file."""
    rows = []
    for path in sorted([*(CONF / "experiment").glob("*.yaml"), *(CONF / "debug").glob("*.yaml")]):
        lines = path.read_text(encoding="utf-8").splitlines()
        head = [one.lstrip("# ") for one in lines[1:] if one.startswith("#")]
        commands = [one for one in head if one.startswith("python ")]
        words = " ".join(one for one in head if one not in commands)
        rows.append([f"+{path.parent.name}={path.stem}", commands[0], words])
    return ["experiment", "command", "what it is for"], rows


def _studies() -> tuple[list[str], list[list[str]]]:
    """The studies in the folder of results: their state and what they take, in MB."""
    from engine import prune

    sweeps = Path(prune.paths_of().outputs) / "sweeps"
    rows = []
    for name in prune.studies(sweeps):
        folder = sweeps / name
        why = prune.unended(folder)
        state = "running" if prune.running(folder) else why or "has ended"
        takes = f"{prune.taken(folder) / 2**20:.1f}"
        goes = prune.unneeded(folder).words() if state == "has ended" else ""
        rows.append([name, state, takes, goes])
    return ["study", "state", "MB", "not needed (+prune=STUDY)"], rows


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
