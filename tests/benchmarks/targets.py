"""How often a search of 28 evaluations reaches a target, told what it is and not told.

    python -m tests.benchmarks.targets

On the recorded table (``tests.benchmarks.record_table``), with the genetic search, in generations
of 7; a trial sees 24 prompts. A target is a share of the best speed-up in the table within 5 %
loss, and it is reached when a measured genome keeps both by its true figures. Writes JSON and
Markdown to ``results/``; about a minute on one core, and nothing is timed.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from engine.measure.statistics import wilson
from engine.results import Result
from engine.search import searcher
from tests.benchmarks.searchers import MAX_LOSS, Table, recorded

RESULTS = Path(__file__).parent / "results"
SHARES = (0.85, 0.93, 0.97)
"""0.93 of what a search of everything finds is DiffBench's medium (paper.md)."""
GENERATIONS, COUNT = 4, 7


def reaches(table: Table, target: float, seed: int, told_it: bool) -> bool:
    """Whether one search reaches the target."""
    speedup = target if told_it else None
    own = searcher("genetic", table.space, seed, max_loss=MAX_LOSS, speedup=speedup)
    told: list[Result] = []
    for _ in range(GENERATIONS):
        for proposal in own.ask(COUNT, told, {r.key for r in told}, len(told)):
            told.append(table.measure(proposal.genome, len(told), seed, exact=False))
    true = [table.true(result.key) for result in told]
    return any(speed >= target and loss <= MAX_LOSS for speed, loss in true)


def found(table: Table, seeds: int, shares: Sequence[float] = SHARES) -> list[dict[str, Any]]:
    """One row a target: searches that reached it."""
    true = [table.true(key) for key in table.speedups]
    best = max(speed for speed, loss in true if loss <= MAX_LOSS)
    return [
        {"share": share, "target": share * best, "seeds": seeds}
        | {
            name: sum(reaches(table, share * best, seed, told_it) for seed in range(seeds))
            for name, told_it in (("untold", False), ("told", True))
        }
        for share in shares
    ]


def markdown(rows: Sequence[dict[str, Any]]) -> str:
    lines = [
        "`python -m tests.benchmarks.targets`: searches of 28 evaluations that reach a target "
        "(95 % intervals).",
        "",
        "| target, of the best | not told it | told it |",
        "| --- | ---: | ---: |",
    ]
    for row in rows:
        cells = [f"{100 * row['share']:.0f} %"]
        for name in ("untold", "told"):
            low, high = wilson(row[name], row["seeds"])
            cells.append(f"{row[name]} of {row['seeds']} ({100 * low:.0f} to {100 * high:.0f} %)")
        lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines) + "\n"


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, prog="python -m tests.benchmarks.targets")
    parser.add_argument("--seeds", type=int, default=300, help="searches of each kind")
    given = parser.parse_args(arguments)
    rows = found(recorded(), max(1, given.seeds))
    (RESULTS / "targets.json").write_text(json.dumps(rows, indent=1) + "\n", encoding="utf-8")
    (RESULTS / "targets.md").write_text(markdown(rows), encoding="utf-8")
    print(markdown(rows), end="")
    return 0


if __name__ == "__main__":
    sys.exit(main())
