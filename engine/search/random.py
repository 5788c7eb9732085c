"""Random search: the yardstick that any other searcher has to beat."""

from __future__ import annotations

from collections.abc import Sequence, Set
from dataclasses import dataclass
from typing import TYPE_CHECKING

from engine.results import Genome, Result
from engine.search import Proposal
from engine.search.space import Space

if TYPE_CHECKING:
    import numpy as np

_TRIES = 200
"""Draws in a row that may all be taken before the rest of the space is counted out."""
_COUNTABLE = 50_000
"""Size up to which the rest of a space is enumerated rather than given up."""


@dataclass(frozen=True)
class Random:
    """Draws each slot with even chances and its genes uniformly."""

    space: Space
    seed: int

    def ask(
        self, count: int, told: Sequence[Result], taken: Set[str], first_trial: int
    ) -> list[Proposal]:
        import numpy as np

        rng = np.random.default_rng((self.seed, first_trial))
        seen = set(taken)
        found: list[Proposal] = []
        while len(found) < count:
            genome = unseen(self.space, seen, rng)
            if genome is None:
                break
            seen.add(self.space.key(genome))
            found.append(Proposal(genome, "random"))
        return found


def unseen(space: Space, seen: Set[str], rng: np.random.Generator) -> Genome | None:
    """A random genome whose key is not in ``seen``; None when the space is exhausted."""
    for _ in range(_TRIES):
        genome = space.sample(rng)
        if space.key(genome) not in seen:
            return genome
    if space.size() > _COUNTABLE:
        return None
    rest = [genome for key, genome in space.listing.items() if key not in seen]
    return rest[rng.integers(len(rest))] if rest else None
