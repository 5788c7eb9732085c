"""How genomes vary: mutation of slots and genes.

A slot holds one technique with its genes, which belong together. Children may be illegal; who
breeds checks them.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from engine.results import Genome
from engine.search.space import Space
from engine.strategy import Strategy, Value

if TYPE_CHECKING:
    import numpy as np

TOGGLE = 0.25
"""Chance that a mutation switches a slot rather than moves a gene."""
WIDE = 8.0
"""Ratio of a grid's ends from which a mutation moves by a factor."""
SPREAD = 0.3
"""Standard deviation of that factor's logarithm."""


@dataclass(frozen=True)
class Breeder:
    """Operators on genomes of a space; with ``known`` a slot that is filled anew takes a known-good
    setting as often as a random draw."""

    space: Space
    rng: np.random.Generator
    known: bool = False

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
        if self.known and one.known_good and self.rng.random() < 0.5:
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
