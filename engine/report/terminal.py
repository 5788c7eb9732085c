"""The result on the console: one sentence and one table of at most 80 columns."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from engine.report import text
from engine.report.material import Point, points, recommended, starts

if TYPE_CHECKING:
    from rich.table import Table


def summary_line(study: Mapping[str, Any], front: Mapping[str, Any]) -> str:
    """The result in one plain sentence, from the contents of study.json and front.json.

    It says so when no point keeps the goal, when nothing is faster, when the figures are those of
    a miniature and when the A/A control voids the timings.
    """
    found = points(front)
    best = recommended(found)
    baseline = (study.get("baseline") or {}).get("label", "the baseline")
    if best is not None:
        sentence = _gain(best, baseline, study)
    elif found:
        limits = text.goal_words(study.get("goal") or {})
        sentence = f"Nothing met the goal ({limits}); the fastest point found is "
        sentence += _gain(found[0], baseline, study)
    else:
        tried = study.get("evaluations", 0)
        failed = study.get("failed", 0)
        sentence = f"No result: {tried} composition{'' if tried == 1 else 's'} tried, "
        sentence += f"{failed} failed, none measured to the end"
    if study.get("miniature"):
        name = (study.get("model") or {}).get("name", "miniature")
        sentence += f", on the miniature {name}"
    if objective_is_time(study) and (study.get("control") or {}).get("ok") is False:
        sentence += "; the timings are void (see the A/A control)"
    return sentence + "."


def objective_is_time(study: Mapping[str, Any]) -> bool:
    """Whether speed-ups are ratios of time; else they are ratios of counted operations."""
    return bool(study.get("objective", "time") == "time")


def _gain(point: Point, baseline: str, study: Mapping[str, Any]) -> str:
    timed = objective_is_time(study)
    unit = "faster" if timed else "fewer operations"
    speedup = point.speedup or 0.0
    low, high = point.speedup_low, point.speedup_high
    if speedup < 1:
        unit = "the speed" if timed else "the saving in operations"
    words = text.ratio(point.speedup)
    if low is not None and high is not None:
        words += f" ({text.ratio_interval(low, high)})"
    words += f" {unit} {'of' if speedup < 1 else 'than'} {baseline}"
    if point.loss is None:
        words += f", {text.quality_unmeasured(study)}"
    else:
        words += f", at {text.percent(point.loss)} {text.loss_name(study.get('goal') or {})}"
    if speedup < 1:
        words += ", so nothing is gained"
    elif low is not None and low <= 1:
        words += ", so a gain is not shown"
    return words


def front_table(front: Mapping[str, Any]) -> Table:
    """The front, fastest first, for a console of 80 columns or more."""
    from rich.table import Table
    from rich.text import Text

    table = Table(pad_edge=False, expand=False)
    table.add_column("trial", justify="right", no_wrap=True)
    table.add_column("speed-up", justify="right", no_wrap=True)
    table.add_column("loss", justify="right", no_wrap=True)
    table.add_column("s/image", justify="right", no_wrap=True)
    found = points(front)
    starting = starts(found)
    if starting:
        table.add_column("1st call,\npays after", justify="right", no_wrap=True)
    table.add_column("goal", no_wrap=True)
    table.add_column("techniques", overflow="fold", ratio=1)
    # Two lines a figure leave the techniques as much room as without these columns.
    between = "\n" if starting else " "
    for point in found:
        interval = text.ratio_interval(point.speedup_low, point.speedup_high)
        table.add_row(
            str(point.trial),
            f"{text.ratio(point.speedup)}{between}({interval})",
            text.percent(point.loss),
            text.number(point.seconds_per_image),
            *([_start(point)] if starting else []),
            "met" if point.meets_goal else "missed",
            # Text, not markup: a value with square brackets must print as it is.
            Text(text.describe(point.genome)),
        )
    return table


def _start(point: Point) -> str:
    """Seconds of the first call, and after how many images a longer start has paid."""
    first = "" if point.first_call_s is None else f"{text.number(point.first_call_s)} s"
    return f"{first or text.NONE}\n{text.images(point.break_even, point.speedup)}"
