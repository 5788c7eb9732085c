"""One self-contained HTML page from the files of a study or a run, so that it can be rebuilt."""

from __future__ import annotations

import os
import shlex
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from engine.report import pictures, plots, text
from engine.report.material import Material, Point, read_run, read_study, recommended
from engine.report.terminal import objective_is_time, summary_line
from engine.results import Result

REASON = 160
"""Characters of a failure's reason in the short list; the table of all trials has it whole."""


def write_study_report(folder: Path) -> Path:
    """Write ``report.html`` from study.json, front.json and the trials of a folder.

    Raises UsageError when study.json or front.json is missing or damaged.
    """
    return _write(read_study(folder))


def write_run_report(folder: Path) -> Path:
    """Write ``report.html`` from run.json and result.json of one composition's folder."""
    return _write(read_run(folder))


def _write(material: Material) -> Path:
    path = material.folder / "report.html"
    partial = path.with_name(path.name + ".partial")
    partial.write_text(render(material), encoding="utf-8")
    # A reader sees the old page or the new one, whole.
    os.replace(partial, path)
    return path


def render(material: Material) -> str:
    """The page's text."""
    from jinja2 import Environment, FileSystemLoader, StrictUndefined

    environment = Environment(
        loader=FileSystemLoader(Path(__file__).parent / "templates"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {
        "ratio": text.ratio,
        "percent": text.percent,
        "number": text.number,
        "flops": text.flops,
        "value": text.value,
        "describe": text.describe,
    }
    return environment.get_template("page.html.jinja").render(_view(material))


def _view(material: Material) -> dict[str, Any]:
    """Everything that the template names."""
    study = material.study
    best = recommended(material.points)
    gallery = pictures.Gallery(material.folder)
    comparisons = [_comparison(material, p, gallery) for p in _ordered(material, best)]
    model = study.get("model") or {}
    machine = dict(study.get("machine") or {})
    return {
        "single": material.single,
        "label": material.label,
        "title": f"{model.get('name', 'model')}: {study.get('study') or 'run'}",
        "summary": summary_line(study, {"front": [vars(p) for p in material.points]}),
        "warnings": _warnings(material),
        "facts": _facts(material, best),
        "timed": objective_is_time(study),
        "baseline": (study.get("baseline") or {}).get("label", "baseline"),
        "plain": (study.get("plain") or {}).get("label"),
        "front_plot": _markup(plots.both(lambda size: plots.front(material, size))),
        "failed": [(t, _first_line(t.reason)) for t in material.trials if not t.ok],
        "rows": [_row(material, p, p is best) for p in material.points],
        "comparisons": [c for c in comparisons if c["pairs"]],
        "thumbnails": list(gallery.thumbnails.values()),
        "convergence": [] if material.single else _convergence(material),
        "bars": _bars(material),
        "trials": material.trials,
        "on_front": {p.trial for p in material.points},
        "versions": machine.pop("versions", None) or {},
        "machine": machine,
        "model": model,
        "goal": material.goal,
        "config": study.get("config", ""),
        "reproduce": _reproduce(material, best),
        "miniature": bool(study.get("miniature")),
        "started": str(study.get("started") or "")[:16].replace("T", " "),
        "recommended": best is not None,
    }


def _markup(svg: str) -> Any:
    from markupsafe import Markup

    # Drawings escape their own text (engine.report.plots).
    return Markup(svg)


def _ordered(material: Material, best: Point | None) -> list[Point]:
    """The recommended point first, then the others, fastest first."""
    others = [p for p in material.points if p is not best]
    return ([best] if best else []) + others


def _warnings(material: Material) -> list[str]:
    study = material.study
    found = []
    if study.get("miniature"):
        found.append(
            "Measured on a miniature: a real pipeline with small weights of its own. "
            "Its speed-ups and losses do not carry over to real models."
        )
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


def _facts(material: Material, best: Point | None) -> list[tuple[str, str]]:
    study = material.study
    baseline, plain = study.get("baseline") or {}, study.get("plain")
    control, single = study.get("control"), study.get("single")
    seconds = baseline.get("seconds_per_image")
    facts = [
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
        facts.append(("Plain", f"{plain.get('label', 'plain')}: {times}"))
    if control:
        interval = text.ratio_interval(control.get("low"), control.get("high"))
        facts.append(("A/A control", f"{interval}, {control.get('word') or 'no word'}"))
    if single:
        words = f"{text.ratio(single.get('speedup'))}: {text.describe(single.get('genome') or {})}"
        if best and best.speedup and single.get("speedup"):
            words += f"; the recommended point is {best.speedup / single['speedup']:.2f} times that"
        facts.append(("Best single technique", words))
    count, failed = study.get("evaluations"), study.get("failed")
    words = f"{text.value(count)} tried, {text.value(failed)} failed"
    if study.get("wall_s") is not None:
        words += f", {text.duration(study['wall_s'])}"
    if study.get("overhead_share") is not None:
        share = text.percent(study["overhead_share"])
        words += f", {share} of it outside generating, loading and scoring"
    facts.append(("Compositions", words))
    return facts


def _row(material: Material, point: Point, best: bool) -> dict[str, Any]:
    result = material.trial(point.trial)
    base = result.cost_base_flops if result else None
    share = point.cost_flops / base if base and point.cost_flops is not None else None
    return {
        "point": point,
        "best": best,
        "speedup": text.ratio_interval(point.speedup_low, point.speedup_high),
        "plain": text.ratio_interval(point.speedup_plain_low, point.speedup_plain_high),
        "loss": text.percent_interval(point.loss_low, point.loss_high),
        "cost_share": share,
    }


def _comparison(material: Material, point: Point, gallery: pictures.Gallery) -> dict[str, Any]:
    result = material.trial(point.trial)
    samples = result.samples if result else ()
    parts = pictures.compare(samples)

    def views(found: tuple[pictures.Pair, ...]) -> list[dict[str, Any]]:
        return [
            {
                "pair": pair,
                "sides": [
                    (name, sample, _thumbnail(material, point, sample.image, gallery))
                    for name, sample in (
                        ("baseline", pair.base),
                        (material.label(point.trial), pair.candidate),
                    )
                ],
            }
            for pair in found
        ]

    groups = {part: views(getattr(parts, part)) for part in ("worst", "shown", "rest")}
    notes = result.notes if result else ()
    return groups | {"point": point, "pairs": sum(map(len, groups.values())), "notes": notes}


def _thumbnail(
    material: Material, point: Point, image: str | None, gallery: pictures.Gallery
) -> pictures.Thumbnail | None:
    return gallery.add(material.folders[point.trial] / image) if image else None


def _convergence(material: Material) -> list[dict[str, Any]]:
    found = plots.progress(material)
    lines: tuple[tuple[str, str, tuple[float | None, ...]], ...] = (
        ("Best speed-up within the goal, by trial", "speed-up", found.best),
        ("Hypervolume, by trial", "hypervolume", found.volume),
    )
    if not found.trials:
        return []
    return [
        {
            "title": title,
            "wide": _markup(plots.steps(found.trials, values, title, label, plots.WIDE)),
            "narrow": _markup(plots.steps(found.trials, values, title, label, plots.NARROW)),
            "limit": found.limit,
        }
        for title, label, values in lines
        if any(value is not None for value in values)
    ]


def _bars(material: Material) -> list[dict[str, Any]]:
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


def _first_line(reason: str | None) -> str:
    line = (reason or "no reason was recorded").strip().partition("\n")[0]
    return line if len(line) <= REASON else line[:REASON].rstrip() + " \u2026"


def _reproduce(material: Material, best: Point | None) -> list[tuple[str, str]]:
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
