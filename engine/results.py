"""What a trial leaves behind: the rows of ``result.json`` and ``front.json``."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from engine.files import write_text
from engine.strategy import Value

Genome = dict[str, dict[str, Value]]
"""Strategy name to gene to value, in canonical form (``engine.genome.canonical``)."""


@dataclass(frozen=True, slots=True)
class Sample:
    """One image of a timed request; ``arm`` is "base" or "candidate".

    Seconds are the coordinator's clock from the request to the last byte, for the whole request:
    of a batch only the image with ``index`` 0 counts for time. ``score`` is the CLIP score (cosine
    times 100), ``correct`` the exact checker's word on a miniature (else None), ``psnr`` (dB) and
    ``ssim`` the candidate's similarity to the baseline's image of the same request. A sample that
    is not ``clocked`` was drawn for its quality: no time is told from it and no picture is kept.
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
    height: int | None = None
    width: int | None = None
    batch: int = 1
    index: int = 0
    psnr: float | None = None
    ssim: float | None = None
    clocked: bool = True


@dataclass(frozen=True)
class Result:
    """One told trial. Losses and shares are fractions; a failed trial has stage and reason.

    ``rung`` is the last rung that it reached: 0 (2 prompts), 1 (8, and 16 more that are only
    scored) or 2 (acceptance, 36); rung 2 replaces every figure of the earlier rungs. ``origin``
    says where the genome came from: seed, mutation, random, tpe, nsga2, exhaustive,
    user, or with what they are named after, study:NAME, preset:NAME, recipe:FILE.
    """

    trial: int
    genome: Genome
    key: str
    origin: str = "random"
    parents: tuple[int, ...] = ()
    rung: int = 0
    looks: int = 1
    """Times that it was measured on the held-out prompts, each on fresh processes."""
    speedup: float | None = None
    speedup_low: float | None = None
    speedup_high: float | None = None
    speedup_paper: float | None = None
    loss: float | None = None
    loss_low: float | None = None
    loss_high: float | None = None
    loss_worst: float | None = None
    """Mean loss of the worst tenth of the prompts; measured where fidelity is the quality."""
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
    seconds_low: float | None = None
    seconds_high: float | None = None
    seconds_p95: float | None = None
    """95th percentile of the seconds of a request."""
    seconds_base: float | None = None
    images_per_second: float | None = None
    load_s: float | None = None
    load_base_s: float | None = None
    first_call_s: float | None = None
    first_call_base_s: float | None = None
    recompilations: int | None = None
    """Graphs that were compiled after the warm-up; None where nothing is compiled."""
    wall_s: float | None = None
    busy_s: float | None = None
    """Seconds of the wall time spent on loading, generating and scoring; the rest is overhead."""
    program: str | None = None
    stage: str | None = None
    reason: str | None = None
    notes: tuple[str, ...] = ()
    untrusted: bool = False
    """Whether the program is a language model's, which runs in the sandbox whenever it runs."""
    effective: str | None = None
    """Key of the configuration that an untrusted program's text was read to have
    (``engine.reading.effective_key``); equal keys mean the same work."""
    note: str = ""
    """What an untrusted program tries, in the words of the proposal."""
    evidence: Mapping[str, Any] | None = None
    """What the worker saw in one image of an untrusted program, as ``Evidence.as_json``."""
    samples: tuple[Sample, ...] = field(default=(), repr=False)

    def blank(self) -> Result:
        """What is known of the trial without its measurements, to measure it again."""
        return Result(
            self.trial,
            self.genome,
            self.key,
            self.origin,
            self.parents,
            untrusted=self.untrusted,
            effective=self.effective,
            note=self.note,
            evidence=self.evidence,
        )

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
    "seconds_p95",
    "images_per_second",
    "loss_worst",
    "first_call_s",
    "recompilations",
    "program",
]
"""The fields of a row of front.json, in order."""


def row(result: Result, **more: Any) -> dict[str, Any]:
    """A result as a row of front.json; ``more`` is appended (figures against other baselines)."""
    figures = {name: getattr(result, name) for name in ROW}
    return figures | {"break_even": break_even(result)} | more


def break_even(result: Result) -> float | None:
    """Images after which the longer load and first call have paid; 0 if they are not longer.

    None where something is not known or the program is no faster than the baseline.
    """
    start = (result.load_s, result.first_call_s)
    start_base = (result.load_base_s, result.first_call_base_s)
    steady = (result.seconds_base, result.seconds_per_image)
    if None in (*start, *start_base, *steady):
        return None
    extra = sum(s or 0.0 for s in start) - sum(s or 0.0 for s in start_base)
    saved = (result.seconds_base or 0.0) - (result.seconds_per_image or 0.0)
    if extra <= 0:
        return 0.0
    return extra / saved if saved > 0 else None


def write_json(path: Path, data: Any) -> None:
    """Write JSON, whole; raises ValueError for a number that is not finite."""
    write_text(path, json.dumps(data, indent=1, allow_nan=False) + "\n")


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
