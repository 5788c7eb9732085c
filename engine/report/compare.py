"""Several studies side by side: on the console, as a page, and as CSV and LaTeX for a paper."""

from __future__ import annotations

import csv
import io
from collections.abc import Sequence
from html import escape
from pathlib import Path
from typing import TYPE_CHECKING, Any

from engine.measure.statistics import Interval, combine
from engine.report import text
from engine.report.drawing import Frame, Size, both, markup, svg, ticks
from engine.report.material import Point
from engine.report.page import environment, write_page
from engine.report.studies import Study

if TYPE_CHECKING:
    from rich.table import Table

COLOURS = 6
"""Colours of the page's plot (classes ``study-0`` on); further studies repeat them."""
FIGURES = (
    "speedup", "speedup_low", "speedup_high", "speedup_plain", "speedup_plain_low",
    "speedup_plain_high", "loss", "loss_low", "loss_high", "loss_worst", "accuracy",
    "accuracy_base", "seconds_per_image", "seconds_p95", "images_per_second", "first_call_s",
    "break_even", "recompilations", "memory_gib", "cost_flops",
)  # fmt: skip
"""Figures of a point in compare.csv, under the names of front.json."""


def write(studies: Sequence[Study], out: Path) -> list[Path]:
    """Write compare.html, compare.csv and compare.tex into a folder."""
    view = _view(studies)
    page = environment().get_template("compare.html.jinja").render(view)
    return [
        write_page(out / "compare.html", page),
        write_page(out / "compare.csv", as_csv(studies)),
        write_page(out / "compare.tex", as_latex(studies)),
    ]


def against(first: Point | None, other: Point | None) -> Interval | None:
    """How many times as fast the other point is, with its interval: the ratio of two independent
    speed-ups over the same baseline."""
    ours, theirs = _interval(first), _interval(other)
    if ours is None or theirs is None:
        return None
    return combine(theirs, Interval(1 / ours.high, 1 / ours.median, 1 / ours.low))


def _interval(point: Point | None) -> Interval | None:
    if point is None or not (point.speedup and point.speedup_low and point.speedup_high):
        return None
    return Interval(point.speedup_low, point.speedup, point.speedup_high)


def ratio_words(studies: Sequence[Study], study: Study) -> str:
    """The best point's speed over the first study's best, or a dash where they do not compare."""
    found = against(studies[0].best, study.best)
    if study is studies[0] or not study.comparable or found is None:
        return text.NONE
    return f"{text.ratio(found.median)} ({text.ratio_interval(found.low, found.high)})"


def table(studies: Sequence[Study]) -> Table:
    """Each study's recommended point, for a console of 80 columns or more."""
    from rich.table import Table
    from rich.text import Text

    shown = Table(pad_edge=False)
    shown.add_column("study", overflow="fold")
    shown.add_column("trials", justify="right", no_wrap=True)
    shown.add_column("speed-up", justify="right", no_wrap=True)
    shown.add_column("loss", justify="right", no_wrap=True)
    shown.add_column("against the first", justify="right", overflow="fold")
    for study in studies:
        best = study.best
        speed = "nothing met the goal"
        if best is not None:
            interval = text.ratio_interval(best.speedup_low, best.speedup_high)
            speed = f"{text.ratio(best.speedup)} ({interval})"
        interval = text.percent_interval(best.loss_low, best.loss_high) if best else ""
        shown.add_row(
            Text(study.label + ("" if study.comparable else " *")),
            text.value(study.material.study.get("evaluations")),
            speed,
            f"{text.percent(best.loss)} ({interval[:-2]})" if best else text.NONE,
            ratio_words(studies, study) if study.comparable else "not comparable",
        )
    return shown


