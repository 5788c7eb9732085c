"""A request in plain language that the rules could not read, read by a language model.

The model only fills in a form; what it fills in is checked against what exists here, and shown to
the person before any work starts.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from engine import catalogue
from engine.agent import prompts
from engine.agent.brief import REQUEST
from engine.agent.llm import FormatFailure, Message, Model, Request
from engine.agent.prompts import Part
from engine.errors import UsageError
from engine.search.space import Space, space
from engine.specification import TARGETS, Specification, Target
from engine.strategy import nearest, registry

_WHOLE = {"type": ["integer", "null"]}
_NUMBER = {"type": ["number", "null"]}
_TEXT = {"type": ["string", "null"]}
SCHEMA: Mapping[str, Any] = {
    "type": "object",
    "properties": {
        "model": {"type": "string"},
        "scheduler": _TEXT,
        "steps": _WHOLE,
        "keep_steps": {"type": "boolean"},
        "methods": {
            "type": "object",
            "additionalProperties": {
                "type": "object",
                "additionalProperties": {"type": ["number", "string", "boolean"]},
            },
        },
        "height": _WHOLE,
        "width": _WHOLE,
        "dtype": _TEXT,
        "guidance_scale": _NUMBER,
        "preprocessor": _TEXT,
        "hw": _TEXT,
        "target_kind": {"enum": [*TARGETS, None]},
        "target_value": _NUMBER,
        "target_seconds_base": _NUMBER,
        "max_loss": _NUMBER,
        "notes": {"type": "array", "items": {"type": "string"}},
    },
    "required": ["model", "methods", "notes"],
    "additionalProperties": False,
}
"""The form."""


def by_model(
    text: str, model: Model, understood: str = "", hardware: Sequence[str] = ("auto", "cpu", "cuda")
) -> Specification:
    """The specification of a request; ``understood`` is what the rules say of it.

    Raises UsageError that says what is missing where the model's answer names what does not
    exist, and LlmError and BudgetSpent.
    """
    wanted = Request("reader", messages(text, understood, hardware), SCHEMA, {}, "the request")
    try:
        reply = model.complete(wanted)
    except FormatFailure as failure:
        raise UsageError(
            f"the request was not understood ({failure.reason}); name a model and what you want, "
            "such as +request='SDXL twice as fast, quality within 5 %'"
        ) from failure
    return specification(text, reply.parsed or {})


def by_configured(text: str, understood: str, overrides: Sequence[str]) -> Specification | None:
    """The specification of a request that the rules could not read, by the language model that the
    overrides of a command line name; None where they name none.

    The call is recorded under ``requests/`` of the outputs, so the same request is paid once.
    """
    import hashlib
    from pathlib import Path

    named = [t for t in overrides if t.lstrip("+").partition("=")[0].partition(".")[0] == "llm"]
    if not any(t.lstrip("+").startswith("llm=") for t in named):
        return None
    import hydra

    from engine.agent.doors import door
    from engine.config import CONF, read

    outputs = [t for t in overrides if t.startswith("paths.outputs=")]
    with hydra.initialize_config_dir(str(CONF), version_base="1.3"):
        config = read(hydra.compose("config", overrides=[*named, *outputs]))
    if config.llm.name == "offline":
        return None
    name = hashlib.sha256(text.encode()).hexdigest()[:12]
    folder = Path(config.paths.outputs) / "requests" / name
    return by_model(text, door(config.llm, folder), understood)


def messages(text: str, understood: str, hardware: Sequence[str]) -> tuple[Message, ...]:
    """The prompt."""
    known = space(registry())
    short = "\n".join(f"- {one.name}: {one.summary}" for one in known.strategies.values())
    values = {
        "request": prompts.quoted(text[:REQUEST]),
        "understood": prompts.one_line(understood),
        "hardware": ", ".join(hardware),
    }
    parts: dict[str, Part | str] = {
        "models": Part((_models(),)),
        "techniques": Part((_techniques(known), short, ", ".join(known.strategies))),
    }
    return prompts.prompt("reader", values, parts)


def _models() -> str:
    lines = []
    for name in catalogue.names():
        entry = catalogue.entry(name)
        if entry["pipeline"] is not None:
            lines.append(f"- {name}: {entry['id']}, {entry['pipeline']}")
    return "\n".join(lines)


def _techniques(known: Space) -> str:
    return "\n".join(
        f"- {one.name}: {one.summary} Settings: {', '.join(one.genes) or 'none'}."
        for one in known.strategies.values()
    )


def specification(text: str, data: Mapping[str, Any]) -> Specification:
    """The filled-in form, checked; raises UsageError for what does not exist."""
    name = str(data["model"])
    if name not in catalogue.names():
        raise UsageError(f"the request names no model that is known here{_near(name)}")
    entry = catalogue.entry(name)
    for method in data["methods"]:
        if method not in registry():
            raise UsageError(f"the request names technique {method!r}{nearest(method, registry())}")
    methods = {
        # A request may give the gate as a step, which the specification knows.
        method: {g: v for g, v in settings.items() if g in {*registry()[method].genes, "gate_step"}}
        for method, settings in data["methods"].items()
    }
    target = None
    if data.get("target_kind") is not None and data.get("target_value") is not None:
        kind, base = str(data["target_kind"]), data.get("target_seconds_base")
        base = None if kind != "seconds" or base is None else float(base)
        target = Target(kind, float(data["target_value"]), base)
    return Specification(
        request=text,
        model=name,
        pipeline=entry["pipeline"],
        model_id=entry["id"],
        controlnet=entry["controlnet"],
        scheduler=data.get("scheduler"),
        steps=data.get("steps"),
        keep_steps=bool(data.get("keep_steps")),
        methods=methods,
        height=data.get("height"),
        width=data.get("width"),
        dtype=data.get("dtype"),
        guidance_scale=data.get("guidance_scale"),
        preprocessor=data.get("preprocessor"),
        hw=data.get("hw"),
        target=target,
        max_loss=data.get("max_loss"),
        notes=("read by the language model", *map(str, data["notes"])),
    )


def _near(name: str) -> str:
    return nearest(name, catalogue.names())
