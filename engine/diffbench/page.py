"""One static page of a run: the score, and behind every task its request, program and verdict."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from engine.diffbench import paper, summary
from engine.diffbench.verdicts import Verdict
from engine.report.page import environment, write_page
from engine.report.pictures import Gallery, Thumbnail

if TYPE_CHECKING:
    from engine.diffbench.tasks import Task

SHOWN = 4
"""Pairs of pictures that are shown of a task."""
LEVELS = {
    1: "a plain pipeline",
    2: "one acceleration method",
    3: "several methods combined",
    4: "a minimum speed-up",
    5: "a maximum latency",
}
FIGURES = {
    "score": "CLIP score",
    "score_reference": "CLIP score of the reference",
    "score_least": "least CLIP score",
    "accuracy": "checker accuracy",
    "accuracy_reference": "checker accuracy of the reference",
    "loss": "relative loss",
    "max_loss": "allowed loss",
    "speedup": "speed-up",
    "speedup_low": "its lower bound",
    "speedup_high": "its upper bound",
    "required": "required speed-up",
    "seconds": "latency, s",
    "seconds_limit": "allowed latency, s",
    "looks": "looks at the speed",
    "load_s": "load, s",
    "first_call_s": "first call, s",
}
"""Figures in the order of the page, with their names there."""


def write(
    folder: Path,
    verdicts: Sequence[Verdict],
    tasks: Mapping[str, Task],
    found: Mapping[str, Any],
    command: str,
) -> Path:
    """Write ``report.html`` into the run's folder."""
    gallery = Gallery(folder)
    rows = [_row(v, tasks, gallery, folder) for v in verdicts if v.repeat == 0]
    head, *scores = summary.table(dict(found), found["conditions"]["contestant"])
    view = {
        "title": f"DiffBench: {found['conditions']['contestant']}",
        "words": summary.words(dict(found)),
        "command": command,
        "head": head,
        "scores": scores,
        "note": paper.MARK,
        "errors": found["errors"],
        "levels": [level for level in summary.LEVELS if str(level) in found["levels"]],
        "groups": {
            "Pipeline": found["pipelines"],
            "Method named": found["methods"],
            "Difficulty": found["difficulties"],
        },
        "spent": found["spent"],
        "pace": summary.pace(dict(found)),
        "left_out": found["left_out"],
        "sections": [
            (level, words, here)
            for level, words in LEVELS.items()
            if (here := [row for row in rows if row["verdict"].level == level])
        ],
        "thumbnails": [],
    }
    view["thumbnails"] = list(gallery.thumbnails.values())
    page = environment().get_template("bench.html.jinja").render(view)
    return write_page(folder / "report.html", page)


def _row(
    verdict: Verdict, tasks: Mapping[str, Task], gallery: Gallery, folder: Path
) -> dict[str, Any]:
    task = tasks.get(verdict.task)
    figures = {
        words: verdict.figures[name]
        for name, words in FIGURES.items()
        if verdict.figures.get(name) is not None
    }
    return {
        "verdict": verdict,
        "request": task.request if task else "",
        "figures": figures,
        "pairs": _pairs(verdict, gallery, folder),
        "prompts": list(verdict.figures.get("prompts", ()))[:SHOWN],
        "mapped": list((verdict.evidence or {}).get("mapped", ())),
        "reading": _stated(verdict.reading or {}),
    }


def _pairs(
    verdict: Verdict, gallery: Gallery, folder: Path
) -> list[tuple[Thumbnail | None, Thumbnail | None]]:
    """The reference's picture and the program's, of the same caption and seed."""
    theirs = list(verdict.reference_images) or [""] * len(verdict.images)
    both = list(zip(theirs, verdict.images, strict=False))[:SHOWN]
    return [
        (gallery.add(folder / ours) if ours else None, gallery.add(folder / own))
        for ours, own in both
    ]


def _stated(reading: Mapping[str, Any]) -> dict[str, str]:
    """What the program says, as a person reads it."""
    found = {
        name: str(value)
        for name, value in reading.items()
        if value not in (None, "", [], (), {}) and name not in ("methods", "dead", "unread")
    }
    for name in ("methods", "dead"):
        words = [_method(m) for m in reading.get(name, ())]
        found |= {name: "; ".join(words)} if words else {}
    unread = reading.get("unread", ())
    return found | ({"unread": " ".join(unread)} if unread else {})


def _method(method: Mapping[str, Any]) -> str:
    settings = " ".join(f"{k}={v}" for k, v in method.get("settings", {}).items())
    return f"{method['name']} {settings}".strip()
