"""What a study searches: the strategies that apply here, and the genomes that it starts from."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from engine import console, presets, results
from engine.errors import UsageError
from engine.genome import canonical, describe, key
from engine.needs import too_new
from engine.program import context
from engine.references import alone
from engine.results import Genome
from engine.search import Proposal, Searcher, searcher
from engine.search.archive import MARGINS
from engine.search.space import Space, space
from engine.strategy import Strategy, Value, nearest, registry

if TYPE_CHECKING:
    from engine.arms import Arms
    from engine.evaluate import Evaluator
    from engine.schema import Config

Grids = dict[str, dict[str, Any]]
"""Strategy to gene to the values that a search may give it; a gene not named keeps its grid."""


def search_space(config: Config, arms: Arms, worthless: Mapping[str, str] | None = None) -> Space:
    """The space of the configuration on this machine; ``worthless`` are further techniques to
    leave out, with the reason."""
    known = registry()
    excluded = {name: why for name, why in arms.applicable().items() if why is not None}
    excluded |= worthless or {}
    excluded |= {
        name: why
        for name, strategy in known.items()
        if name not in excluded and (why := _left_out(strategy, config, arms)) is not None
    }
    grids = _grids(config, arms, excluded)
    fixed: dict[str, dict[str, Any]] = {}
    if config.goal.keep_steps:
        steps = context(arms.subject, arms.baseline)["steps"]
        fixed = {
            name: {gene.name: steps}
            for name, strategy in known.items()
            for gene in strategy.genes.values()
            if gene.sets == "steps" and name not in excluded
        }
    return space(known, exclude=excluded, fixed=fixed, only=grids)


def worthless(config: Config, evaluator: Evaluator, here: Space) -> dict[str, str]:
    """Techniques of the space whose worth operations do not tell and that, measured alone, do not
    surely make the baseline faster, and by more than the margin of noise; with what was measured.

    What ``search.only`` names is searched all the same.
    """
    if not config.search.alone_first or config.objective != "time":
        return {}
    named = config.search.only or {}
    clocked = [n for n, s in here.strategies.items() if s.timed_only or s.overhead]
    names = [n for n in clocked if n not in named]
    found: dict[str, str] = {}
    for name, gain in alone(evaluator, names).items():
        if "reason" in gain:
            found[name] = f"measured alone: {gain['reason']}"
        elif gain["speedup"] < 1 + MARGINS.speed or gain["low"] <= 1:
            span = f"{gain['low']:.2f} to {gain['high']:.2f}"
            found[name] = f"measured alone: {gain['speedup']:.2f}x ({span})"
    return found


def configured(config: Config, here: Space) -> Searcher:
    """The searcher that the configuration names, told what the goal asks for."""
    return searcher(
        config.search.name,
        here,
        config.search.seed,
        config.search.options(),
        max_loss=config.goal.most_loss,
        memory=config.goal.names_memory,
        speedup=config.goal.speedup,
        seconds=config.goal.seconds,
    )


def _left_out(strategy: Strategy, config: Config, arms: Arms) -> str | None:
    """Why a search leaves out a strategy that could apply; None where it does not."""
    if config.objective == "flops" and strategy.timed_only:
        return "it changes no counted operation, and objective=flops counts them"
    if strategy.for_memory and not config.goal.names_memory:
        return "it saves memory and no time, and the goal names no memory (goal.memory_gib)"
    limit = config.search.first_call_s
    if arms.machine.device == "cpu" and strategy.first_call_s > limit:
        return (
            f"its first call typically takes {strategy.first_call_s:g} s more on a CPU; "
            f"search.first_call_s={limit:g}"
        )
    return None


def _grids(config: Config, arms: Arms, excluded: dict[str, str]) -> Grids | None:
    """``search.only``, dtypes that are fast here and values that this device can have; adds to
    ``excluded`` what has none left."""
    known, given, fast = registry(), config.search.only, arms.machine.fast_dtypes
    grids: Grids = {}
    for name, genes in (given or {}).items():
        if not isinstance(genes or {}, Mapping):
            raise UsageError(f"search.only.{name} is {genes!r}; write {{}} or {{GENE: [VALUES]}}")
        grids[name] = dict(genes or {})
    for name, strategy in known.items():
        for gene in strategy.genes.values():
            bound = gene.name in {name for name, _, _ in strategy.needs.capability}
            if not (gene.sets == "dtype" or bound) or (given is not None and name not in grids):
                continue
            asked = grids.get(name, {}).get(gene.name) or gene.values()
            able = [v for v in asked if gene.sets != "dtype" or v in fast]
            if not able:
                excluded.setdefault(name, f"none of its dtypes is fast here ({', '.join(fast)})")
            capability = arms.machine.capability
            able = [v for v in able if not too_new(strategy, gene.name, v, capability)]
            if not able:
                excluded.setdefault(name, f"this device is too old for every {gene.name}")
            elif able != gene.values():
                grids.setdefault(name, {})[gene.name] = able
    if given is None and grids:
        grids = {name: grids.get(name, {}) for name in known}
    return grids if given is not None or grids else None


def starting(config: Config, here: Space, folder: Path, arms: Arms) -> list[Proposal]:
    """The genomes that ``search.start`` names, legal in the space, each once.

    They are settled when a study begins and kept in ``start.json``, so that it resumes with the
    same although a file has changed. Raises UsageError for a name that means nothing.
    """
    path = folder / "start.json"
    if path.exists():
        rows = json.loads(path.read_text(encoding="utf-8"))
        return [Proposal(row["genome"], row["origin"]) for row in rows]
    found: dict[str, Proposal] = {}
    for name in config.search.start:
        named = _presets(config, here, arms) if name == presets.ALL else _named(str(name), config)
        for origin, genome in named:
            fitted = here.fitted(genome)
            if not here.legal(fitted):
                console.say(f"start: left out from {origin}, not in this space: {describe(genome)}")
                continue
            kept = canonical(fitted, here.strategies)
            found.setdefault(here.key(kept), Proposal(kept, origin))
    proposals = list(found.values())
    rows = [{"genome": p.genome, "origin": p.origin} for p in proposals]
    results.write_json(path, rows)
    return proposals


def _presets(config: Config, here: Space, arms: Arms) -> Iterator[tuple[str, Genome]]:
    """The presets of the model's family for this hardware, whole; says which are left out and why.

    A preset that one of its techniques cannot enter is no longer what its source describes, so
    nothing of it is measured. Where it names no sampler it gets the baseline's.
    """
    chosen, useless = presets.fitting(config.model, arms.machine.device)
    own = key(arms.baseline)
    for preset in chosen:
        genome = here.fitted(_with_sampler(preset.technique, here, arms))
        found = here.found(genome)
        lacking = [f"{n}: {here.excluded[n]}" for n in preset.technique if n in here.excluded]
        lacking += [
            f"technique.{name}.{gene}={value} is not searched here"
            for name, genes in preset.technique.items()
            for gene, value in genes.items()
            if name in genome and gene not in here.fixed.get(name, {})
            if genome[name][gene] != value
        ]
        if lacking:
            useless[preset.name] = "; ".join(lacking)
        elif found is not None and key(found) == own:
            useless[preset.name] = "it is the baseline"
        else:
            yield f"preset:{preset.name}", genome
    for name, why in useless.items():
        console.say(f"start: left out preset {name}, {why}")


def _with_sampler(genome: Genome, here: Space, arms: Arms) -> Genome:
    """The genome with every slot filled that may not be empty: as the baseline fills it, else by
    the defaults with as many steps as the model's authors take."""
    filled = dict(genome)
    for slot, choices in here.slots.items():
        if not here.always(slot) or any(one.name in genome for one in choices):
            continue
        own = next((one for one in choices if one.name in arms.baseline), None)
        if own is not None:
            filled[own.name] = arms.baseline[own.name]
            continue
        steps: dict[str, Value] = {
            gene.name: max(int(gene.low or 1), min(arms.subject.steps, int(gene.high or 1)))
            for gene in choices[0].genes.values()
            if gene.sets == "steps"
        }
        filled[choices[0].name] = steps
    return canonical(filled)


def _named(name: str, config: Config) -> list[tuple[str, Genome]]:
    """The genomes of a study's front, of a preset or of a recipe file, with their origin."""
    studies = Path(config.paths.outputs) / "sweeps"
    file = Path(name).expanduser()
    if file.suffix in (".yaml", ".yml"):
        what = f"search.start={name}"
        return [(f"recipe:{file.name}", presets.technique(presets.mapping(file, what), file, what))]
    front = studies / name / "front.json"
    if front.is_file():
        rows = json.loads(front.read_text(encoding="utf-8"))["front"]
        return [(f"study:{name}", canonical(row["genome"])) for row in rows]
    if name in presets.names():
        return [(f"preset:{name}", presets.load(name).technique)]
    known = [path.parent.name for path in studies.glob("*/front.json")]
    raise UsageError(
        f"search.start={name} is no finished study, no preset and no recipe.yaml"
        f"{nearest(name, [*known, *presets.names(), presets.ALL])}"
    )
