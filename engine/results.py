"""What a trial leaves behind: the rows of ``result.json`` and ``front.json``."""

from __future__ import annotations

import dataclasses
import json
import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from engine.strategy import Value

Genome = dict[str, dict[str, Value]]
"""Strategy name to gene to value, in canonical form (``engine.genome.canonical``)."""


@dataclass(frozen=True)
class Sample:
    """One timed image; ``arm`` is "base" or "candidate".

    Seconds are the coordinator's clock from the request to the last byte; ``score`` is the CLIP
    score (cosine times 100), ``correct`` the exact checker's word on a miniature (else None).
    """

    arm: str
    round: int
    position: int
    prompt: str
    seed: int
    seconds: float
    score: float | None = None
    correct: bool | None = None
    image: str | None = None
    """Path of the stored picture, relative to the trial's folder."""


@dataclass(frozen=True)
class Result:
    """One told trial. Losses and shares are fractions; a failed trial has stage and reason.

    ``rung`` is the last rung that it reached: 0 (2 prompts), 1 (8) or 2 (acceptance, 36); rung 2
    replaces every figure of the earlier rungs. ``origin`` says where the genome came from: seed,
    crossover, mutation, immigrant, random, recipe, user.
    """

    trial: int
    genome: Genome
    key: str
    origin: str = "random"
    parents: tuple[int, ...] = ()
    rung: int = 0
    speedup: float | None = None
    speedup_low: float | None = None
    speedup_high: float | None = None
    speedup_paper: float | None = None
    loss: float | None = None
    loss_low: float | None = None
    loss_high: float | None = None
    accuracy: float | None = None
    accuracy_base: float | None = None
    psnr: float | None = None
    ssim: float | None = None
    memory_gib: float | None = None
    memory_base_gib: float | None = None
    cost_flops: float | None = None
    cost_base_flops: float | None = None
    forwards: int | None = None
    seconds_per_image: float | None = None
    seconds_base: float | None = None
    load_s: float | None = None
    first_call_s: float | None = None
    wall_s: float | None = None
    busy_s: float | None = None
    """Seconds of the wall time spent on loading, generating and scoring; the rest is overhead."""
    program: str | None = None
    stage: str | None = None
    reason: str | None = None
    notes: tuple[str, ...] = ()
    samples: tuple[Sample, ...] = field(default=(), repr=False)

    @property
    def ok(self) -> bool:
        return self.stage is None and self.speedup is not None


ROW = [
    "trial",
    "genome",
    "speedup",
    "speedup_low",
    "speedup_high",
    "speedup_paper",
    "loss",
    "loss_low",
    "loss_high",
    "memory_gib",
    "cost_flops",
    "seconds_per_image",
    "program",
]
"""The fields of a row of front.json, in order."""


def row(result: Result, **more: Any) -> dict[str, Any]:
    """A result as a row of front.json; ``more`` is appended (figures against other baselines)."""
    return {name: getattr(result, name) for name in ROW} | more


def write_json(path: Path, data: Any) -> None:
    """Write atomically: a reader sees the old file or the new one, whole."""
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(path.name + ".partial")
    partial.write_text(json.dumps(data, indent=1, allow_nan=False) + "\n", encoding="utf-8")
    os.replace(partial, path)


def save(result: Result, path: Path) -> None:
    write_json(path, dataclasses.asdict(result))


def load(path: Path) -> Result:
    """Read a ``result.json``; raises ValueError when it is damaged."""
    try:
        data: Mapping[str, Any] = json.loads(path.read_text(encoding="utf-8"))
        samples = tuple(Sample(**s) for s in data.get("samples", ()))
        known = {f.name for f in dataclasses.fields(Result)}
        fields = {k: v for k, v in data.items() if k in known and k != "samples"}
        fields["parents"] = tuple(fields.get("parents", ()))
        fields["notes"] = tuple(fields.get("notes", ()))
        return Result(**fields, samples=samples)
    except (TypeError, KeyError, json.JSONDecodeError) as error:
        raise ValueError(f"{path} is damaged: {error}") from error
