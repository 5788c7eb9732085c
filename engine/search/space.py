"""What a search may vary: strategies, their genes' grids, pinned genes."""

from __future__ import annotations

import contextlib
import itertools
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
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
    only: Mapping[str, Mapping[str, Sequence[Value]]] | None = None
    """The values, in order, of each gene that does not keep its whole grid; None if all do."""

    @cached_property
    def slots(self) -> Mapping[str, tuple[Strategy, ...]]:
        """Slot to its strategies, both in the order of application."""
        found: dict[str, tuple[Strategy, ...]] = {}
        for one in sorted(self.strategies.values(), key=lambda s: (s.order, s.name)):
            found[one.slot] = (*found.get(one.slot, ()), one)
        return found

    def always(self, slot: str) -> bool:
        """Whether every genome fills this slot."""
        return slot in self._always

    @cached_property
    def _always(self) -> frozenset[str]:
        return frozenset(
            one.slot
            for one in self.strategies.values()
            if one.name in self.fixed or any(g.sets == "steps" for g in one.genes.values())
        )

    def values(self, strategy: str, gene: str) -> Sequence[Value]:
        """The values that the search may give a gene, in order; a pinned gene has one."""
        return self._values[strategy, gene]

    @cached_property
    def _values(self) -> Mapping[tuple[str, str], tuple[Value, ...]]:
        found: dict[tuple[str, str], tuple[Value, ...]] = {}
        for name, one in self.strategies.items():
            kept: dict[str, Sequence[Value]] = {g.name: g.values() for g in one.genes.values()}
            kept |= (self.only or {}).get(name, {})
            kept |= {gene: [value] for gene, value in self.fixed.get(name, {}).items()}
            found |= {(name, gene): tuple(values) for gene, values in kept.items()}
        return found

    def legal(self, genome: Mapping[str, Mapping[str, object]]) -> bool:
        """Whether the genome is valid and lies in this space. A value off the grid does, unless
        its gene is pinned or has a list of values."""
        return self.found(genome) is not None

    def found(self, genome: Mapping[str, Mapping[str, object]]) -> Genome | None:
        """The canonical form of a legal genome, None for any other."""
        if not genome or not set(genome) <= set(self.strategies):
            return None
        try:
            checked = canonical(genome, self.strategies)
        except UsageError:
            return None
        filled = {self.strategies[name].slot for name in checked}
        inside = all(slot in filled for slot in self.slots if self.always(slot)) and all(
            checked[name][gene] in self.values(name, gene)
            for listed in (self.fixed, self.only or {})
            for name in checked
            for gene in listed.get(name, ())
        )
        return checked if inside and self.allowed(checked) else None

    def fitted(self, genome: Mapping[str, Mapping[str, Value]]) -> Genome:
        """The genome with what is outside the space dropped, pinned genes set, genes that have a
        list of values moved to the nearest of them, and slots that are always on filled with the
        defaults of their first strategy. May still be illegal."""
        kept = {name: dict(genome[name]) for name in genome if name in self.strategies}
        for slot, choices in self.slots.items():
            if self.always(slot) and not any(one.name in kept for one in choices):
                kept[choices[0].name] = {}
        for name in kept:
            kept[name] = self.strategies[name].defaults() | kept[name] | self.fixed.get(name, {})
            for gene, values in (self.only or {}).get(name, {}).items():
                if gene not in self.fixed.get(name, {}):
                    kept[name][gene] = _closest(kept[name][gene], values)
        return kept

    def key(self, genome: Genome) -> str:
        """The genome's key."""
        return key(genome, self.strategies)

    def draw(self, strategy: str, rng: np.random.Generator) -> dict[str, Value]:
        """Random genes of one strategy, uniform over their grids."""
        grids = {gene: self.values(strategy, gene) for gene in self.strategies[strategy].genes}
        return {gene: grid[int(rng.integers(len(grid)))] for gene, grid in grids.items()}

    def sample(self, rng: np.random.Generator) -> Genome:
        """A random legal genome, canonical. Raises UsageError when there seems to be none."""
        for _ in range(_TRIES):
            genome: Genome = {}
            for slot, choices in self.slots.items():
                if self.always(slot) or rng.random() < SLOT_ON:
                    name = choices[rng.integers(len(choices))].name
                    genome[name] = self.draw(name, rng)
            if legal := self.found(genome):
                return legal
        raise UsageError(
            "the search space is empty: no technique applies; "
            + ("; ".join(f"{n}: {why}" for n, why in self.excluded.items()) or "add one")
        )

    def size(self) -> int:
        """Number of genomes on the grids, before conflicts and the caller's predicate."""
        total = 1
        for slot, choices in self.slots.items():
            settings = sum(len(self._settings[one.name]) for one in choices)
            total *= (not self.always(slot)) + settings
        return total - (not any(map(self.always, self.slots)))

    @cached_property
    def _settings(self) -> Mapping[str, tuple[Genome, ...]]:
        """Each strategy alone with each of its settings that is legal in itself; listed once, since
        a search asks for the size again and again."""
        return {name: tuple(self._alone(name)) for name in self.strategies}

    def _alone(self, name: str) -> Iterator[Genome]:
        genes = self.strategies[name].genes
        for values in itertools.product(*(self.values(name, gene) for gene in genes)):
            with contextlib.suppress(UsageError):
                yield canonical({name: dict(zip(genes, values, strict=True))}, self.strategies)

    def genomes(self) -> Iterator[Genome]:
        """Every legal genome on the grids, canonical; only sensible where ``size`` is small."""
        for parts in itertools.product(*(list(self._fillings(slot)) for slot in self.slots)):
            genome = {name: genes for part in parts for name, genes in part.items()}
            if legal := self.found(genome):
                yield legal

    @cached_property
    def listing(self) -> Mapping[str, Genome]:
        """Key to genome for all of ``genomes()``, in that order; listed once."""
        return {self.key(genome): genome for genome in self.genomes()}

    def _fillings(self, slot: str) -> Iterator[Genome]:
        if not self.always(slot):
            yield {}
        for one in self.slots[slot]:
            yield from self._settings[one.name]

    def describe(self) -> dict[str, Any]:
        """What makes this space this space, as JSON: studies of different spaces do not mix. The
        values of a reduced space appear only there, so that other descriptions stay as they were.
        """
        listed = sorted((self.only or {}).items())
        reduced = {name: {g: list(v) for g, v in genes.items()} for name, genes in listed}
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
            **({} if self.only is None else {"only": reduced}),
        }


