"""What a study searches: the strategies that apply here, and the genomes that it starts from."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from engine import console, results
from engine.config import CONF
from engine.errors import UsageError
from engine.genome import canonical, describe
from engine.program import context
from engine.references import alone
from engine.results import Genome
from engine.search import Proposal
from engine.search.archive import MARGINS
from engine.search.space import Space, space
from engine.strategy import Strategy, nearest, registry

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
    """Techniques of the space that change no counted operation and, measured alone, do not make
    the baseline faster by more than the margin of noise; with what was measured.

    What ``search.only`` names is searched all the same.
    """
    if not config.search.alone_first or config.objective != "time":
        return {}
    named = config.search.only or {}
    names = [n for n, s in here.strategies.items() if s.timed_only and n not in named]
    found: dict[str, str] = {}
    for name, gain in alone(evaluator, names).items():
        if "reason" in gain:
            found[name] = f"measured alone: {gain['reason']}"
        elif gain["speedup"] < 1 + MARGINS.speed:
            span = f"{gain['low']:.2f} to {gain['high']:.2f}"
            found[name] = f"measured alone: {gain['speedup']:.2f}x ({span})"
    return found


def _left_out(strategy: Strategy, config: Config, arms: Arms) -> str | None:
    """Why a search leaves out a strategy that could apply; None where it does not."""
    if config.objective == "flops" and strategy.timed_only:
        return "it changes no counted operation, and objective=flops counts them"
    if strategy.for_memory and config.goal.memory_gib is None:
        return "it saves memory and no time, and the goal names no memory (goal.memory_gib)"
    limit = config.search.first_call_s
    if arms.machine.device == "cpu" and strategy.first_call_s > limit:
        return (
            f"its first call typically takes {strategy.first_call_s:g} s more on a CPU; "
            f"search.first_call_s={limit:g}"
        )
    return None


def _grids(config: Config, arms: Arms, excluded: dict[str, str]) -> Grids | None:
    """``search.only``, and dtypes that are fast here; adds to ``excluded`` what has none left."""
    known, given, fast = registry(), config.search.only, arms.machine.fast_dtypes
    grids: Grids = {}
    for name, genes in (given or {}).items():
        if not isinstance(genes or {}, Mapping):
            raise UsageError(f"search.only.{name} is {genes!r}; write {{}} or {{GENE: [VALUES]}}")
        grids[name] = dict(genes or {})
    for name, strategy in known.items():
        for gene in strategy.genes.values():
            if gene.sets != "dtype" or (given is not None and name not in grids):
                continue
            asked = grids.get(name, {}).get(gene.name) or gene.values()
            able = [value for value in asked if value in fast]
            if not able:
                excluded.setdefault(name, f"none of its dtypes is fast here ({', '.join(fast)})")
            elif able != gene.values():
                grids.setdefault(name, {})[gene.name] = able
    if given is None and grids:
        grids = {name: grids.get(name, {}) for name in known}
    return grids if given is not None or grids else None


def starting(config: Config, here: Space, folder: Path) -> list[Proposal]:
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
        for origin, genome in _named(str(name), config):
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


def _named(name: str, config: Config) -> list[tuple[str, Genome]]:
    """The genomes of a study's front, of a preset or of a recipe file, with their origin."""
    studies = Path(config.paths.outputs) / "sweeps"
    file = Path(name).expanduser()
    if file.suffix in (".yaml", ".yml"):
        return [(f"recipe:{file.name}", _technique(file, f"search.start={name}"))]
    front = studies / name / "front.json"
    if front.is_file():
        rows = json.loads(front.read_text(encoding="utf-8"))["front"]
        return [(f"study:{name}", canonical(row["genome"])) for row in rows]
    preset = CONF / "preset" / f"{name}.yaml"
    if preset.is_file():
        return [(f"preset:{name}", _technique(preset, f"preset {name}"))]
    known = [path.parent.name for path in studies.glob("*/front.json")]
    known += [path.stem for path in (CONF / "preset").glob("*.yaml")]
    raise UsageError(
        f"search.start={name} is no finished study, no preset and no recipe.yaml"
        f"{nearest(name, known)}"
    )


def _technique(path: Path, what: str) -> Genome:
    """The checked genome of a recipe or preset; nothing else of the file is used."""
    import yaml

    try:
        data = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        reason = str(error).partition("\n")[0]
        raise UsageError(f"{what} cannot be read: {reason}") from None
    if not isinstance(data, Mapping) or not isinstance(data.get("technique"), Mapping):
        raise UsageError(f"{what}: {path} has no technique: {{NAME: {{GENE: VALUE}}}}")
    for name, genes in data["technique"].items():
        if genes is not None and not isinstance(genes, Mapping):
            raise UsageError(f"{what}: technique {name} is {genes!r}; write {{GENE: VALUE}}")
    return canonical({str(n): dict(genes or {}) for n, genes in data["technique"].items()})
