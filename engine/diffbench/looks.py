"""The checks of honesty on what stage 2 and 3 have measured; see ``engine.honesty``."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

from engine import likeness
from engine.honesty import Declared, Suspicion, suspicions
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
    told = likeness.measured(
        scoring.scorer(), list(own.images), list(ours.images), list(own.prompts)
    )
    # A program that is compared in too few prompts is not judged by its scores either.
    scores = None if told.likeness is None else (own.mean, ours.mean)
    return suspicions(None, None, Declared(), replace(told, again=again, scores=scores))
