"""The genetic search, made for few evaluations (a few dozen).

The first generation is mostly known-good settings, combined and single, because chance needs more
evaluations than there are to find what has been published. Later generations recombine and mutate
whatever was told, slot by slot: a slot holds one technique with its genes, which belong together.
Many children are made for each place and a small model of the told results picks one of them: on
a made-up table of the registry 28 evaluations then gave more volume and a faster best point than
the same search without it, and both more than random draws.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence, Set
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING

from engine.errors import UsageError
from engine.genome import canonical
from engine.results import Genome, Result
from engine.search import Proposal
from engine.search.archive import REFERENCE, hypervolume, measured, ranks
from engine.search.random import unseen
from engine.search.space import Space
from engine.strategy import Strategy, Value, nearest

if TYPE_CHECKING:
    import numpy as np

INJECTED = ("recipe", "user")
"""Origins of results that no searcher proposed; they are parents, but start no generation."""
TOGGLE = 0.25
"""Chance that a mutation switches a slot rather than moves a gene."""
COMBINED = 0.75
"""Chance that a combination of known-good settings uses a slot."""
WIDE = 8.0
"""Ratio of a grid's ends from which a mutation moves by a factor."""
SPREAD = 0.3
"""Standard deviation of that factor's logarithm."""
BROOD = 64
"""Children made for each place when they are screened."""
RIDGE = 0.1
"""Damping of the model: with fewer results than features the coefficients stay small."""
LOSS_FLOOR = 0.02
"""Added to losses before their logarithm: below it differences are noise."""
_TRIES = 30
"""Mutations of a proposal that is taken or illegal, before it is drawn at random instead."""


@dataclass(frozen=True)
class Options:
    """What may be switched off, each with 0 or false.

    ``seeds``: start from known-good settings. ``crossover``: chance of two parents rather than
    one. ``mutation``: chance that a child of two parents is changed too; at 0 nothing mutates.
    ``immigrants``: number of random genomes in each generation. ``screen``: make many children
    for each place and keep the one that a small model of the told results expects most of.
    """

    seeds: bool = True
    crossover: float = 0.5
    mutation: float = 0.5
    immigrants: int = 1
    screen: bool = True


def parse(options: Mapping[str, object]) -> Options:
    """Checked options; raises UsageError that says what is allowed."""
    names = [f.name for f in dataclasses.fields(Options)]
    for name, value in options.items():
        if name not in names:
            raise UsageError(f"search=genetic has no option {name!r}{nearest(name, names)}")
        if name in ("seeds", "screen"):
            if not isinstance(value, bool):
                raise UsageError(f"search.{name} is {value!r}; allowed: true or false")
        elif name == "immigrants":
            if isinstance(value, bool) or not isinstance(value, int) or value < 0:
                raise UsageError(f"search.immigrants is {value!r}; allowed: whole numbers from 0")
        elif isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value <= 1:
            raise UsageError(f"search.{name} is {value!r}; allowed: 0 to 1")
    return Options(**options)  # type: ignore[arg-type]


