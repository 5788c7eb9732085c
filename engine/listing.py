"""``+list=``: what there is to choose from. Tables on a terminal, tab-separated when piped."""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

from engine.config import CONF
from engine.errors import UsageError
from engine.strategy import nearest, registry

LISTS = ("strategies", "models", "matrix", "presets", "hw", "experiments", "studies")


def show(name: str, filters: Mapping[str, str] | None = None) -> None:
    """Print one of ``LISTS``, the matrix for the models and hardware of ``filters``; raises
    UsageError for any other name."""
    if name == "matrix":
        from engine import matrix

        matrix.show(filters or {})
        return
    if name == "strategies":
        head, rows = _strategies()
    elif name == "presets":
        head, rows = _presets()
    elif name == "experiments":
        head, rows = _experiments()
    elif name == "studies":
        head, rows = _studies()
    elif name == "models":
        head, rows = _models()
    elif name == "hw":
        head, rows = _hardware()
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
    """Name, models, devices, genome, and the comments that say where a preset comes from."""
    from engine import presets
    from engine.genome import describe

    rows = []
    for one in map(presets.load, presets.names()):
        models = " ".join(one.families or one.models)
        notes = " ".join(one.notes[1:])
        rows.append([one.name, models, " ".join(one.hw), describe(one.technique), notes])
    return ["preset", "models", "hardware", "techniques", "source"], rows


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


def _models() -> tuple[list[str], list[list[str]]]:
    """The models as they compose, and where their weights can come from here."""
    from engine import architectures, catalogue, models

    head = ["name", "id", "task", "pipeline", "pixels", "steps", "guidance", "dtype", "weights"]
    known = {catalogue.entry(name)["id"] for name in architectures.names()}
    rows = []
    for name in catalogue.names():
        data = catalogue.entry(name)
        places = []
        if data["weights"] == "hub":
            size = f"{data['download_gib']:g} GiB" if data["download_gib"] else "model.id"
            places.append(f"hub ({size}{', gated' if data['gated'] else ''})")
            places += ["random"] if data["id"] in known else []
        folder = models.CHECKPOINTS / (data["mini"] or "-")
        if (folder / "model_index.json").is_file():
            places.append("mini (random numbers)" if models.untrained(folder) else "mini")
        pixels = f"{data['width']} x {data['height']}" if data["width"] else None
        row = [data["name"], data["id"], data["task"], data["pipeline"], pixels, data["steps"]]
        row += [data["guidance_scale"], data["dtype"], ", ".join(places) or "none here"]
        rows.append(["-" if cell is None else str(cell) for cell in row])
    return head, rows


def _hardware() -> tuple[list[str], list[list[str]]]:
    import yaml

    columns = ["name", "device", "match", "memory_gib", "threads"]
    rows = []
    for path in sorted((CONF / "hw").glob("*.yaml")):
        data = yaml.safe_load(path.read_text(encoding="utf-8"))
        rows.append(["-" if data[c] is None else str(data[c]) for c in columns])
    return columns, rows