def remarks(studies: Sequence[Study]) -> list[str]:
    """Whose quality is not measured, and why which study does not compare with the first, a line
    each."""
    first = studies[0].label
    given = [(study.label, study.material.study) for study in studies]
    silent = [f"{n}: {text.quality_unmeasured(s)}" for n, s in given if s.get("unmeasured")]
    return silent + [
        f"{study.label} does not compare with {first}: {reason}"
        for study in studies
        for reason in study.reasons
    ]


def as_csv(studies: Sequence[Study]) -> str:
    """A row for each point of each front; what was not measured is empty."""
    stream = io.StringIO()
    rows = csv.writer(stream, lineterminator="\n")
    rows.writerow(
        ["study", "comparable", "trial", "recommended", "meets_goal", "techniques", *FIGURES]
    )
    for study in studies:
        for point in study.points:
            figures = [getattr(point, name) for name in FIGURES]
            rows.writerow(
                [
                    _cell(study.label),
                    _yes(study.comparable),
                    point.trial,
                    _yes(point is study.best),
                    _yes(point.meets_goal),
                    _cell(text.describe(point.genome)),
                    *("" if f is None else f for f in figures),
                ]
            )
    return stream.getvalue()


def _yes(word: bool) -> str:
    return "yes" if word else "no"


def _cell(words: str) -> str:
    # A spreadsheet takes a cell that begins with one of these for a formula.
    return f"'{words}" if words[:1] in ("=", "+", "-", "@", "\t") else words


def as_latex(studies: Sequence[Study]) -> str:
    """A booktabs table of each study's recommended point; it needs ``\\usepackage{booktabs}``."""
    lines = [
        r"% needs \usepackage{booktabs}",
        r"\begin{tabular}{lrrrr}",
        r"\toprule",
        rf"Study & Trials & Speed-up & {_loss_name(studies).capitalize()} & Against the first \\",
        r"\midrule",
    ]
    for study in studies:
        best = study.best
        mark = "" if study.comparable else r"$^{\ast}$"
        cells = [tex(study.label) + mark, tex(text.value(study.material.study.get("evaluations")))]
        if best is None:
            cells += [r"\multicolumn{3}{l}{nothing met the goal}"]
        else:
            interval = text.ratio_interval(best.speedup_low, best.speedup_high)
            losses = text.percent_interval(best.loss_low, best.loss_high)
            cells += [
                _times(f"{text.ratio(best.speedup)} ({interval})"),
                tex(f"{text.percent(best.loss)} ({losses})"),
                _times(ratio_words(studies, study)) if study.comparable else "not comparable",
            ]
        lines.append(" & ".join(cells) + r" \\")
    lines += [r"\bottomrule", r"\end{tabular}"]
    lines += [rf"% $^{{\ast}}$ {words}" for words in remarks(studies)]
    return "\n".join(lines) + "\n"


def _times(words: str) -> str:
    """A ratio with the sign of multiplication in place of the letter."""
    return tex(words).replace("x (", r"$\times$ (")


def tex(words: str) -> str:
    """Text with every character escaped that LaTeX would take for a command."""
    special = {
        "\\": r"\textbackslash{}",
        "~": r"\textasciitilde{}",
        "^": r"\textasciicircum{}",
        text.NONE: "--",
    } | {c: f"\\{c}" for c in "&%$#_{}"}
    return "".join(special.get(c, c) for c in words.replace("\n", " "))


def _loss_name(studies: Sequence[Study]) -> str:
    return text.loss_name(studies[0].material.goal)


def _view(studies: Sequence[Study]) -> dict[str, Any]:
    first = studies[0].material.study
    return {
        "title": "Comparison: " + ", ".join(s.label for s in studies),
        "plot": markup(both(lambda size: overlay(studies, size))),
        "remarks": remarks(studies),
        "loss_name": _loss_name(studies),
        "baseline": (first.get("baseline") or {}).get("label", "baseline"),
        "miniature": any(s.material.study.get("miniature") for s in studies),
        "void": [s.label for s in studies if _void(s)],
        "rows": [_row(studies, i) for i in range(len(studies))],
        "plain": any(p.speedup_plain is not None for s in studies for p in s.points),
        "accuracy": any(p.accuracy is not None for s in studies for p in s.points),
    }