@dataclass(frozen=True)
class Genetic:
    """Seeds, rank-based parents, slot-wise crossover, mutation, screening, immigrants."""

    space: Space
    seed: int
    options: Options = Options()
    max_loss: float = 0.05
    memory: bool = False

    def ask(
        self, count: int, told: Sequence[Result], taken: Set[str], first_trial: int
    ) -> list[Proposal]:
        import numpy as np

        rng = np.random.default_rng((self.seed, first_trial))
        seen = set(taken)
        found: list[Proposal] = []
        newcomers = min(self.options.immigrants, count)
        first = all(r.origin in INJECTED for r in told)
        known = _Seeds(self.space, rng) if first and self.options.seeds else None
        parents = _Parents(told, self.max_loss, self.memory, rng)
        breed = _Breeder(self.space, self.options, parents, rng)
        screened = self.options.screen and not known and parents.able
        model = _Model(self.space, parents.able, self.max_loss) if screened else None
        for index in range(count):
            wanted: Proposal | None = None
            if index < count - newcomers:
                makes = [known.propose(index)] if known else breed.brood(BROOD if model else 1)
                news = [new for made in makes if (new := self._new(made, breed, seen))]
                wanted = _screened(news, model)
            if wanted is None:
                genome = unseen(self.space, seen, rng)
                if genome is None:
                    break
                wanted = Proposal(genome, "random" if first else "immigrant")
            seen.add(self.space.key(wanted.genome))
            found.append(wanted)
        return found

    def _new(self, made: Proposal | None, breed: _Breeder, seen: Set[str]) -> Proposal | None:
        """The proposal, mutated until it is legal and not seen; None if that fails."""
        for _ in range(_TRIES):
            if made is None:
                return None
            if self.space.legal(made.genome):
                genome = canonical(made.genome, self.space.strategies)
                if self.space.key(genome) not in seen:
                    return dataclasses.replace(made, genome=genome)
            if not self.options.mutation:
                return None
            made = dataclasses.replace(made, genome=breed.mutated(made.genome))
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
    """Draws told results with weight 1 / (1 + rank); failed ones are never drawn."""

    def __init__(
        self, told: Sequence[Result], max_loss: float, memory: bool, rng: np.random.Generator
    ) -> None:
        self.able = [r for r in told if measured(r, memory=memory)]
        weights = [1 / (1 + place) for place in ranks(self.able, max_loss, memory=memory)]
        self._shares = [w / sum(weights) for w in weights]
        self._rng = rng

    def draw(self, count: int) -> list[Result]:
        """Up to ``count`` different results."""
        able = min(count, len(self.able))
        chosen = self._rng.choice(len(self.able), able, replace=False, p=self._shares)
        return [self.able[i] for i in chosen]


@dataclass(frozen=True)
class _Breeder:
    space: Space
    options: Options
    parents: _Parents
    rng: np.random.Generator

    def propose(self) -> Proposal | None:
        """A child of one or two parents; None where there is none or the operators are off."""
        if not self.parents.able or not (self.options.crossover or self.options.mutation):
            return None
        if len(self.parents.able) > 1 and self.rng.random() < self.options.crossover:
            first, second = self.parents.draw(2)
            child = self._crossed(self.space.fitted(first.genome), self.space.fitted(second.genome))
            if self.rng.random() < self.options.mutation:
                child = self.mutated(child)
            return Proposal(child, "crossover", (first.trial, second.trial))
        if not self.options.mutation:
            return None
        (only,) = self.parents.draw(1)
        return Proposal(self.mutated(self.space.fitted(only.genome)), "mutation", (only.trial,))

    def brood(self, size: int) -> list[Proposal | None]:
        """Several children."""
        return [self.propose() for _ in range(size)]

    def _crossed(self, first: Genome, second: Genome) -> Genome:
        """Each slot, technique and genes together, from either parent."""
        child: Genome = {}
        for choices in self.space.slots.values():
            source = first if self.rng.random() < 0.5 else second
            child |= {one.name: dict(source[one.name]) for one in choices if one.name in source}
        return child

    def mutated(self, genome: Genome) -> Genome:
        """One slot switched or one gene moved, and again with even chances."""
        changed = {name: dict(genes) for name, genes in genome.items()}
        while True:
            self._mutate(changed)
            if self.rng.random() < 0.5:
                return changed

    def _mutate(self, genome: Genome) -> None:
        movable = [
            (self.space.strategies[name], gene)
            for name in genome
            for gene in self.space.strategies[name].genes
            if len(self.space.values(name, gene)) > 1
        ]
        if not movable or self.rng.random() < TOGGLE:
            self._switch(genome)
            return
        strategy, gene = movable[self.rng.integers(len(movable))]
        genome[strategy.name][gene] = self._moved(strategy, gene, genome[strategy.name][gene])

    def _switch(self, genome: Genome) -> None:
        """Empty a slot, fill it, or put another technique of the slot in; a slot that is always on
        is only filled anew."""
        slots = list(self.space.slots)
        slot = slots[self.rng.integers(len(slots))]
        present = [one.name for one in self.space.slots[slot] if one.name in genome]
        for name in present:
            del genome[name]
        fresh = [one for one in self.space.slots[slot] if one.name not in present]
        if self.space.always(slot):
            fresh = fresh or list(self.space.slots[slot])
        elif present and (not fresh or self.rng.random() < 0.5):
            return
        one = fresh[self.rng.integers(len(fresh))]
        genome[one.name] = self._filling(one)

    def _filling(self, one: Strategy) -> dict[str, Value]:
        """Genes for a newly filled slot: a known-good setting as often as a random draw."""
        if self.options.seeds and one.known_good and self.rng.random() < 0.5:
            chosen = one.known_good[self.rng.integers(len(one.known_good))]
            return self.space.fitted({one.name: dict(chosen.genes)})[one.name]
        return self.space.draw(one.name, self.rng)

    def _moved(self, strategy: Strategy, gene: str, value: Value) -> Value:
        """Another value: any other choice, a geometric number of grid steps up or down, or on a
        grid that spans a wide range a factor, since 10 steps are to 7 what 30 are to 21."""
        grid = self.space.values(strategy.name, gene)
        if strategy.genes[gene].choices:
            others = [other for other in grid if other != value]
            return others[self.rng.integers(len(others))]
        import numpy as np

        assert not isinstance(value, str)
        here = min(range(len(grid)), key=lambda i: abs(float(grid[i]) - float(value)))
        if float(grid[0]) > 0 and float(grid[-1]) >= WIDE * float(grid[0]):
            wanted = float(value) * float(np.exp(self.rng.normal(0, SPREAD)))
            rest = [i for i in range(len(grid)) if i != here]
            return grid[min(rest, key=lambda i: abs(float(grid[i]) - wanted))]
        stride = int(self.rng.geometric(0.5))
        there = here + (stride if self.rng.random() < 0.5 else -stride)
        return grid[min(max(there, 0), len(grid) - 1)]


