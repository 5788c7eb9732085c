"""``+list=matrix``: which technique applies to which model on which hardware, and why not.

Put together without torch from the record of ``engine.capabilities`` (what suits the pipeline),
``engine.needs`` (what this machine has, what a model's settings leave to do) and ``conf/``. A
worker asks all of it again of the loaded model before anything is measured.
"""

from __future__ import annotations

import sys
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any

from engine import capabilities, catalogue
from engine.config import CONF
from engine.errors import UsageError
from engine.needs import absent, idle, too_new, unmet_by_machine
from engine.presets import family
from engine.strategy import Strategy, nearest, registry

KINDS = ("cpu", "cuda")
"""The profiles that are shown where ``hw=`` names none: one of each kind of device."""
HEAD = ("model", "hw", "technique", "applies", "reason")
NOT_PROBED = f"not probed; run {capabilities.COMMAND}"
NOT_READ = "what this model is shows when it is read"


@dataclass(frozen=True)
class Cell:
    """One technique on one model and hardware profile; ``applies`` is yes, no or open. The reason
    says why not, and of a yes which values the hardware is too old for."""

    model: str
    hw: str
    technique: str
    applies: str
    reason: str


def show(filters: Mapping[str, str]) -> None:
    """Print the matrix: for a person a row for each answer, for a program one for each cell.

    ``filters`` may have ``model`` and ``hw``, each one name or several with commas between them.
    Raises UsageError for a name that is not there.
    """
    models = chosen("model", filters.get("model"), catalogue.names())
    if "model" not in filters:
        models = [name for name in models if catalogue.entry(name)["pipeline"] is not None]
    profiles = _profiles()
    hardware = chosen("hw", filters.get("hw"), profiles) if "hw" in filters else list(KINDS)
    found = cells(models, {name: profiles[name] for name in hardware})
    if not sys.stdout.isatty():
        from engine.listing import table

        table(HEAD, [(c.model, c.hw, c.technique, c.applies, c.reason) for c in found])
        return
    from rich.console import Console

    console = Console()
    for name, members in families(models).items():
        if len(members) > 1:
            console.print(f"{name}: {' '.join(members)}", highlight=False)
    console.print(drawn(found, models, hardware))
    console.print(
        "yes: a search tries it, unless it cannot pay there (search.alone_first, "
        "search.first_call_s,\ngoal.memory_gib). open: the model itself answers when it is loaded.",
        highlight=False,
    )


def chosen(key: str, value: str | None, known: Iterable[str]) -> list[str]:
    """The names that a filter asks for, in the order of ``known``; all where it asks for none."""
    names = list(known)
    if value is None:
        return names
    asked = [text.strip() for text in value.strip("[]").split(",")]
    for name in asked:
        if name not in names:
            raise UsageError(f"+list=matrix has no {key}={name}{nearest(name, names)}")
    return [name for name in names if name in asked]


def _profiles() -> dict[str, str]:
    """Hardware profiles whose device is known without looking, and that device."""
    import yaml

    found = {}
    for path in sorted((CONF / "hw").glob("*.yaml")):
        profile = yaml.safe_load(path.read_text(encoding="utf-8"))
        if profile["device"] != "auto":
            found[str(profile["name"])] = str(profile["device"])
    return found


def cells(models: Sequence[str], hardware: Mapping[str, str]) -> list[Cell]:
    """Every technique on those models and profiles (name to device), model by model."""
    from engine.prune import paths_of

    models_folder = paths_of().models
    found = []
    for model in models:
        entry = catalogue.entry(model)
        for hw, device in hardware.items():
            for name, strategy in registry().items():
                applies, reason = judged(strategy, entry, device, models_folder)
                if applies == "yes":
                    reason = "; ".join(without(strategy, capability_of(hw)))
                found.append(Cell(model, hw, name, applies, reason))
    return found


@cache
def capability_of(hw: str) -> float | None:
    """The compute capability that a hardware profile states."""
    import yaml

    profile = yaml.safe_load((CONF / "hw" / f"{hw}.yaml").read_text(encoding="utf-8"))
    found: float | None = profile["capability"]
    return found


def without(strategy: Strategy, capability: float | None) -> list[str]:
    """Each value of a strategy that a device of that compute capability cannot have, and why."""
    return [
        f"without {gene}={value}: {why}"
        for gene, value, _ in strategy.needs.capability
        if (why := too_new(strategy, gene, value, capability))
    ]


