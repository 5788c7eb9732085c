"""A request in plain language to a specification, by rules.

Each rule takes its words out of the text, so that no number counts twice. What is ambiguous takes
a default, and a note says so; what contradicts itself, and a request without a model, is refused
in one line. ``docs/requests.md`` says what can be asked.
"""

from __future__ import annotations

import re

from engine import catalogue
from engine.errors import UsageError
from engine.phrasing import vocabulary
from engine.phrasing.amounts import count_of, guidance_of, loss_of, size_of, target_of
from engine.phrasing.names import methods_of, model_of, quantization, scheduler_of
from engine.phrasing.words import Words, one, plain
from engine.specification import PLAIN, Specification, steps_of, techniques
from engine.strategy import find

MAX_LOSS = 0.05
"""Loss that is allowed where a request names none, as goal.max_loss in conf/goal."""


def by_rules(text: str, model: str | None = None, *, wins: bool = False) -> Specification:
    """The specification that a request implies; ``model`` is the name in ``conf/model`` that is
    meant where the request names none, with ``wins`` also where it names another.

    Raises UsageError for a request that contradicts itself or names no model.
    """
    words = Words(plain(text), text)
    name, controlnet = model_of(words, model, wins)
    entry = catalogue.entry(name)
    methods = methods_of(words)
    hw = one(words, "device", vocabulary.DEVICES)
    quantization(words, methods, hw)
    dtype = one(words, "number format", ((p, v, "") for p, v in vocabulary.NUMBER_FORMATS))
    scheduler = scheduler_of(words, entry["prediction"] == "flow")
    height, width = size_of(words)
    guidance = guidance_of(words)
    keep, steps = count_of(words)
    target = target_of(words)
    loss = loss_of(words)
    wants_speed = bool(re.search(rf"\b(?:{vocabulary.FAST})\b", words.left))
    if loss is None and (target is not None or (wants_speed and not methods and dtype is None)):
        loss = MAX_LOSS
        words.notes.append(f"no loss of quality is named: at most {MAX_LOSS:.0%} is allowed")
    if target is None and loss is not None and not methods:
        words.notes.append("no target is named: the search takes the time that it has")
    against = scheduler or steps or keep or re.search(rf"\b(?:{PLAIN})\b", words.left)
    if target is not None and target.kind == "speedup" and not against:
        words.notes.append(
            "faster than baseline=strong (20 DPM-Solver++ steps, or the model's own schedule where "
            "that is the stronger one); baseline=plain counts from the published pipeline"
        )
    spec = Specification(
        request=text,
        model=name,
        # Of model=auto both are read later.
        pipeline=entry["pipeline"] or "",
        model_id=entry["id"] or "",
        controlnet=controlnet or entry["controlnet"],
        scheduler=scheduler,
        steps=steps,
        keep_steps=keep,
        methods=methods,
        height=height,
        width=width,
        dtype=dtype,
        guidance_scale=guidance,
        preprocessor="canny" if entry["task"] == "control" else None,
        hw=hw,
        target=target,
        max_loss=loss,
        notes=tuple(dict.fromkeys(words.notes)),
    )
    _check(spec)
    return spec


def _check(spec: Specification) -> None:
    """Refuse settings that no technique takes."""
    for name in spec.methods:
        if spec.methods[name].get("gate_step", 0) and steps_of(spec) <= int(
            spec.methods[name]["gate_step"]
        ):
            raise UsageError(
                f"the gate at step {spec.methods[name]['gate_step']} lies behind the last of "
                f"{steps_of(spec)} steps; name an earlier one"
            )
        find(name).checked(techniques(spec, name))