class _Model:
    """A ridge regression of speed-up and loss on a genome's slots and genes.

    Techniques multiply in speed and nearly add in loss, so a few results already tell which child
    is hopeless. It only chooses among children; nothing is reported from it.
    """

    def __init__(self, space: Space, told: Sequence[Result], max_loss: float) -> None:
        import numpy as np

        self._space = space
        # Beyond the limit nothing counts, else children crowd where losses are twice the limit.
        self.reference = (REFERENCE[0], max_loss)
        self.points = [(r.speedup or 0.0, max(0.0, r.loss or 0.0)) for r in told]
        rows = np.array([self._features(space.fitted(r.genome)) for r in told])
        targets = np.array([[np.log(s), np.log(LOSS_FLOOR + x)] for s, x in self.points])
        self._middle = targets.mean(axis=0)
        self._mean = rows.mean(axis=0)
        rows = rows - self._mean
        damped = rows.T @ rows + RIDGE * np.eye(rows.shape[1])
        self._weights = np.linalg.solve(damped, rows.T @ (targets - self._middle))

    def _features(self, genome: Genome) -> list[float]:
        """For each strategy whether it is on; for each number its place on the grid and its
        logarithm, for each choice one column; all relative to the default and 0 where it is off."""
        import math

        found: list[float] = []
        for name, one in self._space.strategies.items():
            on = name in genome
            found.append(float(on))
            for gene in one.genes.values():
                value = genome[name][gene.name] if on else gene.default
                if gene.choices:
                    found += [float(value == c) - float(gene.default == c) for c in gene.choices]
                    continue
                low, high = gene.low or 0.0, gene.high or 0.0
                found.append((float(value) - float(gene.default)) / max(high - low, 1e-9))
                if low > 0:
                    found.append(math.log(float(value) / float(gene.default)))
        return found

    def expect(self, genome: Genome) -> tuple[float, float]:
        """Expected speed-up and loss."""
        import numpy as np

        row = np.array(self._features(genome)) - self._mean
        speed, loss = self._middle + row @ self._weights
        return float(np.exp(speed)), float(np.exp(loss) - LOSS_FLOOR)


def _screened(children: Sequence[Proposal], model: _Model | None) -> Proposal | None:
    """The child that adds most to the volume of what was told and expected so far."""
    if not children or model is None:
        return children[0] if children else None
    points = [model.expect(child.genome) for child in children]
    volumes = [hypervolume([*model.points, point], model.reference) for point in points]
    best = max(range(len(children)), key=lambda i: volumes[i])
    model.points.append(points[best])
    return children[best]
