"""The models of ``conf/model/`` as they compose, read without Hydra."""

from __future__ import annotations

from functools import cache
from pathlib import Path
from typing import Any

FOLDER = Path(__file__).resolve().parent.parent / "conf" / "model"


def names() -> list[str]:
    """The names of all models, in order."""
    return sorted(path.stem for path in FOLDER.glob("*.yaml"))


@cache
def entry(name: str) -> dict[str, Any]:
    """The keys of one model: those of the files that its defaults name, its own above them.

    Raises FileNotFoundError for a name that has no file. Callers must not change what they get.
    """
    import yaml

    data = yaml.safe_load((FOLDER / f"{name}.yaml").read_text(encoding="utf-8"))
    found: dict[str, Any] = {}
    for base in data.pop("defaults", ["_self_"]):
        found |= data if base == "_self_" else entry(base)
    return found
