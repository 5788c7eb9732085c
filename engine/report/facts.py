"""What the top and the end of the page say: warnings, facts, the user's data, what to type."""

from __future__ import annotations

import shlex
from collections.abc import Mapping
from typing import Any

from engine.report import plots, text
from engine.report.drawing import NARROW, WIDE, markup
from engine.report.material import Material, Point
from engine.report.terminal import objective_is_time
from engine.results import Result


def warnings(material: Material) -> list[str]:
    study = material.study
    found = []
    if study.get("miniature"):
        found.append(
            "Measured on a miniature: a real pipeline with small weights of its own. "
            "Its speed-ups and losses do not carry over to real models."
        )
    if study.get("unmeasured"):
        words = text.quality_unmeasured(study)
        found.append(f"{words[0].upper()}{words[1:]}; the pictures mean nothing.")
    control = study.get("control") or {}
    if objective_is_time(study) and control.get("ok") is False:
        found.append(
            "The A/A control is void: the baseline against itself gave "
            f"{text.ratio_interval(control.get('low'), control.get('high'))} "
            f"({control.get('word') or 'it should be 1'}). "
            "No timing on this page can be relied on; run again on a quieter machine."
        )
    if not objective_is_time(study):
        found.append("Speed-ups on this page are ratios of counted operations, not of time.")
    found += [f"Left out, because it cannot be read: {words}" for words in material.unreadable]
    return found


def facts(material: Material, best: Point | None) -> list[tuple[str, str]]:
    study = material.study
    baseline, plain = study.get("baseline") or {}, study.get("plain")
    control, single = study.get("control"), study.get("single")
    seconds = baseline.get("seconds_per_image")
    found = [
        ("Goal", text.goal_words(material.goal)),
        (
            "Baseline",
            baseline.get("label", text.NONE)
            + (f", {text.number(seconds)} s per image" if seconds else ""),
        ),
    ]
    if plain:
        interval = text.ratio_interval(plain.get("ratio_low"), plain.get("ratio_high"))
        times = f"{text.ratio(plain.get('ratio'))} ({interval}) the baseline's time per image"
        found.append(("Plain", f"{plain.get('label', 'plain')}: {times}"))
    if control:
        interval = text.ratio_interval(control.get("low"), control.get("high"))
        found.append(("A/A control", f"{interval}, {control.get('word') or 'no word'}"))
    if single:
        words = f"{text.ratio(single.get('speedup'))}: {text.describe(single.get('genome') or {})}"
        if best and best.speedup and single.get("speedup"):
            words += f"; the recommended point is {best.speedup / single['speedup']:.2f} times that"
        found.append(("Best single technique", words))
    count, failed = study.get("evaluations"), study.get("failed")
    words = f"{text.value(count)} tried, {text.value(failed)} failed"
    if study.get("wall_s") is not None:
        words += f", {text.duration(study['wall_s'])}"
    if study.get("overhead_share") is not None:
        share = text.percent(study["overhead_share"])
        words += f", {share} of it outside generating, loading and scoring"
    found.append(("Compositions", words))
    return found


def data(material: Material) -> dict[str, Any] | None:
    """The user's prompts: the file, both parts, and whether they are disjoint; None without."""
    given = material.study.get("data")
    if not given:
        return None
    search, acceptance = list(given.get("search") or ()), list(given.get("acceptance") or ())
    common = {str(p) for p in search} & {str(p) for p in acceptance}
    words = f"{len(search)} prompts for the search and {len(acceptance)} held out for the front; "
    words += (
        f"{len(common)} of them are in both, so the front is not measured on unseen prompts"
        if common
        else "none is in both"
    )
    return {
        "file": given.get("file"),
        "words": f"{words}.",
        "parts": [("Search", search), ("Acceptance", acceptance)],
        "common": sorted(common),
    }


def convergence(material: Material) -> list[dict[str, Any]]:
    found = plots.progress(material)
    lines: tuple[tuple[str, str, tuple[float | None, ...]], ...] = (
        ("Best speed-up within the goal, by trial", "speed-up", found.best),
        ("Gain over all allowed losses, by trial", "gain", found.volume),
    )
    if not found.trials:
        return []
    return [
        {
            "title": title,
            "wide": markup(plots.steps(found.trials, values, title, label, WIDE)),
            "narrow": markup(plots.steps(found.trials, values, title, label, NARROW)),
            "limit": found.limit,
        }
        for title, label, values in lines
        # A line along zero says nothing and has no scale.
        if any(values)
    ]


def bars(material: Material) -> list[dict[str, Any]]:
    """Groups of bars: the baseline's profile, seconds per image and memory per point."""
    study = material.study
    profile: Mapping[str, float | None] = study.get("profile") or {}
    baseline = study.get("baseline") or {}
    labels = [(material.label(p.trial), p) for p in material.points]
    results = [r for p in material.points if (r := material.trial(p.trial)) is not None]
    memory = next((r.memory_base_gib for r in results if r.memory_base_gib is not None), None)
    groups: list[tuple[str, str, list[tuple[str, float | None]]]] = [
        (
            "Where the baseline's time goes",
            "ms",
            [(name.removesuffix("_ms"), value) for name, value in profile.items()],
        ),
        (
            "Time per image",
            "s",
            [("baseline", baseline.get("seconds_per_image"))]
            + [(label, p.seconds_per_image) for label, p in labels],
        ),
        (
            "Memory",
            "GiB",
            [("baseline", memory)] + [(label, p.memory_gib) for label, p in labels],
        ),
    ]
    return [
        {"title": title, "unit": unit, "rows": rows}
        for title, unit, figures in groups
        if (rows := _scaled(figures))
    ]


def _scaled(figures: list[tuple[str, float | None]]) -> list[tuple[str, str, float]]:
    """Label, figure in words, and share of the longest bar in %; without what is unknown."""
    known = [(label, value) for label, value in figures if value is not None]
    longest = max((value for _, value in known), default=0.0) or 1.0
    return [(label, text.number(value), round(100 * value / longest, 1)) for label, value in known]


def reproduce(material: Material, best: Point | None) -> list[tuple[str, str]]:
    """What to type, with what it does."""
    study = material.study
    found = [("The same again", study.get("command"))]
    if study.get("resume") != study.get("command"):
        found.append(("Resume, or add to what is there", study.get("resume")))
    point = best or (material.points[0] if material.points else None)
    if point is not None and point.command != study.get("command"):
        found.append((f"Measure {material.label(point.trial)} again", point.command))
    if point is not None and point.program:
        prompt = _prompt(material.trial(point.trial))
        words = f"python {shlex.quote(point.program)} --prompt {shlex.quote(prompt)} --seed 0"
        what = "One picture with the program"
        what += "" if material.single else f" of #{point.trial}"
        found.append((what, f"{words} --output 0.png"))
    return [(what, command) for what, command in found if command]


def _prompt(result: Result | None) -> str:
    return result.samples[0].prompt if result and result.samples else "your prompt"
