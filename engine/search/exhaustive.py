"""Exhaustive search: every genome of a small space, the truth that others are held against."""

from __future__ import annotations

from collections.abc import Sequence, Set
from dataclasses import dataclass

from engine.errors import UsageError
from engine.results import Result
from engine.search import Proposal
from engine.search.space import Space

LIMIT = 50_000
"""Genomes on the grids up to which a space is worth listing: days of measurements."""


@dataclass(frozen=True)
class Exhaustive:
    """Goes through all genomes in one order that the seed shuffles.

    Shuffled, because what a stopped run has measured is then a fair sample of the space.
    """

    space: Space
    seed: int

    def __post_init__(self) -> None:
        if self.space.size() > LIMIT:
            raise UsageError(
                f"search=exhaustive would measure {self.space.size():,} genomes; allowed: at most "
                f"{LIMIT:,}. Name the techniques and values to try, as in "
                "'search.only={sampler:{steps:[5,10,20]},deepcache:{interval:[2,3]}}'"
            )

    def ask(
        self, count: int, told: Sequence[Result], taken: Set[str], first_trial: int
    ) -> list[Proposal]:
        import numpy as np

        keys = list(self.space.listing)
        order = np.random.default_rng(self.seed).permutation(len(keys))
        rest = [keys[i] for i in order if keys[i] not in taken]
        return [Proposal(self.space.listing[key], "exhaustive") for key in rest[:count]]