def _void(study: Study) -> bool:
    given = study.material.study
    timed = given.get("objective", "time") == "time"
    return timed and (given.get("control") or {}).get("ok") is False


def _row(studies: Sequence[Study], index: int) -> dict[str, Any]:
    study = studies[index]
    given = study.material.study
    return {
        "study": study,
        "colour": index % COLOURS,
        "against": ratio_words(studies, study),
        "evaluations": text.value(given.get("evaluations")),
        "failed": text.value(given.get("failed")),
        "wall": text.duration(given.get("wall_s")),
        "goal": text.goal_words(study.material.goal),
        "points": [
            {
                "point": p,
                "best": p is study.best,
                "speedup": text.ratio_interval(p.speedup_low, p.speedup_high),
                "loss": text.percent_interval(p.loss_low, p.loss_high),
            }
            for p in study.points
        ],
    }


def overlay(studies: Sequence[Study], size: Size) -> str:
    """All fronts in one plot; a study that does not compare with the first is dashed."""
    drawn = [[p for p in s.points if p.speedup is not None and p.loss is not None] for s in studies]
    every = [p for points in drawn for p in points]
    speeds = [1.0] + [
        s for p in every for s in (p.speedup, p.speedup_low, p.speedup_high) if s is not None
    ]
    losses = [0.0] + [
        100 * x for p in every for x in (p.loss, p.loss_low, p.loss_high) if x is not None
    ]
    wide = size[0] > 500
    xs = ticks(min(0.8, *speeds), max(1.2, *speeds), 9 if wide else 5)
    frame = Frame(size, xs, ticks(min(losses), max(1.0, *losses), 7 if wide else 6))
    timed = studies[0].material.study.get("objective", "time") == "time"
    name = _loss_name(studies)
    body = [frame.axes("speed-up" if timed else "saving in operations", f"{name}, %")]
    for index, (study, points) in enumerate(zip(studies, drawn, strict=True)):
        kind = f"study-{index % COLOURS}" + ("" if study.comparable else " apart")
        marks = "".join(_mark(frame, p, study) for p in points)
        line = " ".join(f"{frame.x(p.speedup or 0)},{frame.y(100 * (p.loss or 0))}" for p in points)
        body.append(f'<g class="{kind}"><polyline class="line" points="{line}"/>{marks}</g>')
    x, y = frame.x(1), frame.y(0)
    body.append(
        f'<rect class="baseline" x="{x - 5}" y="{y - 5}" width="10" height="10" '
        f'transform="rotate(45 {x} {y})"><title>baseline</title></rect>'
    )
    return svg(size, f"{name.capitalize()} against speed-up of every study's front", "".join(body))


def _mark(frame: Frame, p: Point, study: Study) -> str:
    x, y = frame.x(p.speedup or 0.0), frame.y(100 * (p.loss or 0.0))
    path = ""
    if p.speedup_low is not None and p.speedup_high is not None:
        a, b = frame.x(p.speedup_low), frame.x(p.speedup_high)
        path += f"M{a} {y}H{b}M{a} {y - 4}v8M{b} {y - 4}v8"
    if p.loss_low is not None and p.loss_high is not None:
        a, b = frame.y(100 * p.loss_low), frame.y(100 * p.loss_high)
        path += f"M{x} {a}V{b}M{x - 4} {a}h8M{x - 4} {b}h8"
    words = f"{study.label} #{p.trial}: {text.describe(p.genome)}; {text.ratio(p.speedup)}"
    kind = "mark best" if p is study.best else "mark"
    return (
        f'<path class="spread" d="{path}"/><circle class="{kind}" cx="{x}" cy="{y}" '
        f'r="{6 if p is study.best else 4.5}">'
        f"<title>{escape(words)}, loss {text.percent(p.loss)}</title></circle>"
    )
