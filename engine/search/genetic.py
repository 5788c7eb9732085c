"""The genetic search, made for few evaluations (a few dozen).

The first generation is mostly known-good settings, combined and single, because chance needs more
evaluations than there are to find what has been published. Later generations mutate whatever was
told, slot by slot: a slot holds one technique with its genes, which belong together. Many children
are made for each generation and a small model of the told results picks from them. Crossover and
random newcomers in each generation were tried and left out: with them the tables gave no more
volume. What each mechanism is worth is measured by ``python -m tests.benchmarks.searchers``.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence, Set
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING

from engine.goal import target_of
from engine.results import Genome, Result
from engine.search import Proposal
from engine.search.archive import front, measured, ranks
from engine.search.breeding import Breeder
from engine.search.options import option
from engine.search.random import unseen
from engine.search.space import Space
from engine.search.surrogate import Surrogate
from engine.strategy import Strategy, Value

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

INJECTED = ("recipe", "user", "study", "preset")
"""Origins of results that no searcher proposed; they are parents, but start no generation."""
COMBINED = 0.75
"""Chance that a combination of known-good settings uses a slot."""
BROOD = 192
"""Children made for a generation when they are screened."""
ARCHIVE = 500
"""Newest results that may be parents and that the model learns from, beside the whole front."""
_TRIES = 30
"""Mutations of a proposal that is taken or illegal, before it is drawn at random instead."""


@dataclass(frozen=True)
class Options:
    """What may be switched off, each with 0 or false.

    ``seeds``: start from known-good settings. ``ranked``: draw parents by their rank; otherwise
    all alike. ``mutation``: have children at all. ``screen``: make many children and keep those
    that a model of the told results expects most of.
    """

    seeds: bool = option(True)
    ranked: bool = option(True)
    mutation: bool = option(True)
    screen: bool = option(True)


@dataclass(frozen=True)
class Genetic:
    """Seeds, rank-based parents, mutation, screening."""

    space: Space
    seed: int
    options: Options = Options()
    max_loss: float = 0.05
    memory: bool = False
    speedup: float | None = None
    seconds: float | None = None
    """Of an image."""

    def ask(
        self, count: int, told: Sequence[Result], taken: Set[str], first_trial: int
    ) -> list[Proposal]:
        import numpy as np

        rng = np.random.default_rng((self.seed, first_trial))
        seen = set(taken)
        found: list[Proposal] = []
        first = all(r.origin.partition(":")[0] in INJECTED for r in told)
        known = _Seeds(self.space, rng) if first and self.options.seeds else None
        parents = _Parents(told, self.max_loss, self.memory, self.options.ranked, rng)
        family = _Family(self.space, self.options, parents, rng)
        screened = self.options.screen and not known and bool(parents.able)
        chosen = iter(self._chosen(count, family, seen) if screened else ())
        for index in range(count):
            if screened:
                wanted = next(chosen, None)
            else:
                made = known.propose(index) if known else family.propose()
                wanted = self._new(made, family, seen)
            if wanted is None:
                genome = unseen(self.space, seen, rng)
                if genome is None:
                    break
                wanted = Proposal(genome, "random")
            seen.add(self.space.key(wanted.genome))
            found.append(wanted)
        return found

    def _chosen(self, count: int, family: _Family, seen: Set[str]) -> list[Proposal]:
        """The children of a brood of which the model expects most."""
        brood: dict[str, Proposal] = {}
        for _ in range(BROOD):
            if new := self._new(family.propose(), family, seen):
                brood.setdefault(self.space.key(new.genome), new)
        children = list(brood.values())
        able = family.parents.able
        goal = {"speedup": self.speedup, "seconds": self.seconds}
        target = target_of(goal, able[-1].seconds_base)
        model = Surrogate(self.space, able, self.max_loss, target)
        return [children[i] for i in model.chosen([c.genome for c in children], count)]

    def _new(self, made: Proposal | None, family: _Family, seen: Set[str]) -> Proposal | None:
        """The proposal, mutated until it is legal and not seen; None if that fails."""
        for _ in range(_TRIES):
            if made is None:
                return None
            genome = self.space.found(made.genome)
            if genome is not None and self.space.key(genome) not in seen:
                return dataclasses.replace(made, genome=genome)
            if not self.options.mutation:
                return None
            made = dataclasses.replace(made, genome=family.breeder.mutated(made.genome))
        return None


@dataclass(frozen=True)
class _Seeds:
    """Known-good settings by turns: all slots at their first setting, one technique alone, a
    random combination, the next technique alone, and so on."""

    space: Space
    rng: np.random.Generator

    @cached_property
    def _singles(self) -> list[Genome]:
        """One known-good setting of each strategy, then the next of each; strategies whose slot is
        always on come first in each round, since they are the base of all others."""
        sources = [one for one in self.space.strategies.values() if _worth(one)]
        order = [sources[i] for i in self.rng.permutation(len(sources))]
        order.sort(key=lambda one: not self.space.always(one.slot))
        rounds = max((len(_worth(one)) for one in order), default=0)
        return [
            {one.name: dict(_worth(one)[turn])}
            for turn in range(rounds)
            for one in order
            if turn < len(_worth(one))
        ]

    def propose(self, index: int) -> Proposal | None:
        if not self._singles:
            return None
        if index % 2:
            genome = self._singles[(index // 2) % len(self._singles)]
        else:
            genome = self._combination(full=index == 0)
        return Proposal(self.space.fitted(genome), "seed")

    def _combination(self, full: bool) -> Genome:
        genome: Genome = {}
        for slot, choices in self.space.slots.items():
            able = [one for one in choices if _worth(one)]
            if able and (full or self.space.always(slot) or self.rng.random() < COMBINED):
                one = able[0 if full else self.rng.integers(len(able))]
                settings = _worth(one)
                turn = 0 if full else self.rng.integers(len(settings))
                genome[one.name] = dict(settings[turn])
        return genome


def _worth(one: Strategy) -> list[Mapping[str, Value]]:
    """The known-good settings that can save time. Of a strategy that decides the steps these are
    the ones with no more steps than its default and other than that default, which is what a
    practitioner would use anyway."""
    settings = [known.genes for known in one.known_good]
    for gene in one.genes.values():
        if gene.sets == "steps":
            most = float(gene.default)
            settings = [
                genes
                for genes in settings
                if float(genes.get(gene.name, most)) <= most
                and one.checked(genes) != one.defaults()
            ]
    return settings


class _Parents:
    """Draws told results with weight 1 / (1 + rank), or all alike; failed ones are never drawn."""

    def __init__(
        self,
        told: Sequence[Result],
        max_loss: float,
        memory: bool,
        ranked: bool,
        rng: np.random.Generator,
    ) -> None:
        able = [r for r in told if measured(r, memory=memory)]
        if len(able) > ARCHIVE:
            kept = {r.trial for r in (*front(able, memory=memory), *able[-ARCHIVE:])}
            able = [r for r in able if r.trial in kept]
        self.able = able
        places = ranks(able, max_loss, memory=memory)
        self._weights = [1 / (1 + place) if ranked else 1.0 for place in places]
        self._rng = rng

    @cached_property
    def _ends(self) -> NDArray[np.float64]:
        """Where each result's share of the sum of weights ends."""
        import numpy as np

        ends: NDArray[np.float64] = np.cumsum(self._weights)
        return ends

    def draw(self) -> int:
        """The place of one result."""
        point = self._rng.random() * self._ends[-1]
        return min(int(self._ends.searchsorted(point, side="right")), len(self.able) - 1)

    def one(self) -> Result:
        return self.able[self.draw()]


@dataclass(frozen=True)
class _Family:
    """Parents and the operators by which they have children."""

    space: Space
    options: Options
    parents: _Parents
    rng: np.random.Generator

    @cached_property
    def breeder(self) -> Breeder:
        return Breeder(self.space, self.rng, self.options.seeds)

    def propose(self) -> Proposal | None:
        """A changed copy of a parent; None where there is no parent or nothing mutates."""
        if not self.parents.able or not self.options.mutation:
            return None
        only = self.parents.one()
        genome = self.breeder.mutated(self.space.fitted(only.genome))
        return Proposal(genome, "mutation", (only.trial,))
