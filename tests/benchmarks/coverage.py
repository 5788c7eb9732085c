"""Do the intervals cover what they should? Repeats measurements whose truth is known.

    python -m tests.benchmarks.coverage control [REPEATS] [OVERRIDES ...]
    python -m tests.benchmarks.coverage front STUDY_FOLDER [REPEATS [TRIALS ...]]

``control`` measures the baseline against a second copy of itself, each time with fresh workers and
seeds: the interval should cover 1. ``front`` measures every point of a study's front again (or only
the trials named), each time with fresh workers and seeds: the interval should cover the mean over
all repeats, which is the best that is known of the truth. Ten repeats by default. Results go to
tests/benchmarks/results/coverage_control.json and coverage_front.json. Run it on a quiet machine.
"""

from __future__ import annotations

import dataclasses
import json
import math
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from engine import references, session
from engine.config import from_mapping
from engine.evaluate import Evaluator
from engine.genome import describe, key
from engine.results import Result, write_json
from engine.schema import Config
from tests.benchmarks.record_table import composed

RESULTS = Path(__file__).with_name("results")


def measured_on(evaluator: Evaluator) -> dict[str, Any]:
    machine = dataclasses.asdict(evaluator.machine)
    return machine | {"versions": dict(evaluator.machine.versions)}


def control(repeats: int, overrides: Sequence[str]) -> None:
    """So many A/A studies."""
    config = composed(*overrides)
    rows = []
    machine: dict[str, Any] = {}
    for repeat in range(repeats):
        with (
            tempfile.TemporaryDirectory() as folder,
            Evaluator(config, session.machine_of(config), Path(folder)) as evaluator,
        ):
            machine = measured_on(evaluator)
            found = references.control(evaluator, repeat)
        row = {name: found[name] for name in ("low", "median", "high", "ok")}
        rows.append(row | {"covers": found["low"] <= 1 <= found["high"]})
        print(f"{repeat + 1}/{repeats}: {_span(rows[-1])}", flush=True)
    covered = sum(row["covers"] for row in rows)
    print(f"{covered} of {repeats} intervals cover 1; {sum(r['ok'] for r in rows)} are usable")
    write_json(
        RESULTS / "coverage_control.json",
        {"machine": machine, "overrides": list(overrides), "covered": covered, "rows": rows},
    )


def front(folder: Path, repeats: int, trials: Sequence[int] = ()) -> None:
    """So many acceptance measurements of every point of a front, or of the trials named."""
    rows = json.loads((folder / "front.json").read_text(encoding="utf-8"))["front"]
    rows = [row for row in rows if not trials or row["trial"] in trials]
    config = of_study(folder)
    found: dict[int, list[Result]] = {row["trial"]: [] for row in rows}
    machine: dict[str, Any] = {}
    for repeat in range(1, repeats + 1):
        with (
            tempfile.TemporaryDirectory() as scratch,
            Evaluator(config, session.machine_of(config), Path(scratch)) as evaluator,
        ):
            machine = measured_on(evaluator)
            for row in rows:
                text = (folder / row["program"]).read_text(encoding="utf-8")
                blank = Result(row["trial"], row["genome"], key(row["genome"]), "user")
                result = evaluator.acceptance(blank, text, Path(scratch), repeat)
                found[row["trial"]].append(result)
                print(f"{repeat}/{repeats} trial {row['trial']}: {result.speedup}", flush=True)
    points = [_point(row, found[row["trial"]]) for row in rows]
    for point in points:
        print(
            f"trial {point['trial']}: {point['speedup']:.2f}x, {point['covered']} of {repeats} "
            f"speed-ups and {point['losses_covered']} losses covered"
        )
    write_json(RESULTS / "coverage_front.json", {"machine": machine, "points": points})


def of_study(folder: Path) -> Config:
    """The configuration that a study was made with."""
    import yaml

    study = json.loads((folder / "study.json").read_text(encoding="utf-8"))
    data = yaml.safe_load(study["config"])
    return from_mapping(data | {"study": None, "trial": None})


def _point(row: dict[str, Any], results: Sequence[Result]) -> dict[str, Any]:
    """How many of a point's intervals cover the mean of its repeats."""
    speedups = [r.speedup or 0.0 for r in results]
    losses = [r.loss or 0.0 for r in results]
    mean = math.exp(sum(map(math.log, speedups)) / len(speedups))
    loss = sum(losses) / len(losses)
    return {
        "trial": row["trial"],
        "genome": describe(row["genome"]),
        "speedup": mean,
        "loss": loss,
        "covered": sum((r.speedup_low or 0) <= mean <= (r.speedup_high or 0) for r in results),
        "losses_covered": sum((r.loss_low or 0) <= loss <= (r.loss_high or 0) for r in results),
        "speedups": [[r.speedup_low, r.speedup, r.speedup_high] for r in results],
        "losses": [[r.loss_low, r.loss, r.loss_high] for r in results],
    }


def _span(row: dict[str, Any]) -> str:
    return f"{row['median']:.3f} ({row['low']:.3f} to {row['high']:.3f})"


def main(arguments: Sequence[str]) -> int:
    match arguments:
        case ["control", *rest]:
            numbers = [text for text in rest if text.isdigit()]
            overrides = [text for text in rest if not text.isdigit()]
            control(int(numbers[0]) if numbers else 10, overrides)
        case ["front", folder, *numbers] if all(text.isdigit() for text in numbers):
            repeats, *trials = map(int, numbers or ["10"])
            front(Path(folder), repeats, trials)
        case _:
            print(__doc__, file=sys.stderr)
            return 2
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
