"""A small model of what was told, which chooses among children; nothing is reported from it.

Techniques nearly multiply in speed and nearly add in loss, so a few results already tell which
child is hopeless. What they do to each other is the rest: the model is a ridge regression of both
logarithms on a genome's features and, with a weight, on all products of two of them.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING

from engine.results import Genome, Result
from engine.search.space import Space

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    Array = NDArray[np.float64]

LOSS_FLOOR = 0.02
"""Added to losses before their logarithm: below it differences are noise."""
NEAR = 0.9
"""Share of a speed-up that is near to it."""
HOPEFUL = 0.5
"""How near a child must come where none is expected to add anything; which one is then chance,
since what nobody expects is found by trying."""
RIDGES = (0.01, 0.1, 1.0)
"""Dampings to choose from: the share of noise in what was measured."""
INTERACTIONS = (0.0, 0.3, 1.0)
"""Weights of the products of features to choose from."""


class Surrogate:
    """Expects a speed-up and a loss of a genome, and picks those that add most.

    What was told is judged by what the model expects of it too: a loss over a few prompts is so
    noisy that the luckiest ones would otherwise hide every honest improvement. Where a speed-up is
    ``asked`` for, only what comes near to it counts, or near to the best that is expected at all.
    """

    def __init__(
        self, space: Space, told: Sequence[Result], max_loss: float, asked: float = 1.0
    ) -> None:
        import numpy as np

        self._space = space
        self._max_loss = max_loss
        self._asked = asked
        rows = np.array([self._features(space.fitted(r.genome)) for r in told])
        speeds = np.array([r.speedup or 1.0 for r in told])
        losses = np.array([max(0.0, r.loss or 0.0) for r in told])
        self._speed = _Ridge(rows, np.log(speeds))
        self._loss = _Ridge(rows, np.log(LOSS_FLOOR + losses))
        self._speeds, self._losses = speeds, self._expected(rows)[1]

    def chosen(self, genomes: Sequence[Genome], count: int) -> list[int]:
        """Indices of up to ``count`` genomes, each the one that adds most to the volume of what
        was told and of those before it."""
        import numpy as np

        if not genomes:
            return []
        speeds, losses = self._expected(np.array([self._features(g) for g in genomes]))
        known = self._speeds, self._losses
        able = np.append(speeds, known[0])[np.append(losses, known[1]) < self._max_loss]
        least = max(1.0, NEAR * min(self._asked, able.max(initial=1.0)))
        found: list[int] = []
        for _ in range(min(count, len(genomes))):
            edges, best = _stairs(*known, self._max_loss, least)
            gains = _gains(speeds, losses, edges, best)
            if gains.max(initial=0.0) <= 0:
                gains = (_nearness(speeds, losses, edges, best) >= HOPEFUL).astype(float)
            gains[found] = -1.0
            found.append(int(np.argmax(gains)))
            known = np.append(known[0], speeds[found[-1]]), np.append(known[1], losses[found[-1]])
        return found

    def _expected(self, rows: Array) -> tuple[Array, Array]:
        """Speed-ups and losses, the latter at least 0."""
        import numpy as np

        losses = np.exp(self._loss.at(rows)) - LOSS_FLOOR
        return np.exp(self._speed.at(rows)), np.maximum(losses, 0.0)

    def _features(self, genome: Genome) -> list[float]:
        """For each strategy whether it is on; for each number its place on the grid and its
        logarithm, for each choice one column; all relative to the default and 0 where it is off."""
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


def _stairs(speeds: Array, losses: Array, limit: float, least: float = 1.0) -> tuple[Array, Array]:
    """Losses at which a better speed-up than ``least`` begins, up to the limit, and the best up to
    each.

    Beyond the limit nothing counts, else children crowd where losses are twice the limit.
    """
    import numpy as np

    order = np.argsort(losses, kind="stable")
    order = order[losses[order] < limit]
    best = np.maximum.accumulate(np.concatenate([[least], speeds[order]]))
    steps = np.concatenate([[True], np.diff(best) > 0])
    edges = np.concatenate([[0.0], losses[order]])[steps]
    return np.append(edges, limit), best[steps]


def _gains(speeds: Array, losses: Array, edges: Array, best: Array) -> Array:
    """The volume that each point alone would add above the stairs."""
    import numpy as np

    widths = np.maximum(edges[1:] - np.maximum(edges[:-1], losses[:, None]), 0.0)
    gains: Array = (widths * np.maximum(speeds[:, None] - best, 0.0)).sum(axis=1)
    return gains


def _nearness(speeds: Array, losses: Array, edges: Array, best: Array) -> Array:
    """How near each point comes to adding something, where none adds any: its speed-up as a share
    of the stairs' at its loss, less by as much as its loss exceeds the limit."""
    import numpy as np

    place = np.clip(np.searchsorted(edges, losses, side="right") - 1, 0, len(best) - 1)
    found: Array = speeds / best[place] * np.minimum(1.0, edges[-1] / np.maximum(losses, 1e-9))
    return found


class _Ridge:
    """Ridge regression with interactions, in its dual form: its cost is set by the number of
    results, not by the number of products. Damping and weight are those under which what was told
    is most likely (the evidence of the equivalent Gaussian process)."""

    def __init__(self, rows: Array, values: Array) -> None:
        import numpy as np

        self._mean, self._middle = rows.mean(axis=0), values.mean()
        self._rows = rows - self._mean
        wanted = values - self._middle
        most = -math.inf
        for weight in INTERACTIONS:
            kernel = _kernel(self._rows, self._rows, weight)
            for damping in RIDGES:
                factor = np.linalg.cholesky(kernel + damping * np.eye(len(rows)))
                half = np.linalg.solve(factor, wanted)
                scale = max(float(half @ half) / len(rows), 1e-12)
                evidence = -len(rows) / 2 * math.log(scale) - np.log(np.diag(factor)).sum()
                if evidence > most:
                    most, self._weight = evidence, weight
                    self._solution = np.linalg.solve(factor.T, half)

    def at(self, rows: Array) -> Array:
        found: Array = _kernel(rows - self._mean, self._rows, self._weight) @ self._solution
        found += self._middle
        return found


def _kernel(left: Array, right: Array, weight: float) -> Array:
    """Inner products of the features, and of all their products of two, weighted."""
    linear: Array = left @ right.T
    return linear + weight * linear**2
