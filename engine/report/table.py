"""A study's front as a Markdown table."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from engine import goal as goals
from engine.report import text
from engine.report.material import Point, points, recommended


def markdown(study: Mapping[str, Any], front: Mapping[str, Any]) -> str:
    """The front's points, fastest first, and the best single technique below them."""
    found = points(front)
    best = recommended(found)
    baseline = (study.get("baseline") or {}).get("label", "the baseline")
    name = "fidelity loss" if text.same_image(study.get("goal") or {}) else "loss"
    lines = [
        f"| techniques | faster than {baseline} | than the plain program | {name} | checker |",
        "|---|---|---|---|---|",
        *(_line(point, bold=best is not None and point.trial == best.trial) for point in found),
    ]
    single = study.get("single")
    if single:
        words = f"{text.describe(single['genome'])}: {text.ratio(single['speedup'])}"
        lines += ["", f"Best single technique within the goal: {words}."]
    # Studies that do not say which point they hand over chose the fastest.
    surest = best is not None and best.recommended and goals.asks(study.get("goal") or {})
    bold = "point that keeps the goal most surely" if surest else "fastest point within the goal"
    machine = study.get("machine") or {}
    versions = machine.get("versions") or {}
    lines += [
        "",
        f"{study.get('evaluations')} candidates in {text.duration(study.get('wall_s'))} on "
        f"{machine.get('device_name')}, {machine.get('threads')} threads, torch "
        f"{versions.get('torch')}, diffusers {versions.get('diffusers')}. Intervals are 95 %, "
        f"from held-out prompts. Bold: the {bold}.",
    ]
    return "\n".join(lines) + "\n"


def _line(point: Point, *, bold: bool) -> str:
    mark = "**" if bold else ""
    speed = text.ratio_interval(point.speedup_low, point.speedup_high)
    loss = text.percent_interval(point.loss_low, point.loss_high)
    checker = f"{text.percent(point.accuracy)} ({text.percent(point.accuracy_base)})"
    return (
        f"| {text.describe(point.genome)} | {mark}{text.ratio(point.speedup)}{mark} ({speed}) "
        f"| {text.ratio(point.speedup_plain)} | {text.percent(point.loss)} ({loss}) | {checker} |"
    )
