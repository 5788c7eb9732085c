"""Whether a program does what it says, and whether its figures can be true.

The text of a program (``Reading``), what the worker saw (``Evidence``) and what the coordinator
measured with its own clock and pixels must agree. Each way of not agreeing has a code, D1 to D28,
and a sentence. What a program could forge in its own process, it cannot forge in all three.

Codes without a rule here are kept out by how programs are run: the clock is not theirs
(D12, D13), the baseline is not theirs and no other process is in reach (D16, D26), nothing can be
written or read but what a sandbox names (D17, D18, D19), and what a program says is data (D27,
:func:`quoted`).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING

from engine.honesty import pictures, running, settings
from engine.honesty.facts import Again, Declared, Measurements, Suspicion, Variant
from engine.honesty.text import catches_everything, lint, quoted
from engine.worker.evidence import Evidence

if TYPE_CHECKING:
    from engine.reading import Reading

__all__ = [
    "Again",
    "Declared",
    "Measurements",
    "Suspicion",
    "Variant",
    "capped",
    "catches_everything",
    "lint",
    "quoted",
    "reasons",
    "suspicions",
]

CLIP_CAP = 1.05
"""Most of the baseline's score that counts for a program (see :func:`capped`)."""
Rule = Callable[["Reading | None", "Evidence | None", Declared, Measurements], Iterator[Suspicion]]
RULES: tuple[Rule, ...] = (*pictures.RULES, *running.RULES, *settings.RULES)


def suspicions(
    reading: Reading | None,
    evidence: Evidence | None,
    declared: Declared,
    measurements: Measurements | None = None,
) -> tuple[Suspicion, ...]:
    """Every suspicion that what is given supports, in the order of the codes.

    Each rule needs some of the four; what is missing it passes over.
    """
    told = measurements or Measurements()
    found = [one for rule in RULES for one in rule(reading, evidence, declared, told)]
    return tuple(sorted(found, key=lambda one: int(one.code[1:])))


def capped(score: float, base: float) -> float:
    """A score as it counts for a program: what exceeds the baseline's by more than a twentieth is
    no quality but a way to please the scorer."""
    return min(score, CLIP_CAP * base)


def reasons(found: Sequence[Suspicion]) -> str:
    """Suspicions as one reason of a failed trial."""
    return "; ".join(map(str, found))
