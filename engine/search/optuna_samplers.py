"""Optuna's samplers as searchers: the state of the art that ``genetic`` has to keep up with.

Each ask rebuilds a study in memory from what was told, so a study resumes by asking again. The
genome is flat: one parameter for each slot, one for each gene of each technique. Genes that are
off keep their default, because NSGA-II breeds only parameters that all trials have. Numbers are
places on their grid.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence, Set
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from engine.results import Genome, Result
from engine.search import Proposal
from engine.search.archive import measured
from engine.search.options import option
from engine.search.random import unseen
from engine.search.space import Space
from engine.strategy import Value

if TYPE_CHECKING:
    from optuna import Study
    from optuna.distributions import BaseDistribution
    from optuna.samplers import BaseSampler

OFF = "off"
"""Choice of an empty slot."""
_TRIES = 20
"""Proposals that are illegal or taken, before a random genome stands in."""


@dataclass(frozen=True)
class TpeOptions:
    """``startup``: results below which proposals are random."""

    startup: int = option(10)


@dataclass(frozen=True)
class Nsga2Options:
    """``parents``: results that make a generation of NSGA-II, and as many survive it to breed."""

    parents: int = option(7, low=2)


@dataclass(frozen=True)
class Tpe:
    """Multi-objective tree-structured Parzen estimator (Ozaki et al. 2022), with constraints."""

    space: Space
    seed: int
    options: TpeOptions = TpeOptions()
    max_loss: float = 0.05
    memory: bool = False

    def ask(
        self, count: int, told: Sequence[Result], taken: Set[str], first_trial: int
    ) -> list[Proposal]:
        from optuna.samplers import TPESampler

        sampler = TPESampler(
            seed=_seed(self.seed, first_trial), n_startup_trials=self.options.startup
        )
        study = _study(sampler, self.space, told, self.max_loss, self.memory)
        return _proposals("tpe", study, self.space, self.seed, count, taken, first_trial)


@dataclass(frozen=True)
class Nsga2:
    """Non-dominated sorting genetic algorithm (Deb et al. 2002), with constrained dominance."""

    space: Space
    seed: int
    options: Nsga2Options = Nsga2Options()
    max_loss: float = 0.05
    memory: bool = False

    def ask(
        self, count: int, told: Sequence[Result], taken: Set[str], first_trial: int
    ) -> list[Proposal]:
        from optuna.samplers import NSGAIISampler

        size = self.options.parents
        sampler = NSGAIISampler(seed=_seed(self.seed, first_trial), population_size=size)
        study = _study(sampler, self.space, told, self.max_loss, self.memory, generation=size)
        return _proposals("nsga2", study, self.space, self.seed, count, taken, first_trial)


def _seed(seed: int, first_trial: int) -> int:
    import numpy as np

    return int(np.random.SeedSequence((seed, first_trial)).generate_state(1)[0])


def _study(
    sampler: BaseSampler,
    space: Space,
    told: Sequence[Result],
    max_loss: float,
    memory: bool,
    generation: int = 1,
) -> Study:
    """A study in memory that knows what was measured: speed-up, loss (negative ones count as zero),
    memory where the goal names it, and by how much the loss exceeds its limit.

    Optuna numbers the generation only of trials that it proposed itself and breeds no others. So
    each result gets its number here, every ``generation`` of them the next, and recipes and
    results of users breed too.
    """
    import optuna
    from optuna.study import StudyDirection

    optuna.logging.set_verbosity(optuna.logging.WARNING)
    distributions = _distributions(space)
    larger, smaller = StudyDirection.MAXIMIZE, StudyDirection.MINIMIZE
    directions = [larger, smaller, *([smaller] if memory else [])]
    study = optuna.create_study(directions=directions, sampler=sampler)
    able = sorted((r for r in told if measured(r, memory=memory)), key=lambda r: r.trial)
    for index, result in enumerate(able):
        loss = max(0.0, result.loss or 0.0)
        values = [result.speedup, loss, *([result.memory_gib] if memory else [])]
        study.add_trial(
            optuna.trial.create_trial(
                values=values,  # type: ignore[arg-type]
                params=_parameters(space, space.fitted(result.genome)),
                distributions=distributions,
                system_attrs={"NSGAIISampler:generation": index // generation},
                constraints={"loss": loss - max_loss},
            )
        )
    return study


def _proposals(
    origin: str,
    study: Study,
    space: Space,
    seed: int,
    count: int,
    taken: Set[str],
    first_trial: int,
) -> list[Proposal]:
    import numpy as np

    rng = np.random.default_rng((seed, first_trial))
    distributions = _distributions(space)
    seen = set(taken)
    found: list[Proposal] = []
    while len(found) < count:
        wanted: Proposal | None = None
        for _ in range(_TRIES):
            genome = space.found(_genome(space, study.ask(distributions).params))
            if genome is not None and space.key(genome) not in seen:
                wanted = Proposal(genome, origin)
                break
        else:
            drawn = unseen(space, seen, rng)
            if drawn is None:
                break
            wanted = Proposal(drawn, "random")
        seen.add(space.key(wanted.genome))
        found.append(wanted)
    return found


def _distributions(space: Space) -> dict[str, BaseDistribution]:
    from optuna.distributions import CategoricalDistribution, IntDistribution

    found: dict[str, BaseDistribution] = {}
    for slot, choices in space.slots.items():
        names = [one.name for one in choices]
        found[f"slot {slot}"] = CategoricalDistribution(
            names if space.always(slot) else [OFF, *names]
        )
        for one in choices:
            for gene in one.genes.values():
                grid = space.values(one.name, gene.name)
                found[f"{one.name} {gene.name}"] = (
                    CategoricalDistribution(list(grid))
                    if gene.choices
                    else IntDistribution(0, len(grid) - 1)
                )
    return found


def _parameters(space: Space, genome: Genome) -> dict[str, Any]:
    """A genome as flat parameters; values off the grid count as the nearest on it."""
    found: dict[str, Any] = {}
    for slot, choices in space.slots.items():
        found[f"slot {slot}"] = next((one.name for one in choices if one.name in genome), OFF)
        for one in choices:
            for gene in one.genes.values():
                value = genome.get(one.name, {}).get(gene.name, gene.default)
                found[f"{one.name} {gene.name}"] = _place(
                    space.values(one.name, gene.name), value, bool(gene.choices)
                )
    return found


def _place(grid: Sequence[Value], value: Value, named: bool) -> Value:
    if named:
        return value if value in grid else grid[0]
    return min(range(len(grid)), key=lambda i: abs(float(grid[i]) - float(value)))


def _genome(space: Space, parameters: Mapping[str, Any]) -> Genome:
    found: Genome = {}
    for slot in space.slots:
        name = parameters[f"slot {slot}"]
        if name != OFF:
            found[name] = {
                gene.name: parameters[f"{name} {gene.name}"]
                if gene.choices
                else space.values(name, gene.name)[parameters[f"{name} {gene.name}"]]
                for gene in space.strategies[name].genes.values()
            }
    return found
