"""Plans: which techniques with which settings, and what a genome cannot say.

A planner answers with plans as JSON. A plan whose techniques lie in the search space is a genome;
one that does not is refused in a sentence that says what is allowed, so that the planner can
repair it.
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from engine.errors import UsageError
from engine.genome import canonical, describe
from engine.results import Genome
from engine.search.space import Space
from engine.strategy import Value, nearest

TITLE = 80
"""Most letters of a title."""
WHY = 600
"""Most letters of a reason."""
STRUCTURE = 2_000
"""Most letters of a free structure."""


class IllegalPlan(Exception):
    """A plan that cannot be carried out here; the message is one sentence for the planner."""


@dataclass(frozen=True)
class Plan:
    """What one program is to do.

    ``techniques`` are our techniques, in the plan's order, with the genes that the plan decides;
    a gene that it leaves out has its default (``whole`` writes it out). ``structure`` says in
    words what no gene can say, and is empty where the genes say everything. ``refines`` is the
    trial whose plan this one improves, None for a new one.
    """

    title: str
    why: str
    techniques: Mapping[str, Mapping[str, Value]] = field(default_factory=dict)
    structure: str = ""
    refines: int | None = None


SCHEMA: Mapping[str, Any] = {
    "type": "object",
    "properties": {
        "title": {"type": "string"},
        "why": {"type": "string"},
        "techniques": {
            "type": "object",
            "additionalProperties": {
                "type": "object",
                "additionalProperties": {"type": ["number", "string", "boolean"]},
            },
        },
        "structure": {"type": "string"},
        "refines": {"type": ["integer", "null"]},
    },
    "required": ["title", "why", "techniques", "structure", "refines"],
    "additionalProperties": False,
}
"""One plan as JSON."""

ANSWER: Mapping[str, Any] = {
    "type": "object",
    "properties": {"plans": {"type": "array", "items": SCHEMA}},
    "required": ["plans"],
    "additionalProperties": False,
}
"""What a planner answers: an object whose ``plans`` are the plans."""


def as_json(plan: Plan) -> str:
    """The plan as indented JSON, techniques in their order."""
    data = {
        "title": plan.title,
        "why": plan.why,
        "techniques": {name: dict(genes) for name, genes in plan.techniques.items()},
        "structure": plan.structure,
        "refines": plan.refines,
    }
    return json.dumps(data, indent=1, ensure_ascii=False)


def read(data: object) -> Plan:
    """A plan from what a planner wrote; raises IllegalPlan where it has not the form of one."""
    if not isinstance(data, Mapping):
        raise IllegalPlan(f"a plan is an object, not {data!r:.80}")
    techniques = data.get("techniques", {})
    if not isinstance(techniques, Mapping):
        raise IllegalPlan("techniques is an object: technique name to an object of its settings")
    settings: dict[str, dict[str, Value]] = {}
    for name, genes in techniques.items():
        if not isinstance(genes or {}, Mapping):
            raise IllegalPlan(f"techniques.{name} is an object of settings, such as {{}}")
        for gene, value in (genes or {}).items():
            if not isinstance(value, bool | int | float | str):
                raise IllegalPlan(f"techniques.{name}.{gene} is a number, a text, true or false")
        settings[str(name)] = dict(genes or {})
    refines = data.get("refines")
    if isinstance(refines, bool) or not isinstance(refines, int | None):
        raise IllegalPlan(f"refines is the number of a trial or null, not {refines!r:.40}")
    title = _line(data.get("title")) or describe(settings)
    structure = str(data.get("structure") or "").strip()
    return Plan(
        title[:TITLE], _line(data.get("why"))[:WHY], settings, structure[:STRUCTURE], refines
    )


def read_all(data: object) -> tuple[list[Plan], list[str]]:
    """The plans of an answer, and a sentence for each part of it that is none."""
    if isinstance(data, Mapping) and "plans" in data:
        rows = data["plans"]
    else:
        rows = data if isinstance(data, list) else [data]
    if not isinstance(rows, Sequence) or isinstance(rows, str):
        return [], ["plans is a list of plans"]
    plans: list[Plan] = []
    wrong: list[str] = []
    for number, row in enumerate(rows, 1):
        try:
            plans.append(read(row))
        except IllegalPlan as error:
            wrong.append(f"plan {number}: {error}")
    return plans, wrong


def _line(value: object) -> str:
    return " ".join(str(value or "").split())


def genome_of(plan: Plan, space: Space, baseline: Genome) -> Genome:
    """The canonical genome of a plan; raises IllegalPlan with what is wrong and what is allowed.

    A slot that may not be empty and that the plan leaves open is filled as in ``baseline``, else
    with the defaults of the slot's first technique; pinned genes that it leaves open are set.
    """
    for name, genes in plan.techniques.items():
        _known(name, space)
        for gene, value in space.fixed.get(name, {}).items():
            if gene in genes and genes[gene] != value:
                raise IllegalPlan(f"{name}.{gene} is {genes[gene]}, and is held at {value} here")
        for gene, values in (space.only or {}).get(name, {}).items():
            if gene in genes and genes[gene] not in values:
                allowed = ", ".join(map(str, values))
                raise IllegalPlan(f"{name}.{gene} is {genes[gene]}; allowed here: {allowed}")
    try:
        canonical(plan.techniques, space.strategies)
        fitted = space.fitted(_filled(plan.techniques, space, baseline))
        canonical(fitted, space.strategies)
    except UsageError as error:
        raise IllegalPlan(str(error).replace("technique.", "")) from error
    found = space.found(fitted)
    if found is None and not fitted:
        raise IllegalPlan("it names no technique, and the unaccelerated model is no candidate")
    if found is None:
        raise IllegalPlan(f"{describe(fitted)} lies outside the space that is searched")
    return found


def whole(plan: Plan, genome: Genome) -> Plan:
    """The plan with all that its genome settles, such as the sampler that it leaves open: whoever
    writes and repairs its program must state that too, and should not have to guess it."""
    order = [*plan.techniques, *(name for name in genome if name not in plan.techniques)]
    settled = {name: dict(genome[name]) for name in order if name in genome}
    return dataclasses.replace(plan, techniques=settled)


def _known(name: str, space: Space) -> None:
    if name in space.strategies:
        return
    if name in space.excluded:
        raise IllegalPlan(f"technique {name} cannot be used here: {space.excluded[name]}")
    raise IllegalPlan(f"unknown technique {name!r}{nearest(name, space.strategies)}")


def _filled(
    techniques: Mapping[str, Mapping[str, Value]], space: Space, baseline: Genome
) -> dict[str, dict[str, Value]]:
    filled = {name: dict(genes) for name, genes in techniques.items()}
    for slot, choices in space.slots.items():
        if space.always(slot) and not any(one.name in filled for one in choices):
            own = next((one.name for one in choices if one.name in baseline), None)
            filled |= {own: dict(baseline[own])} if own else {}
    return filled


def of_genome(genome: Genome, title: str, why: str) -> Plan:
    """The plan that says what a genome says."""
    return Plan(title[:TITLE], why, {name: dict(genes) for name, genes in genome.items()})
