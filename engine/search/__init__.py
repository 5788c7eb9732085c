"""Searchers: they are asked for proposals and told results, and know nothing else.

A searcher keeps no state between calls: what it proposes follows from its seed, the number of the
first trial and the results told so far. Resuming a study is therefore asking again.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence, Set
from dataclasses import dataclass
from typing import Any, Protocol

from engine.errors import UsageError
from engine.genome import key, text_key
from engine.results import Genome, Result
from engine.search.space import Space
from engine.strategy import nearest


@dataclass(frozen=True)
class Proposal:
    """A genome to measure, where it came from (as ``Result.origin``), and its parents' trials.

    A proposal of a language model brings the ``program`` to run in place of the generated one; the
    genome is then the nearest that describes it. ``note`` says in words what is tried.
    """

    genome: Genome
    origin: str
    parents: tuple[int, ...] = ()
    program: str | None = None
    note: str = ""

    @property
    def key(self) -> str:
        """What makes the proposal one of its kind: the genome, or the text of its program."""
        return key(self.genome) if self.program is None else text_key(self.program)


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
    speedup: float | None = None,
    seconds: float | None = None,
) -> Searcher:
    """The searcher of that name with its own options.

    ``max_loss``, ``memory``, ``speedup`` and ``seconds`` (of an image) say what the goal asks for;
    the last two are known to the genetic search alone. Raises UsageError for an unknown name
    or option, for a value out of bounds, and for a space too large for an exhaustive search.
    """
    from engine.search import exhaustive, genetic, optuna_samplers, paper, random
    from engine.search.options import Without, parsed

    makers: Mapping[str, tuple[type, Callable[[Any], Searcher]]] = {
        "genetic": (
            genetic.Options,
            lambda o: genetic.Genetic(space, seed, o, max_loss, memory, speedup, seconds),
        ),
        "random": (Without, lambda o: random.Random(space, seed)),
        "tpe": (
            optuna_samplers.TpeOptions,
            lambda o: optuna_samplers.Tpe(space, seed, o, max_loss, memory),
        ),
        "nsga2": (
            optuna_samplers.Nsga2Options,
            lambda o: optuna_samplers.Nsga2(space, seed, o, max_loss, memory),
        ),
        "exhaustive": (Without, lambda o: exhaustive.Exhaustive(space, seed)),
        "paper": (paper.Options, lambda o: paper.Paper(space, seed, o, memory)),
    }
    if name not in makers:
        raise UsageError(f"unknown search {name!r}{nearest(name, makers)}")
    kind, make = makers[name]
    return make(parsed(kind, name, options or {}))
