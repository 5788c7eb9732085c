"""A made-up cost and loss for every genome of the real registry, for searches without a model."""

from __future__ import annotations

from collections.abc import Mapping

from engine.results import Genome, Result
from engine.search import Proposal, Searcher
from engine.search.archive import hypervolume
from engine.search.space import Space, space
from engine.strategy import Value, registry

SOLVER = {
    "ddim": 1.6,
    "dpmpp_2m": 1.0,
    "dpmpp_sde": 1.3,
    "unipc": 0.9,
    "euler": 1.4,
    "pndm": 1.8,
}


def figures(genome: Mapping[str, Mapping[str, Value]]) -> tuple[float, float]:
    """(speed-up over 20 steps, loss): each technique saves a share and costs a loss; a cache costs
    more where steps are few."""
    genes = {name: dict(values) for name, values in genome.items()}
    sampler = genes.get("sampler", {"name": "dpmpp_2m", "steps": 20, "spacing": "trailing"})
    steps = float(sampler["steps"])
    cost = steps / 20
    loss = 0.012 * SOLVER[str(sampler["name"])] * (10 / steps) ** 2
    loss *= 1.0 if sampler["spacing"] == "trailing" else 1.5
    if cache := genes.get("deepcache"):
        interval, branch = float(cache["interval"]), float(cache["branch"])
        cost *= 1 / interval + (1 - 1 / interval) * (0.3 + 0.12 * branch)
        loss += 0.006 * (interval - 1) ** 1.5 * (10 / steps) / (1 + branch)
    if merge := genes.get("tome"):
        cost *= 1 - 0.25 * float(merge["ratio"]) / float(merge["max_downsample"])
        loss += 0.1 * float(merge["ratio"]) ** 3
    if gate := genes.get("tgate"):
        cost *= 1 - 0.35 * (1 - float(gate["gate"]))
        loss += 0.03 * (1 - float(gate["gate"])) ** 2
    if guidance := genes.get("guidance"):
        cost *= 1 - 0.5 * (1 - float(guidance["stop"]))
        loss += 0.06 * (1 - float(guidance["stop"])) ** 2
    if "channels_last" in genes:
        cost *= 0.96
    return 1 / (0.06 + 0.94 * cost), loss


KNOWN = ("sampler", "deepcache", "tome", "tgate", "guidance", "channels_last")


def real_space(**more: object) -> Space:
    """The space of the techniques that the table prices."""
    found = {name: one for name, one in registry().items() if name in KNOWN}
    return space(found, **more)  # type: ignore[arg-type]


def measure(space: Space, proposal: Proposal, trial: int) -> Result:
    speedup, loss = figures(proposal.genome)
    return Result(
        trial=trial,
        genome=proposal.genome,
        key=space.key(proposal.genome),
        origin=proposal.origin,
        parents=proposal.parents,
        speedup=speedup,
        loss=loss,
    )


def study(searcher: Searcher, space: Space, generations: int = 4, count: int = 7) -> list[Result]:
    """All results of a search on the table."""
    told: list[Result] = []
    for _ in range(generations):
        asked = searcher.ask(count, told, {r.key for r in told}, len(told))
        told += [measure(space, p, len(told) + i) for i, p in enumerate(asked)]
    return told


def volume(told: list[Result]) -> float:
    return hypervolume((r.speedup or 0.0, r.loss or 0.0) for r in told)


def best(told: list[Result]) -> float:
    """The largest speed-up at a loss of at most 5 %; 0 where there is none."""
    return max((r.speedup or 0.0 for r in told if (r.loss or 0.0) <= 0.05), default=0.0)


def genome(**techniques: dict[str, Value]) -> Genome:
    return techniques
