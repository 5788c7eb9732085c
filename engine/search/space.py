"""What a search may vary: strategies, their genes' grids, pinned genes."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Collection, Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any

from engine.errors import UsageError
from engine.genome import canonical, key
from engine.results import Genome
from engine.strategy import Strategy, Value, nearest

if TYPE_CHECKING:
    import numpy as np

SLOT_ON = 0.5
"""Chance that a random genome uses a slot that may be empty."""
_TRIES = 1000
"""Draws after which a space counts as having no legal genome."""


@dataclass(frozen=True)
class Space:
    """The strategies that may be on, with pinned genes and a caller's own predicate.

    A slot is always on when one of its strategies has a gene that decides ``steps``, and when one
    of its genes is pinned: a pinned gene acts only through a strategy that is on. The empty genome
    is the unaccelerated model and never belongs to a space.
    """

    strategies: Mapping[str, Strategy]
    fixed: Genome
    excluded: Mapping[str, str]
    """Name to reason, for the strategies left out."""
    allowed: Callable[[Genome], bool]

    @cached_property
    def slots(self) -> Mapping[str, tuple[Strategy, ...]]:
        """Slot to its strategies, both in the order of application."""
        found: dict[str, tuple[Strategy, ...]] = {}
        for one in sorted(self.strategies.values(), key=lambda s: (s.order, s.name)):
            found[one.slot] = (*found.get(one.slot, ()), one)
        return found

    def always(self, slot: str) -> bool:
        """Whether every genome fills this slot."""
        return any(
            one.name in self.fixed or any(g.sets == "steps" for g in one.genes.values())
            for one in self.slots[slot]
        )

    def values(self, strategy: str, gene: str) -> list[Value]:
        """The values that the search may give a gene, in order; a pinned gene has one."""
        pinned = self.fixed.get(strategy, {})
        if gene in pinned:
            return [pinned[gene]]
        return self.strategies[strategy].genes[gene].values()

    def legal(self, genome: Mapping[str, Mapping[str, object]]) -> bool:
        """Whether the genome is valid and lies in this space (off-grid values do)."""
        if not genome or not set(genome) <= set(self.strategies):
            return False
        try:
            checked = canonical(genome, self.strategies)
        except UsageError:
            return False
        filled = {self.strategies[name].slot for name in checked}
        return (
            all(slot in filled for slot in self.slots if self.always(slot))
            and all(
                checked[name][gene] == value
                for name, genes in self.fixed.items()
                if name in checked
                for gene, value in genes.items()
            )
            and self.allowed(checked)
        )

    def fitted(self, genome: Mapping[str, Mapping[str, Value]]) -> Genome:
        """The genome with what is outside the space dropped, pinned genes set, and slots that are
        always on filled with the defaults of their first strategy. May still be illegal."""
        kept = {name: dict(genome[name]) for name in genome if name in self.strategies}
        for slot, choices in self.slots.items():
            if self.always(slot) and not any(one.name in kept for one in choices):
                kept[choices[0].name] = {}
        for name in kept:
            kept[name] = self.strategies[name].defaults() | kept[name] | self.fixed.get(name, {})
        return kept

    def key(self, genome: Genome) -> str:
        """The genome's key."""
        return key(genome, self.strategies)

    def draw(self, strategy: str, rng: np.random.Generator) -> dict[str, Value]:
        """Random genes of one strategy, uniform over their grids."""
        grids = {gene: self.values(strategy, gene) for gene in self.strategies[strategy].genes}
        return {gene: grid[rng.integers(len(grid))] for gene, grid in grids.items()}

    def sample(self, rng: np.random.Generator) -> Genome:
        """A random legal genome, canonical. Raises UsageError when there seems to be none."""
        for _ in range(_TRIES):
            genome: Genome = {}
            for slot, choices in self.slots.items():
                if self.always(slot) or rng.random() < SLOT_ON:
                    name = choices[rng.integers(len(choices))].name
                    genome[name] = self.draw(name, rng)
            if self.legal(genome):
                return canonical(genome, self.strategies)
        raise UsageError(
            "the search space is empty: no technique applies; "
            + ("; ".join(f"{n}: {why}" for n, why in self.excluded.items()) or "add one")
        )

    def size(self) -> int:
        """Number of genomes on the grids, before conflicts and the caller's predicate."""
        total = 1
        for slot, choices in self.slots.items():
            total *= (not self.always(slot)) + sum(map(self._settings, choices))
        return total - (not any(map(self.always, self.slots)))

    def _settings(self, strategy: Strategy) -> int:
        count = 1
        for gene in strategy.genes:
            count *= len(self.values(strategy.name, gene))
        return count

    def genomes(self) -> Iterator[Genome]:
        """Every legal genome on the grids, canonical; only sensible where ``size`` is small."""
        for parts in itertools.product(*(list(self._fillings(slot)) for slot in self.slots)):
            genome = {name: genes for part in parts for name, genes in part.items()}
            if self.legal(genome):
                yield canonical(genome, self.strategies)

    def _fillings(self, slot: str) -> Iterator[Genome]:
        if not self.always(slot):
            yield {}
        for one in self.slots[slot]:
            grids = [self.values(one.name, gene) for gene in one.genes]
            for values in itertools.product(*grids):
                yield {one.name: dict(zip(one.genes, values, strict=True))}

    def describe(self) -> dict[str, Any]:
        """What makes this space this space, as JSON: studies of different spaces do not mix."""
        return {
            "techniques": {
                name: {
                    "slot": one.slot,
                    "genes": {
                        gene.name: list(gene.choices) or [gene.low, gene.high, gene.step]
                        for gene in one.genes.values()
                    },
                }
                for name, one in sorted(self.strategies.items())
            },
            "fixed": {name: dict(genes) for name, genes in sorted(self.fixed.items())},
        }


def space(
    strategies: Mapping[str, Strategy],
    *,
    exclude: Collection[str] = (),
    fixed: Mapping[str, Mapping[str, object]] | None = None,
    allowed: Callable[[Genome], bool] = lambda genome: True,
) -> Space:
    """The space of these strategies.

    ``exclude`` names strategies that cannot apply; a mapping gives each its reason. ``fixed`` pins
    genes, such as ``{"sampler": {"steps": 20}}``; its genes are checked. ``allowed`` may refuse
    further genomes. Raises UsageError for a name that is not there.
    """
    reasons = dict(exclude) if isinstance(exclude, Mapping) else dict.fromkeys(exclude, "excluded")
    for name in [*reasons, *(fixed or {})]:
        if name not in strategies:
            raise UsageError(f"unknown technique {name!r}{nearest(name, strategies)}")
    pinned: Genome = {}
    for name, genes in (fixed or {}).items():
        if not genes:
            continue
        if name in reasons:
            raise UsageError(f"technique {name} is pinned but cannot be used: {reasons[name]}")
        checked = strategies[name].checked(genes)
        pinned[name] = {gene: checked[gene] for gene in genes}
    owners = {strategies[name].slot: name for name in pinned}
    if len(owners) < len(pinned):
        raise UsageError(f"{' and '.join(pinned)} are pinned and share a slot: pin one of them")
    # A pinned gene acts only through its strategy, so nothing else may take that slot.
    kept = {
        name: one
        for name, one in strategies.items()
        if name not in reasons and owners.get(one.slot, name) == name
    }
    return Space(kept, pinned, reasons, allowed)
