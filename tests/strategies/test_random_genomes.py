"""Random legal genomes over the whole registry run, and every technique in them takes effect."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np
import pytest
import torch

from engine.genome import describe
from engine.results import Genome
from engine.search.space import Space, space
from engine.strategy import Strategy, registry
from engine.worker.probe import inapplicable
from tests.strategies.tiny import ARCHITECTURES

STEPS = 3
SAMPLER: dict[str, dict[str, object]] = {"sampler": {"steps": STEPS}}
FLOW: dict[str, dict[str, object]] = {"flow_sampler": {"steps": STEPS}}
PROMPTS = ["a red circle on a white background", "a blue ring on a black background"]


def refused(one: Strategy, pipe: Any) -> str | None:
    """Why the technique cannot apply to this pipeline on a CPU, as a study asks it."""
    denoiser = "unet" if hasattr(pipe, "unet") else "transformer"
    return inapplicable(one, pipe, denoiser, "cpu")


def here(pipe: Any, without: str = "", **pinned: dict[str, object]) -> Space:
    """All techniques that can apply but for one, with pinned genes."""
    left_out = {name: refused(one, pipe) for name, one in registry().items()}
    reasons = {name: why for name, why in left_out.items() if why is not None or name == without}
    sampler = SAMPLER if left_out["sampler"] is None else FLOW
    made = space(registry(), exclude=reasons, fixed=sampler | pinned)
    assert len(made.strategies) > 8
    return made


def failure(ready: Callable[..., Any], genome: Genome) -> str | None:
    """What is wrong with the images of a genome; a refusal by a technique is nothing wrong."""
    try:
        made = ready(genome, steps=STEPS)
    except ValueError as refusal:
        # One clear sentence, which a study shows as the reason of the trial.
        return None if str(refusal).count("\n") == 0 else str(refusal)
    try:
        # Decoded and two at once: techniques for the autoencoder act only then.
        image = made.latents(PROMPTS, output_type="pt")
    except Exception as error:
        return f"{type(error).__name__}: {error}"
    if not torch.isfinite(image).all():
        return "not every value is finite"
    reasons = {name: why for name, why in made.reasons().items() if why is not None}
    return str(reasons) if reasons else None


def failures(ready: Callable[..., Any], where: Space, count: int) -> dict[str, str]:
    """Of so many random genomes, always the same ones, those that fail, with the reason."""
    rng = np.random.default_rng(0)
    genomes = [where.sample(rng) for _ in range(count)]
    results = {describe(genome): failure(ready, genome) for genome in genomes}
    return {genome: why for genome, why in results.items() if why is not None}


def test_random_genomes_run_and_take_effect(
    ready: Callable[..., Any], fresh: Callable[[], Any]
) -> None:
    assert failures(ready, here(fresh(), without="compile"), 22) == {}


def test_random_genomes_are_compiled(ready: Callable[..., Any], fresh: Callable[[], Any]) -> None:
    # Tracing the whole denoiser, or with sizes as unknowns, takes many seconds a genome.
    compiled = here(fresh(), compile={"scope": "regional", "dynamic": False})
    assert failures(ready, compiled, 3) == {}


@pytest.mark.parametrize("start", [0.0, 0.25])
@pytest.mark.parametrize("stop", [0.4, 0.85])
def test_faster_cache_follows_a_batch_that_grows_and_shrinks_with_guidance(
    ready: Callable[..., Any], start: float, stop: float
) -> None:
    """The batch changes before and behind the start of the cache, which must not estimate from
    what it does not have, nor take a single half for two."""
    genome: Genome = {
        "flow_sampler": {"steps": 8},
        "faster_cache": {"start": 0.5, "uncond": 5, "weight": 1.0},
        "guidance": {"start": start, "stop": stop},
    }
    made = ready(genome, pipe=ARCHITECTURES["sd3"]())
    assert torch.isfinite(made.latents()).all()
    assert set(made.reasons().values()) == {None}


@pytest.mark.slow
def test_many_random_genomes_run_and_take_effect(
    ready: Callable[..., Any], fresh: Callable[[], Any]
) -> None:
    assert failures(ready, here(fresh()), 100) == {}


@pytest.mark.slow
@pytest.mark.parametrize("model", ARCHITECTURES)
def test_many_random_genomes_run_on_every_architecture(
    ready: Callable[..., Any], model: str
) -> None:
    """Some are found to act on nothing, which a study shows; none may break or draw nonsense."""
    rng = np.random.default_rng(1)
    where = here(ARCHITECTURES[model](), without="compile")
    broken = {}
    for genome in (where.sample(rng) for _ in range(100)):
        why = failure(partial(ready, pipe=ARCHITECTURES[model]()), genome)
        if why is not None and not why.startswith("{"):
            broken[describe(genome)] = why
    assert broken == {}


@pytest.mark.slow
@pytest.mark.parametrize("model", ARCHITECTURES)
def test_random_genomes_are_compiled_on_every_architecture(
    ready: Callable[..., Any], model: str
) -> None:
    """The blocks are compiled beside whatever caches, hooks and layouts the genome has."""
    rng = np.random.default_rng(2)
    where = here(ARCHITECTURES[model](), compile={"scope": "regional", "dynamic": False})
    broken = {}
    for genome in (where.sample(rng) for _ in range(12)):
        why = failure(partial(ready, pipe=ARCHITECTURES[model]()), genome)
        if why is not None and not why.startswith("{"):
            broken[describe(genome)] = why
    assert broken == {}
