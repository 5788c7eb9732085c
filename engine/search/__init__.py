"""Searchers: they are asked for proposals and told results, and know nothing else.

A searcher keeps no state between calls: what it proposes follows from its seed, the number of the
first trial and the results told so far. Resuming a study is therefore asking again.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence, Set
from dataclasses import dataclass
from typing import Protocol

from engine.errors import UsageError
from engine.results import Genome, Result
from engine.search.space import Space
from engine.strategy import nearest


@dataclass(frozen=True)
class Proposal:
    """A genome to measure, where it came from (as ``Result.origin``), and its parents' trials."""

    genome: Genome
    origin: str
    parents: tuple[int, ...] = ()


class Searcher(Protocol):
    """Proposes genomes."""

    def ask(
        self, count: int, told: Sequence[Result], taken: Set[str], first_trial: int
    ) -> list[Proposal]:
        """Up to ``count`` new proposals, legal in the space; fewer when the space is exhausted.

        ``told`` are all results so far, injected ones included. ``taken`` are the keys of genomes
        that were claimed before; none is proposed again, nor any genome twice in one call.
        ``first_trial`` is the number that the first proposal will get.
        """
        ...


def searcher(
    name: str,
    space: Space,
    seed: int,
    options: Mapping[str, object] | None = None,
    *,
    max_loss: float = 0.05,
    memory: bool = False,
) -> Searcher:
    """The searcher of that name with its own options.

    ``max_loss`` and ``memory`` say what the goal asks for. Raises UsageError for an unknown name
    or option and for a value out of bounds.
    """
    from engine.search.genetic import Genetic, parse
    from engine.search.random import Random

    given = dict(options or {})
    if name == "genetic":
        return Genetic(space, seed, parse(given), max_loss, memory)
    if name == "random":
        if given:
            raise UsageError(f"search.{min(given)} is unknown: search=random has no options")
        return Random(space, seed)
    raise UsageError(f"unknown search {name!r}{nearest(name, ('genetic', 'random'))}")
