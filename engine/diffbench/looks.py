"""The checks of honesty on what stage 2 and 3 have measured; see ``engine.honesty``."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np

from engine import pixels
from engine.honesty import Declared, Measurements, Suspicion, suspicions
from engine.honesty.facts import Again

if TYPE_CHECKING:
    from engine.diffbench.bench import Pictures
    from engine.reading import Reading
    from engine.scoring import Scoring
    from engine.worker.evidence import Evidence

ATTRIBUTES = ("D4", "D5", "D6", "D7", "D8", "D20", "D21", "D24", "D25")
"""Suspicions that contradict what a program says of itself; all others concern its pictures."""


def of_program(
    text: str,
    methods: Sequence[str],
    reading: Reading,
    seen: Evidence,
    base: Evidence | None,
    threads: int,
) -> tuple[Suspicion, ...]:
    """What text and counters give away; ``base`` is what was seen of the reference program, which
    has the weights that belong to the task."""
    # Of the reference only the weights are compared: it draws by other means, in another size.
    known = None if base is None else replace(base, latent=(), decoded=(), guided=None)
    declared = Declared(text=text, base=known, methods=tuple(methods), threads=threads)
    return suspicions(reading, seen, declared)


def of_pictures(
    scoring: Scoring, own: Pictures, ours: Pictures, again: Again | None
) -> tuple[Suspicion, ...]:
    """What the pictures give away, beside the reference's of the same captions and seeds."""
    images, base, prompts = list(own.images), list(ours.images), list(own.prompts)
    nearest = pixels.nearest_pair(images, prompts)
    told = Measurements(
        distances=nearest and (nearest[0], prompts[nearest[1]], prompts[nearest[2]]),
        again=again,
    )
    if all(a.shape == b.shape for a, b in zip(images, base, strict=True)):
        told = replace(told, detail=pixels.detail_kept(images, base))
    scorer = scoring.scorer()
    if scorer is not None and len(set(prompts)) > 2:
        alike, among = scorer.likeness(images, base), scorer.likeness(base, base)
        others = np.array([[a != b for b in prompts] for a in prompts])
        told = replace(
            told,
            likeness=(float(np.diag(alike).mean()), float(among[others].mean())),
            scores=(own.mean, ours.mean),
        )
    return suspicions(None, None, Declared(), told)
