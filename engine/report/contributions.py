"""What each technique and each value of a gene contributed, as the trials of a search tell it.

A linear model of main effects is fitted to the logarithm of the speed-up and to the loss: one
column for each technique (on or off) and one for each value of each gene of a technique that is
on. It is fitted by least squares with a penalty so small that it only decides what the trials
leave open: a larger one foresees new trials a little better, but it pulls effects to zero, and
their intervals then miss the truth too often. Intervals are percentiles of a bootstrap over trials.
The model knows no interactions, and a search does not choose its trials at random: an effect is an
association within these trials, not a cause.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

from engine.report import text
from engine.results import Result
from engine.strategy import Value

LEAST = 30
"""Measured trials below which nothing is said."""
SEEN = 3
"""Trials that must have a value, and that must not, for its effect to be told."""
LEVELS = 4
"""Groups into which the values of a number are put when more of them were tried."""
PENALTY = 0.02
"""Weight of the penalty, in trials."""
RESAMPLES = 400
CHUNKS = 500
"""Trials are resampled one by one up to this many, beyond it in so many random groups."""

Floats = NDArray[np.float64]
Mask = NDArray[np.bool_]


@dataclass(frozen=True)
class Estimate:
    """A value between the bounds of its 95 % interval."""

    low: float
    value: float
    high: float

    @property
    def clear(self) -> bool:
        """Whether the interval leaves out zero."""
        return self.low > 0 or self.high < 0


@dataclass(frozen=True)
class Effect:
    """What goes with a technique being on (``gene`` None), or with a gene's value against the
    technique's average; ``speed`` is a difference of logarithms, ``loss`` one of fractions.

    An estimate is None where too few trials have the value or lack it, or the loss is not known.
    """

    technique: str
    gene: str | None
    value: str
    trials: int
    speed: Estimate | None
    loss: Estimate | None

    @property
    def label(self) -> str:
        return f"{self.technique} {self.gene}={self.value}" if self.gene else self.technique


@dataclass(frozen=True)
class Contributions:
    """Effects by technique; ``explained_*`` is the share of variance foreseen in left-out trials.

    ``together`` are groups of techniques that were always on in the same trials: only what they
    do together is told, and it is divided among them arbitrarily.
    """

    effects: tuple[Effect, ...]
    trials: int
    explained_speed: float | None
    explained_loss: float | None
    together: tuple[tuple[str, ...], ...] = ()


@dataclass(frozen=True)
class _Column:
    technique: str
    gene: str | None
    value: str
    mask: Mask


def measured(results: Sequence[Result]) -> list[Result]:
    """The trials that have a speed-up to learn from."""
    return [r for r in results if r.ok and r.speedup is not None and r.speedup > 0]


def contributions(results: Sequence[Result], seed: int = 0) -> Contributions | None:
    """Main effects of the measured trials, or None when there are fewer than ``LEAST``.

    Deterministic for a seed. Its time grows with the number of trials, not faster.
    """
    able = measured(results)
    if len(able) < LEAST:
        return None
    columns = _columns(able)
    if not columns:
        return Contributions((), len(able), None, None)
    contrasts = _contrasts(columns)
    logs = np.array([math.log(r.speedup or 1.0) for r in able])
    speed, explained_speed = _estimates(columns, contrasts, logs, seed)
    known = np.array([r.loss is not None for r in able])
    loss: list[Estimate | None] = [None] * len(columns)
    explained_loss = None
    if known.sum() >= LEAST:
        losses = np.array([r.loss for r in able if r.loss is not None])
        some = [_Column(c.technique, c.gene, c.value, c.mask[known]) for c in columns]
        loss, explained_loss = _estimates(some, contrasts, losses, seed)
    effects = tuple(
        Effect(c.technique, c.gene, c.value, int(c.mask.sum()), own, other)
        for c, own, other in zip(columns, speed, loss, strict=True)
    )
    return Contributions(effects, len(able), explained_speed, explained_loss, _together(columns))


def _columns(results: Sequence[Result]) -> list[_Column]:
    """Techniques with their genes' values below them; what never varied has no column."""
    found: list[_Column] = []
    for name in dict.fromkeys(name for r in results for name in r.genome):
        on = np.array([name in r.genome for r in results])
        found.append(_Column(name, None, "on", on))
        for gene in dict.fromkeys(g for r in results for g in r.genome.get(name, {})):
            values = [r.genome.get(name, {}).get(gene) for r in results]
            found += [_Column(name, gene, label, mask) for label, mask in _levels(values)]
    return found