def judged(
    strategy: Strategy, entry: Mapping[str, Any], device: str, folder: str | None = None
) -> tuple[str, str]:
    """Whether a strategy applies to a model of the catalogue on a device (yes, no, open), and why
    not; ``folder`` is ``paths.models``."""
    if entry["pipeline"] is None:
        return "open", NOT_READ
    record = capabilities.recorded()
    answers = {**record.get(entry["pipeline"], {}), **record.get(entry["name"], {})}
    said = answers.get(strategy.name) or {}
    dtype = "float32" if device == "cpu" else entry["dtype"]
    reason = (
        _other_prediction(strategy, entry["prediction"])
        or said.get("needs")
        or unmet_by_machine(strategy.needs, device, dtype)
        or idle(strategy, entry["steps"], entry["guidance_scale"])
    )
    if reason is not None:
        return "no", reason
    if strategy.name not in answers:
        return "open", NOT_PROBED
    if "unfit" in said:
        # A miniature's word says nothing of another network of the same class.
        own = entry["weights"] == "mini" or entry["name"] in record
        return ("no", said["unfit"]) if own else ("open", f"its miniature: {said['unfit']}")
    if "weights" in said and (reason := absent(said["weights"], folder)):
        return "no", reason
    return "yes", ""


def _other_prediction(strategy: Strategy, prediction: str) -> str | None:
    # The record knows the miniature's, which may be another one of the same kind.
    wanted = strategy.needs.prediction
    if not wanted or prediction in wanted:
        return None
    return f"it needs a model that predicts {' or '.join(wanted)}"


def grouped(found: Sequence[Cell]) -> dict[tuple[str, str, str, tuple[str, ...]], list[str]]:
    """Models by technique, answer, reason and the profiles on which that is so; what applies comes
    first, and techniques in the order of the registry."""
    where: dict[tuple[str, str, str, str], list[str]] = {}
    for cell in found:
        place = where.setdefault((cell.technique, cell.applies, cell.reason, cell.model), [])
        place.append(cell.hw)
    groups: dict[tuple[str, str, str, tuple[str, ...]], list[str]] = {}
    for (technique, applies, reason, model), hardware in where.items():
        groups.setdefault((technique, applies, reason, tuple(hardware)), []).append(model)
    order = list(dict.fromkeys(cell.technique for cell in found))
    rank = ("yes", "open", "no")
    return dict(sorted(groups.items(), key=lambda g: (order.index(g[0][0]), rank.index(g[0][1]))))


def drawn(found: Sequence[Cell], models: Sequence[str], hardware: Sequence[str]) -> Any:
    """A table for a terminal of 100 columns: a row for each answer that a technique has."""
    from rich.box import SIMPLE_HEAD
    from rich.table import Table
    from rich.text import Text

    table = Table(box=SIMPLE_HEAD, pad_edge=False)
    table.add_column("technique", no_wrap=True)
    table.add_column("applies", no_wrap=True)
    table.add_column("hardware", no_wrap=True)
    table.add_column("models", ratio=3)
    table.add_column("why not", ratio=2)
    before, groups = None, families(models)
    for (technique, applies, reason, where), members in grouped(found).items():
        if before not in (None, technique):
            table.add_section()
        place = "any" if len(where) == len(hardware) > 1 else " ".join(where)
        row = ("" if technique == before else technique, applies, place)
        table.add_row(*map(Text, (*row, briefly(members, groups), reason)))
        before = technique
    return table


def families(models: Sequence[str]) -> dict[str, list[str]]:
    """Those models by family; one that is of none, or the only one of its family here, stands for
    itself."""
    found: dict[str, list[str]] = {}
    for name in models:
        found.setdefault(family(catalogue.entry(name)["pipeline"]) or name, []).append(name)
    return {m[0] if len(m) == 1 else name: m for name, m in found.items()}


def briefly(members: Sequence[str], groups: Mapping[str, Sequence[str]]) -> str:
    """Models in few words: all of them, whole families with what is missing, or their names.

    ``groups`` are all the models that are shown, by family.
    """
    models = [name for whole in groups.values() for name in whole]
    others = [name for name in models if name not in members]
    if len(models) > 1 and (not others or len(others) <= 2 < len(members)):
        return f"all {len(models)}" + (f" but {' '.join(others)}" if others else "")
    words = []
    for name, whole in groups.items():
        inside = [one for one in whole if one in members]
        outside = [one for one in whole if one not in members]
        if len(whole) > 1 and not outside:
            words.append(f"all {name}")
        elif outside and len(inside) > len(outside):
            words.append(f"all {name} but {' '.join(outside)}")
        elif inside:
            words.append(" ".join(inside))
    return ", ".join(words)
