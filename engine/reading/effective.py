"""A reading with what it leaves unstated filled in: what the program really does."""

from __future__ import annotations

import math
from dataclasses import replace

from engine.reading import Reading, facts


def filled(reading: Reading) -> Reading:
    """The reading with the defaults of the pipeline and of the model in place of None.

    What is stated and could not be read stays None: nobody knows it.
    """
    call = facts.CALLS.get(reading.pipeline or "")
    entry = facts.entry_for(reading.model_id or "", reading.pipeline)
    given: dict[str, object] = {"dtype": "float32"}
    if call is not None:
        given |= {"steps": call.steps, "guidance_scale": call.guidance_scale}
        given |= {"strength": call.strength}
    if entry is not None:
        given["scheduler"] = facts.published_scheduler(str(entry["id"]))
        # A pipeline that starts from an image takes its size from that.
        if entry["task"] != "image":
            given |= {"height": entry["height"], "width": entry["width"]}
    fresh = {
        name: value
        for name, value in given.items()
        if value is not None and getattr(reading, name) is None and not unread(reading, name)
    }
    return replace(reading, **fresh)  # type: ignore[arg-type]


def unread(reading: Reading, name: str) -> str | None:
    """The sentence that says why a field could not be read."""
    return next((text for text in reading.unread if text.startswith(f"{name}: ")), None)


def gate_step(gate: float, steps: int) -> int:
    """The step at which a fraction closes the gate, as ``strategies/tgate.py`` counts."""
    return max(1, int(gate * steps + 1e-6))


def gate_share(step: int, steps: int) -> float:
    """The fraction that closes the gate at a step, in six decimals: the smallest such one, since
    one that is rounded down (0.533333 of 15) closes it a step too early."""
    return math.ceil(1e6 * step / steps) / 1e6
