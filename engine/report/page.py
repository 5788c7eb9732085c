"""One self-contained HTML page from the files of a study or a run, so that it can be rebuilt."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from engine.files import write_text
from engine.report import agent, compared, effects, facts, pictures, plots, rows, text
from engine.report.drawing import both, markup
from engine.report.material import Material, Point, read_run, read_study, recommended
from engine.report.terminal import objective_is_time, summary_line

if TYPE_CHECKING:
    from jinja2 import Environment


def write_study_report(folder: Path) -> Path:
    """Write ``report.html`` from study.json, front.json and the trials of a folder.

    Raises UsageError when study.json or front.json is missing or damaged.
    """
    return write_page(folder / "report.html", render(read_study(folder)))


def write_run_report(folder: Path) -> Path:
    """Write ``report.html`` from run.json and result.json of one composition's folder."""
    return write_page(folder / "report.html", render(read_run(folder)))


def write_page(path: Path, page: str) -> Path:
    """Write a page, whole, and return its path."""
    write_text(path, page)
    return path


def environment() -> Environment:
    """The templates of all pages; what they are given is escaped."""
    from jinja2 import Environment, FileSystemLoader, StrictUndefined

    made = Environment(
        loader=FileSystemLoader(Path(__file__).parent / "templates"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    made.filters |= {
        "ratio": text.ratio,
        "percent": text.percent,
        "number": text.number,
        "flops": text.flops,
        "value": text.value,
        "describe": text.describe,
    }
    return made


def render(material: Material) -> str:
    """The page's text."""
    return environment().get_template("page.html.jinja").render(_view(material))


def _view(material: Material) -> dict[str, Any]:
    """Everything that the template names."""
    study = material.study
    best = recommended(material.points)
    gallery = pictures.Gallery(material.folder)
    comparisons = [compared.view(material, p, gallery) for p in _ordered(material, best)]
    model = study.get("model") or {}
    machine = dict(study.get("machine") or {})
    families = rows.families(material, best)
    listed = rows.listed(material, families)
    linked = {t.trial for t in listed}
    return {
        "single": material.single,
        "label": material.label,
        "title": f"{model.get('name', 'model')}: {study.get('study') or 'run'}",
        "summary": summary_line(study, {"front": [vars(p) for p in material.points]}),
        "warnings": facts.warnings(material),
        "facts": facts.facts(material, best),
        "timed": objective_is_time(study),
        "fidelity": text.same_image(material.goal),
        "loss_name": text.loss_name(material.goal),
        "baseline": (study.get("baseline") or {}).get("label", "baseline"),
        "plain": (study.get("plain") or {}).get("label"),
        "front_plot": markup(both(lambda size: plots.front(material, size, linked))),
        "thinned": len(material.trials) > plots.DOTS,
        "failures": rows.failures(material.trials),
        "most_failures": rows.FAILURES,
        "rows": rows.front(material, best),
        "columns": rows.columns(material),
        "shapes": rows.shapes(material, best or next(iter(material.points), None)),
        "families": families,
        "agent": agent.view(material),
        "effects": None if material.single else effects.view(material),
        "comparisons": [c for c in comparisons if c["pairs"]],
        "thumbnails": list(gallery.thumbnails.values()),
        "convergence": [] if material.single else facts.convergence(material),
        "bars": facts.bars(material),
        "trials": listed,
        "all_trials": len(material.trials),
        "linked": linked,
        "on_front": {p.trial for p in material.points},
        "versions": machine.pop("versions", None) or {},
        "machine": machine,
        "model": model,
        "goal": material.goal,
        "data": facts.data(material),
        "config": study.get("config", ""),
        "reproduce": facts.reproduce(material, best),
        "miniature": bool(study.get("miniature")),
        "started": str(study.get("started") or "")[:16].replace("T", " "),
        "recommended": best is not None,
    }


def _ordered(material: Material, best: Point | None) -> list[Point]:
    """The recommended point first, then the others, fastest first."""
    others = [p for p in material.points if p is not best]
    return ([best] if best else []) + others
