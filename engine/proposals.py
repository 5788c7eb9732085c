"""Proposals on disk, where a launched job looks for what it shall measure."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path

from engine.results import write_json
from engine.search import Proposal


def write(folder: Path, trial: int, proposal: Proposal) -> None:
    """Leave the proposal where the job will look for it, in whatever process it runs."""
    write_json(folder / "proposal.json", {"trial": trial, **dataclasses.asdict(proposal)})


def read(folder: Path) -> Proposal:
    """The proposal that was left there."""
    data = json.loads((folder / "proposal.json").read_text(encoding="utf-8"))
    return Proposal(
        data["genome"],
        data["origin"],
        tuple(data["parents"]),
        # A study of an earlier version knows neither.
        data.get("program"),
        data.get("note", ""),
    )