def _levels(values: Sequence[Value | None]) -> list[tuple[str, Mask]]:
    """A gene's values with the trials that have them; many numbers become a few ranges."""
    present = [v for v in values if v is not None]
    distinct = sorted(set(present), key=lambda v: (isinstance(v, str), v))
    if len(distinct) < 2:
        return []
    numbers = [v for v in present if isinstance(v, int | float) and not isinstance(v, bool)]
    if len(numbers) < len(present) or len(distinct) <= LEVELS:
        return [(text.value(d), np.array([v == d for v in values])) for d in distinct]
    marks = np.quantile(numbers, np.arange(1, LEVELS) / LEVELS, method="nearest")
    edges = [-math.inf, *sorted(set(marks.tolist())), math.inf]
    levels = []
    for low, high in pairwise(edges):
        inside = [n for n in numbers if low < n <= high]
        if inside:
            first, last = text.value(min(inside)), text.value(max(inside))
            mask = np.array([isinstance(v, int | float) and low < v <= high for v in values])
            levels.append((first if first == last else f"{first} to {last}", mask))
    return levels


def _contrasts(columns: Sequence[_Column]) -> Floats:
    """Rows that turn coefficients into effects: a technique's is that of being on with its values
    as often as they were tried; a value's is its difference from that average."""
    rows = np.zeros((len(columns), len(columns)))
    for i, column in enumerate(columns):
        rows[i, i] = 1.0
        genes = {c.gene for c in columns if c.technique == column.technique and c.gene}
        wanted = {column.gene} if column.gene else genes
        sign = -1.0 if column.gene else 1.0
        for gene in wanted:
            levels = [
                j
                for j, c in enumerate(columns)
                if (c.technique, c.gene) == (column.technique, gene)
            ]
            total = sum(columns[j].mask.sum() for j in levels)
            for j in levels:
                rows[i, j] += sign * columns[j].mask.sum() / total
    return rows


def _estimates(
    columns: Sequence[_Column], contrasts: Floats, target: Floats, seed: int
) -> tuple[list[Estimate | None], float | None]:
    design = np.column_stack([c.mask for c in columns]).astype(np.float64)
    table = np.column_stack([np.ones(len(target)), design, target])
    rng = np.random.default_rng(seed)
    chunks = min(len(target), CHUNKS)
    home = rng.permutation(np.arange(len(target)) % chunks)
    grams = np.stack([table[home == i].T @ table[home == i] for i in range(chunks)])
    weights = rng.multinomial(chunks, np.full(chunks, 1 / chunks), size=RESAMPLES)
    sums = (weights.astype(float) @ grams.reshape(chunks, -1)).reshape(-1, *grams.shape[1:])
    drawn = np.stack([_coefficients(gram) for gram in sums])
    effects = contrasts @ _coefficients(grams.sum(axis=0))
    low, high = np.percentile(drawn @ contrasts.T, [2.5, 97.5], axis=0)
    found: list[Estimate | None] = []
    for column, value, a, b in zip(columns, effects, low, high, strict=True):
        others = _others(column, columns)
        enough = min(column.mask.sum(), (others & ~column.mask).sum()) >= SEEN
        found.append(Estimate(min(a, value), float(value), max(b, value)) if enough else None)
    return found, _explained(design, target)


def _others(column: _Column, columns: Sequence[_Column]) -> Mask:
    """The trials that a column is compared within: all, or those where its technique is on."""
    if column.gene is None:
        return np.ones_like(column.mask)
    return next(c.mask for c in columns if c.technique == column.technique and c.gene is None)


def _coefficients(gram: Floats) -> Floats:
    """Coefficients from the moments of (1, columns, target); the intercept is free."""
    mean = gram[0] / gram[0, 0]
    moments = gram / gram[0, 0] - np.outer(mean, mean)
    inner = moments[1:-1, 1:-1] + PENALTY / gram[0, 0] * np.eye(len(gram) - 2)
    solved: Floats = np.linalg.solve(inner, moments[1:-1, -1])
    return solved


def _explained(design: Floats, target: Floats) -> float | None:
    """Share of the variance that the model foresees in trials that it was not fitted to.

    Each trial is left out in turn, by the leverages (Allen's PRESS); without a model it would be
    foreseen by the mean of the others. Negative where the model is worse than that.
    """
    count = len(target)
    centred, aim = design - design.mean(axis=0), target - target.mean()
    spread = float(aim @ aim) * (count / (count - 1)) ** 2
    if spread < 1e-12 * count:
        return None
    inner = centred.T @ centred + PENALTY * np.eye(design.shape[1])
    solved = np.linalg.solve(inner, centred.T)
    leverage = 1 / count + np.einsum("ij,ji->i", centred, solved)
    errors = (aim - centred @ (solved @ aim)) / np.maximum(1 - leverage, 1e-6)
    return 1 - float(errors @ errors) / spread


def _together(columns: Sequence[_Column]) -> tuple[tuple[str, ...], ...]:
    groups: dict[bytes, list[str]] = {}
    for column in columns:
        if column.gene is None and not column.mask.all():
            groups.setdefault(column.mask.tobytes(), []).append(column.technique)
    return tuple(tuple(names) for names in groups.values() if len(names) > 1)
