"""A short key of what a program does, whatever its style."""

from __future__ import annotations

import hashlib
import json
from typing import Any

from engine.reading import Method, Reading
from engine.reading.effective import filled, gate_step
from engine.reading.mirrors import canonical_id

USUAL = {"compile": {"mode": "default", "dynamic": False, "fullgraph": False}}
"""Settings that say nothing more than the method's name."""


def key_of(reading: Reading) -> str:
    """16 hexadecimal digits: equal for two programs that run the same model in the same way.

    What is left to the pipeline counts as its default, mirrors as the same model, a gate as the
    step at which it closes. What could not be read is part of the key, so that two programs are
    taken for the same only where both were read.
    """
    full = filled(reading)
    found: dict[str, Any] = {
        "pipeline": full.pipeline,
        "model": canonical_id(full.model_id or ""),
        "controlnet": canonical_id(full.controlnet or ""),
        "scheduler": [full.scheduler, dict(full.scheduler_settings)],
        "steps": full.steps,
        "guidance": full.guidance_scale,
        "size": [full.height, full.width],
        "strength": full.strength,
        "dtype": full.dtype,
        "preprocessor": full.preprocessor,
        "negative": full.negative_prompt or "",
        "methods": {name: value for m in full.methods for name, value in _entry(m, full)},
        "unread": sorted(text for text in full.unread if not text.startswith("calls: ")),
    }
    text = json.dumps(found, sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def _entry(method: Method, full: Reading) -> list[tuple[str, Any]]:
    """A method as it enters the key; none for what other fields say already."""
    settings = dict(method.settings)
    if method.name in ("sampler", "flow_sampler"):
        shift = settings.get("shift", 1.0)
        return [] if shift == 1.0 else [("shift", shift)]
    if method.name == "precision":
        # A program without this technique keeps the autoencoder like the rest.
        return [("vae dtype", "float32")] if settings.get("vae") == "float32" else []
    if method.name == "tgate" and full.steps and "gate" in settings:
        settings["gate_step"] = gate_step(float(settings.pop("gate")), full.steps)
    usual = USUAL.get(method.name, {})
    return [(method.name, {k: v for k, v in sorted(settings.items()) if usual.get(k) != v})]
