"""The selector of DiffAgent (arXiv 2601.03178), without its language model.

Every plan has a fitness, a weighted sum of speed-up and loss, and is stored. The fitness of the
stored plans is normalised to probabilities by which M of them are drawn; each is rewritten, and
P - M new plans join them. Nothing is crossed, nothing screened, no loss refused. P is
``search.population`` and the number of generations ``search.generations``. A new plan is a random
composition here, and the rewrite of a plan is one mutation of it.

What the paper leaves open is an option whose default is the plainest reading of its words.
"""

from __future__ import annotations

from collections.abc import Sequence, Set
from dataclasses import dataclass
from typing import TYPE_CHECKING

from engine.results import Result
from engine.search import Proposal
from engine.search.archive import measured
from engine.search.breeding import Breeder
from engine.search.options import option
from engine.search.random import unseen
from engine.search.space import Space

if TYPE_CHECKING:
    import numpy as np

_TRIES = 30
"""Rewrites of a drawn plan that are illegal or taken, before a new plan stands in."""


@dataclass(frozen=True)
class Options:
    """What the paper leaves open, beside M.

    ``refined``: M, the plans of a generation that are rewritten. ``speed_weight`` and
    ``loss_weight``: fitness is the first times the speed-up minus the second times the loss; by
    default a loss of 5 % costs as much as a speed-up of 1. ``normalise``: proportional (shares of
    the fitness, a negative one counts as zero) or softmax. ``temperature``: of the softmax, in
    units of fitness. ``replacement``: whether a plan may be drawn twice for one generation.
    ``pool``: draw from all stored plans or from those of the last generation.
    """

    refined: int = option(4)
    speed_weight: float = option(1.0)
    loss_weight: float = option(20.0)
    normalise: str = option("proportional", choices=("proportional", "softmax"))
    temperature: float = option(1.0, low=0.001)
    replacement: bool = option(False)
    pool: str = option("all", choices=("all", "last"))


@dataclass(frozen=True)
class Paper:
    """Draws by fitness, rewrites what it drew, adds new plans."""

    space: Space
    seed: int
    options: Options = Options()
    memory: bool = False

    def ask(
        self, count: int, told: Sequence[Result], taken: Set[str], first_trial: int
    ) -> list[Proposal]:
        import numpy as np

        rng = np.random.default_rng((self.seed, first_trial))
        breeder = Breeder(self.space, rng)
        seen = set(taken)
        found: list[Proposal] = []
        for drawn in self.drawn(min(self.options.refined, count), count, told, rng):
            for _ in range(_TRIES):
                plan = self.space.found(breeder.mutated(self.space.fitted(drawn.genome)))
                if plan is not None and self.space.key(plan) not in seen:
                    found.append(Proposal(plan, "mutation", (drawn.trial,)))
                    seen.add(self.space.key(plan))
                    break
        while len(found) < count:
            plan = unseen(self.space, seen, rng)
            if plan is None:
                break
            seen.add(self.space.key(plan))
            found.append(Proposal(plan, "random"))
        return found

    def drawn(
        self, wanted: int, count: int, told: Sequence[Result], rng: np.random.Generator
    ) -> list[Result]:
        """The plans to rewrite, by their probabilities; fewer where fewer can be drawn."""
        stored = [r for r in told if measured(r, memory=self.memory)]
        if self.options.pool == "last":
            stored = stored[-count:]
        if not stored:
            return []
        shares = self._probabilities(stored)
        replace = self.options.replacement
        able = wanted if replace else min(wanted, sum(share > 0 for share in shares))
        return [stored[i] for i in rng.choice(len(stored), able, replace=replace, p=shares)]

    def fitness(self, result: Result) -> float:
        """The weighted sum of speed-up and loss (a fraction); a loss counts against the plan."""
        return self.options.speed_weight * (result.speedup or 0.0) - self.options.loss_weight * max(
            0.0, result.loss or 0.0
        )

    def _probabilities(self, stored: Sequence[Result]) -> list[float]:
        """One share each, summing to 1; even shares where no fitness is positive."""
        import math

        values = [self.fitness(r) for r in stored]
        if self.options.normalise == "softmax":
            top = max(values)
            weights = [math.exp((v - top) / self.options.temperature) for v in values]
        else:
            weights = [max(v, 0.0) for v in values]
        total = sum(weights)
        return [w / total for w in weights] if total > 0 else [1 / len(values)] * len(values)
