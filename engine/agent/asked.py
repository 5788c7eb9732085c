"""From what a request asks for to a plan and to what its program runs, by rules."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

from engine import catalogue
from engine.agent.plans import Plan
from engine.errors import UsageError
from engine.genome import canonical, describe
from engine.program import Subject
from engine.reading import Value
from engine.reading.effective import gate_share
from engine.results import Genome
from engine.specification import SOLVERS, Specification, steps_of
from engine.strategy import registry


def subject_of(asked: Specification) -> Subject:
    """What a program for the published model of a request runs: what the request leaves free is
    as published, and the weights are as they are stored unless it asks for a number format."""
    entry = catalogue.entry(asked.model)

    def own(name: str) -> Any:
        value = getattr(asked, name)
        return entry[name] if value is None else value

    return Subject(
        name=asked.model,
        id=asked.model_id,
        revision=entry["revision"],
        pipeline=asked.pipeline,
        denoiser=entry["denoiser"],
        steps=own("steps"),
        guidance_scale=own("guidance_scale"),
        height=own("height"),
        width=own("width"),
        miniature=False,
        device="cuda",
        dtype=asked.dtype or "float32",
        task=entry["task"],
        controlnet=asked.controlnet,
        call=entry["call"],
    )


def stands_for(asked: Specification, name: str, weights: str) -> Subject | None:
    """What programs must name where a study runs a miniature in place of the model asked for;
    None where it runs the model itself."""
    published = weights == "mini" and catalogue.entry(name)["mini"] != name
    return subject_of(asked) if published else None


def plan_of(asked: Specification) -> Plan:
    """The plan that a request without a target states: its scheduler, its steps, its methods.

    What no gene can say is its structure, in words. A control image is none of that: whoever calls
    our programs hands it in as the ControlNet reads it.
    """
    techniques: dict[str, dict[str, Value]] = {}
    beyond: list[str] = []
    if asked.scheduler in SOLVERS:
        name, solver = SOLVERS[asked.scheduler]
        techniques[name] = {"name": solver, "steps": steps_of(asked)}
    elif asked.scheduler is not None:
        beyond.append(f"the scheduler is {asked.scheduler}, with {steps_of(asked)} steps")
    for name, settings in asked.methods.items():
        genes = _genes(asked, name, settings)
        if genes is None:
            beyond.append(f"use {name} with {dict(settings)}" if settings else f"use {name}")
        else:
            techniques[name] = genes
    title = describe(techniques) if techniques else f"{asked.model} as published"
    return Plan(title[:80], "what the request states", techniques, "; ".join(beyond))


def genome_of(plan: Plan) -> Genome:
    """The composition of a request's plan; raises UsageError where it cannot be composed."""
    return canonical(plan.techniques)


def _genes(
    asked: Specification, name: str, settings: Mapping[str, Value]
) -> dict[str, Value] | None:
    """A named technique's genes; None where it is none of ours or takes other values."""
    known = registry().get(name)
    if known is None:
        return None
    genes = dict(settings)
    step = genes.pop("gate_step", None)
    if step is not None and "gate" in known.genes:
        genes["gate"] = gate_share(int(step), steps_of(asked))
    try:
        known.checked(genes)
    except UsageError:
        return None
    return genes


def repaired(plan: Plan, asked: Specification, stage: str, reason: str) -> Plan | None:
    """The debugger's rule: a technique that did nothing takes its next known setting, as far as
    the request leaves it free. None where no rule helps."""
    if stage != "active":
        return None
    for name, genes in plan.techniques.items():
        if name not in reason:
            continue
        stated = asked.methods.get(name, {})
        for known in registry()[name].known_good:
            fresh = {**known.genes, **stated}
            if fresh != genes and all(genes.get(g) == v for g, v in stated.items() if g in genes):
                return dataclasses.replace(plan, techniques={**plan.techniques, name: dict(fresh)})
    return None
