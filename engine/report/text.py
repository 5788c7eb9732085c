"""Numbers and compositions in words, the same in the page and on the console."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from engine.genome import describe as describe

NONE = "\u2013"
"""What stands where nothing was measured: an en dash."""


def ratio(value: float | None) -> str:
    """A speed-up such as ``4.12x``: two decimals under 10, one from there on."""
    if value is None:
        return NONE
    return f"{value:.2f}x" if abs(value) < 9.995 else f"{value:.1f}x"


def percent(share: float | None) -> str:
    """A fraction as a percentage with one decimal: 0.021 is ``2.1 %``."""
    if share is None:
        return NONE
    # Adding zero turns a rounded "-0.0" into "0.0".
    return f"{round(100 * share, 1) + 0.0:.1f} %"


def number(value: float | None, digits: int = 3) -> str:
    """A number with that many significant digits, without an exponent where that is readable."""
    if value is None:
        return NONE
    if value == 0 or not 1e-6 <= abs(value) < 1e6:
        return f"{value:.{digits}g}"
    return f"{value:.{max(digits - 1 - math.floor(math.log10(abs(value))), 0)}f}"


def flops(value: float | None) -> str:
    """Operations with their prefix: ``1.23 G``, ``45.6 T``."""
    if value is None:
        return NONE
    for size, prefix in ((1e15, "P"), (1e12, "T"), (1e9, "G"), (1e6, "M")):
        if value >= size:
            return f"{number(value / size)} {prefix}"
    return number(value)


def duration(seconds: float | None) -> str:
    """``42 s``, ``7 min 05 s`` or ``3 h 12 min``."""
    if seconds is None:
        return NONE
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60:02d} s"
    return f"{whole // 3600} h {whole % 3600 // 60:02d} min"


def ratio_interval(low: float | None, high: float | None) -> str:
    """``3.94 to 4.31``, or an en dash without an interval."""
    if low is None or high is None:
        return NONE
    return f"{ratio(low)[:-1]} to {ratio(high)[:-1]}"


def percent_interval(low: float | None, high: float | None) -> str:
    """``1.0 to 3.2 %``, or an en dash without an interval."""
    if low is None or high is None:
        return NONE
    return f"{percent(low)[:-2]} to {percent(high)}"


def value(item: object) -> str:
    """A value as a person would type it: true and false as in YAML, lists with commas."""
    if item is None:
        return NONE
    if isinstance(item, bool):
        return "true" if item else "false"
    if isinstance(item, float):
        return f"{item:g}"
    if isinstance(item, Mapping):
        return ", ".join(f"{key} {value(inner)}" for key, inner in item.items())
    if isinstance(item, list | tuple):
        return ", ".join(map(value, item)) or NONE
    return str(item)


def images(count: float | None, speedup: float | None = None) -> str:
    """After how many images a longer start has paid (``engine.results.break_even``)."""
    if count is None:
        return "never" if speedup is not None and speedup <= 1 else NONE
    whole = math.ceil(count)
    return "at once" if whole == 0 else f"{whole:,} image{'' if whole == 1 else 's'}"


def same_image(goal: Mapping[str, Any]) -> bool:
    """Whether losses are of fidelity to the baseline's image, not of the CLIP score."""
    return goal.get("quality") == "same_image"


def loss_name(goal: Mapping[str, Any]) -> str:
    """What a loss is a loss of."""
    return "fidelity loss" if same_image(goal) else "quality loss"


def quality_unmeasured(study: Mapping[str, Any]) -> str:
    """``quality: not measured``, with the reason where study.json tells one."""
    reason = study.get("unmeasured")
    model = study.get("model") or {}
    if not reason and "scorer" in model and model["scorer"] is None:
        reason = "the model names no scorer"
    return f"quality: not measured ({reason})" if reason else "quality: not measured"


def goal_words(goal: Mapping[str, Any]) -> str:
    """The goal's limits in words; keys that are absent or null set no limit."""
    forms: tuple[tuple[str, Any], ...] = (
        ("max_loss", lambda x: f"{loss_name(goal)} at most {percent(x)}"),
        ("max_worst", lambda x: f"that of the worst tenth at most {percent(x)}"),
        ("accuracy_drop", lambda x: f"checker accuracy at most {100 * x:g} points lower"),
        ("speedup", lambda x: f"at least {ratio(x)} faster"),
        ("seconds", lambda x: f"at most {x:g} s per image"),
        ("memory_gib", lambda x: f"at most {x:g} GiB"),
    )
    parts = [
        words(goal[key])
        for key, words in forms
        if goal.get(key) is not None and (key != "max_worst" or same_image(goal))
    ]
    if goal.get("keep_steps"):
        parts.append("the baseline's number of steps")
    return ", ".join(parts) or "no limit"
