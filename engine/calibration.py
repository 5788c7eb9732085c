"""What a technique measures of this model before a program with it can be written.

A strategy whose settings depend on the checkpoint and its sampler (the threshold of a cache)
defines ``calibrate``, which measures the loaded pipeline, and ``calibrated``, which turns what was
measured and the genes into the keywords that are written into the program as plain literals.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from engine.errors import TrialError
from engine.files import write_text
from engine.genome import key
from engine.requests import Request
from engine.results import Genome
from engine.strategy import Strategy, find

if TYPE_CHECKING:
    from engine.arms import Arms

IMAGES = 2
"""Images that are measured, of as many prompts of the search's part."""


def measured(arms: Arms, genome: Genome) -> dict[str, Any]:
    """What each technique of the genome that asks for it has measured, by its name.

    Measured once for each technique and sampler and kept as JSON under the study's
    ``calibration/``, since a study's jobs may run in other processes. Raises TrialError.
    """
    asking = [name for name in genome if find(name).function("calibrate") is not None]
    return {name: _kept(arms, name, sampler_of(genome)) for name in asking}


def sampler_of(genome: Genome) -> Genome:
    """The part of a genome on which a calibration depends: the scheduler and its steps."""
    return {name: genes for name, genes in genome.items() if find(name).slot == "scheduler"}


def keywords(strategy: Strategy, genes: Mapping[str, Any], found: Mapping[str, Any]) -> Any:
    """The keywords of a strategy's functions in a program: its genes, or what ``calibrated`` makes
    of them. Raises TrialError at stage "generate" when nothing usable was measured."""
    written = strategy.function("calibrated")
    if written is None:
        return genes
    if strategy.name not in found:
        raise TrialError("generate", f"technique {strategy.name} has measured nothing yet")
    try:
        return written(found[strategy.name], **genes)
    except ValueError as error:
        raise TrialError("generate", f"technique {strategy.name}: {error}") from error


def _kept(arms: Arms, name: str, sampler: Genome) -> Any:
    path: Path = arms.folder / "calibration" / f"{name}-{key(sampler)}.json"
    if not path.exists():
        write_text(path, json.dumps(_measure(arms, name, sampler)))
    return json.loads(path.read_text(encoding="utf-8"))


def _measure(arms: Arms, name: str, sampler: Genome) -> Any:
    shape = arms.asked.shapes[0] if arms.asked.shapes else None
    cases = arms.asked.cases(IMAGES, "search")
    requests = [Request((case,), seed, shape) for seed, case in enumerate(cases)]
    worker = arms.load(sampler, arms.program(sampler))
    try:
        with arms.accounts.on("generate"):
            return worker.calibrate(name, requests, arms.subject.denoiser)
    finally:
        worker.close()