def _closest(value: Value, values: Sequence[Value]) -> Value:
    """The value if it is listed, else the nearest number, else the first."""
    if value in values:
        return value
    numbers = [v for v in values if isinstance(v, int | float) and not isinstance(v, bool)]
    if not numbers or isinstance(value, str | bool):
        return values[0]
    return min(numbers, key=lambda v: abs(v - value))


def space(
    strategies: Mapping[str, Strategy],
    *,
    exclude: Collection[str] = (),
    fixed: Mapping[str, Mapping[str, object]] | None = None,
    only: Mapping[str, Mapping[str, Sequence[object]] | None] | None = None,
    allowed: Callable[[Genome], bool] = lambda genome: True,
) -> Space:
    """The space of these strategies.

    ``exclude`` names strategies that cannot apply; a mapping gives each its reason. ``fixed`` pins
    genes, such as ``{"sampler": {"steps": 20}}``; its genes are checked. ``only`` reduces the
    space: techniques that it does not name are left out, and a gene that it names takes the listed
    values alone, as in ``{"sampler": {"steps": [5, 10]}, "deepcache": {}}``. ``allowed`` may
    refuse further genomes. Raises UsageError for a name that is not there, for a value that its
    gene does not allow, and for a pinned gene that cannot have its value.
    """
    reasons = dict(exclude) if isinstance(exclude, Mapping) else dict.fromkeys(exclude, "excluded")
    for name in [*reasons, *(fixed or {}), *(only or {})]:
        if name not in strategies:
            raise UsageError(f"unknown technique {name!r}{nearest(name, strategies)}")
    listed = None if only is None else _listed(strategies, only)
    if listed is not None:
        left_out = {name: "not named by search.only" for name in strategies if name not in listed}
        reasons = left_out | reasons
    pinned = _pinned(strategies, fixed or {}, reasons, listed or {})
    owners = {strategies[name].slot: name for name in pinned}
    if len(owners) < len(pinned):
        raise UsageError(f"{' and '.join(pinned)} are pinned and share a slot: pin one of them")
    # A pinned gene acts only through its strategy, so nothing else may take that slot.
    kept = {
        name: one
        for name, one in strategies.items()
        if name not in reasons and owners.get(one.slot, name) == name
    }
    return Space(kept, pinned, reasons, allowed, listed)


def _listed(
    strategies: Mapping[str, Strategy],
    only: Mapping[str, Mapping[str, Sequence[object]] | None],
) -> dict[str, dict[str, list[Value]]]:
    """Checked values of the genes, each once, in the order of the gene's own values."""
    found: dict[str, dict[str, list[Value]]] = {}
    for name, genes in only.items():
        found[name] = {}
        for gene, values in (genes or {}).items():
            if isinstance(values, str) or not isinstance(values, Sequence) or not values:
                raise UsageError(
                    f"search.only.{name}.{gene} is {values!r}; allowed: a list of values, "
                    f"as in search.only.{name}.{gene}=[A,B]"
                )
            legal = [strategies[name].checked({gene: value})[gene] for value in values]
            grid = list(strategies[name].genes[gene].choices)
            unique = list(dict.fromkeys(legal))
            found[name][gene] = sorted(unique, key=grid.index if grid else None)
    return found


def _pinned(
    strategies: Mapping[str, Strategy],
    fixed: Mapping[str, Mapping[str, object]],
    reasons: Mapping[str, str],
    listed: Mapping[str, Mapping[str, Sequence[Value]]],
) -> Genome:
    """Checked genes of the techniques that have any."""
    pinned: Genome = {}
    for name, genes in fixed.items():
        if not genes:
            continue
        if name in reasons:
            raise UsageError(f"technique {name} is pinned but cannot be used: {reasons[name]}")
        checked = strategies[name].checked(genes)
        pinned[name] = {gene: checked[gene] for gene in genes}
        for gene, value in pinned[name].items():
            values = listed.get(name, {}).get(gene, [value])
            if value not in values:
                raise UsageError(
                    f"technique.{name}.{gene} is pinned to {value} and search.only.{name}.{gene} "
                    f"allows {', '.join(map(str, values))}: change one of them"
                )
    return pinned
