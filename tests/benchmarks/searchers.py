"""Compare the searchers on a table of measured genomes, in minutes and on one core.

    python -m tests.benchmarks.searchers               the recorded table; a trial sees 24 prompts
    python -m tests.benchmarks.searchers --exact       every trial sees the mean over all prompts
    python -m tests.benchmarks.searchers --synthetic   the made-up table of tests/search/table.py

Each searcher runs 100 evaluations in generations of 7 for each of 30 seeds. What it is told is
noisy; what it is judged by is not: the volume between the true figures of all genomes that it
measured and the corner (speed-up 1, loss 5 %), as a share of the whole table's volume. Writes
docs/searchers.svg and JSON and Markdown beside this file.
"""

from __future__ import annotations

import argparse
import json
import math
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from engine.genome import canonical
from engine.results import Genome, Result
from engine.search import searcher
from engine.search.archive import hypervolume
from engine.search.space import Space, space
from engine.strategy import Value, registry
from tests.benchmarks import searchers_report as report
from tests.search.table import KNOWN, figures

ROOT = Path(__file__).resolve().parents[2]
RECORDED = ROOT / "tests" / "data" / "table.jsonl"
MAX_LOSS = 0.05
PROMPTS = 24
SHOWN = 24
"""Prompts of which a trial sees the mean, as on the second rung of a study: 8 that are timed and 16
that are only scored. They are drawn from the table's with replacement, so that a trial's mean is
as far from the table's as that is from the truth."""
NOISE = 0.03
"""Standard deviation of the made-up table's losses between prompts."""
COUNT = 7
EVALUATIONS = 100
LONG = 400
"""Evaluations of ``random``, which must reach the target for others to be compared with it."""
SYNTHETIC: dict[str, dict[str, list[Value]]] = {
    "sampler": {"name": ["dpmpp_2m", "unipc", "ddim"], "steps": [4, 5, 6, 8, 10, 14, 20, 30]},
    "deepcache": {"interval": [2, 3, 5]},
    "tome": {"ratio": [0.3, 0.5], "max_downsample": [1, 2]},
    "tgate": {"gate": [0.4, 0.6]},
    "guidance": {"start": [0.0], "stop": [0.4, 0.5]},
}
Options = Mapping[str, object]
VARIANTS: Mapping[str, tuple[str, Options]] = {
    "genetic": ("genetic", {}),
    "random": ("random", {}),
    "tpe": ("tpe", {}),
    "nsga2": ("nsga2", {}),
    "paper": ("paper", {}),
    "exhaustive": ("exhaustive", {}),
    "genetic without seeds": ("genetic", {"seeds": False}),
    "genetic without ranks": ("genetic", {"ranked": False}),
    "genetic without mutation": ("genetic", {"mutation": False}),
    "genetic without screen": ("genetic", {"screen": False}),
}


@dataclass(frozen=True)
class Table:
    """Speed-up and the loss of each prompt by the key of each genome that worked."""

    space: Space
    speedups: Mapping[str, float]
    losses: Mapping[str, Sequence[float]]

    @cached_property
    def _true(self) -> Mapping[str, tuple[float, float]]:
        return {key: (up, float(np.mean(self.losses[key]))) for key, up in self.speedups.items()}

    def true(self, key: str) -> tuple[float, float]:
        """Speed-up and mean loss; a genome that failed adds nothing."""
        return self._true.get(key, (0.0, 1.0))

    def measure(self, genome: Genome, trial: int, seed: int, exact: bool) -> Result:
        key = self.space.key(genome)
        if key not in self.speedups:
            return Result(trial, genome, key, stage="run", reason="failed when recorded")
        losses = np.array(self.losses[key])
        if not exact:
            rng = np.random.default_rng((seed, trial))
            losses = rng.choice(losses, SHOWN)
        return Result(trial, genome, key, speedup=self.speedups[key], loss=float(losses.mean()))

    @cached_property
    def volume(self) -> float:
        """The volume that a search of everything would find."""
        return hypervolume(self._true.values(), (1.0, MAX_LOSS))


def recorded(path: Path = RECORDED) -> Table:
    """The table that was measured on a miniature."""
    head, *rows = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
    # A gene that was added since then stood at its default.
    genes = {name: registry()[name].genes for name in head["only"]}
    only = {
        name: {gene: grids.get(gene, [genes[name][gene].default]) for gene in genes[name]}
        for name, grids in head["only"].items()
    }
    here = space(registry(), only=only)
    for row in rows:
        row["key"] = here.key(canonical(row["genome"]))
    worked = [row for row in rows if "losses" in row]
    if missing := set(here.listing) - {row["key"] for row in rows}:
        print(f"{path.name} lacks {len(missing)} of {len(here.listing)} genomes", file=sys.stderr)
    return Table(
        here,
        {row["key"]: row["speedup"] for row in worked},
        {row["key"]: row["losses"] for row in worked},
    )


def synthetic() -> Table:
    """A part of the made-up table, with made-up noise between prompts that averages to zero."""
    here = space({name: registry()[name] for name in KNOWN}, only=SYNTHETIC)
    rng = np.random.default_rng(0)
    speedups, losses = {}, {}
    for key, genome in here.listing.items():
        noise = rng.normal(0, NOISE, PROMPTS)
        speedups[key], loss = figures(genome)
        losses[key] = list(loss + noise - noise.mean())
    return Table(here, speedups, losses)


def trace(
    table: Table, variant: str, seed: int, exact: bool, evaluations: int = EVALUATIONS
) -> list[float]:
    """Share of the table's volume in % after each evaluation."""
    name, options = VARIANTS[variant]
    proposer = searcher(name, table.space, seed, options, max_loss=MAX_LOSS)
    told: list[Result] = []
    while len(told) < evaluations:
        count = min(COUNT, evaluations - len(told))
        asked = proposer.ask(count, told, {r.key for r in told}, len(told))
        if not asked:
            break
        for proposal in asked:
            told.append(table.measure(proposal.genome, len(told), seed, exact))
    truth = [table.true(result.key) for result in told]
    found = [
        100 * hypervolume(truth[: i + 1], (1.0, MAX_LOSS)) / table.volume for i in range(len(truth))
    ]
    return found + [found[-1]] * (evaluations - len(found))


def summary(long: Mapping[str, Any]) -> dict[str, Any]:
    """For each searcher its mean, standard deviation and standard error after each evaluation,
    when its mean reaches 95 %, and how far ``genetic`` is ahead at 28 and 100, paired by seed."""
    found: dict[str, Any] = {}
    reached = {name: _reached(np.mean(curve, axis=0)) for name, curve in long.items()}
    curves = {name: curve[:, :EVALUATIONS] for name, curve in long.items()}
    for name, curve in curves.items():
        seeds = len(curve)
        spread = np.std(curve, axis=0, ddof=1)
        ahead = {}
        for at in report.CHECKPOINTS:
            gaps = curves["genetic"][:, at - 1] - curve[:, at - 1]
            error = float(gaps.std(ddof=1)) / math.sqrt(seeds)
            ahead[str(at)] = {
                "points": float(gaps.mean()),
                "errors": float(gaps.mean()) / error if error > 0 else None,
            }
        ours, theirs = reached[name], reached["random"]
        found[name] = {
            "mean": np.mean(curve, axis=0).round(3).tolist(),
            "deviation": spread.round(3).tolist(),
            "error": (spread / math.sqrt(seeds)).round(3).tolist(),
            "reaches": ours,
            "of_random": ours / theirs if ours and theirs else None,
            "genetic_ahead": ahead,
        }
    return found


def _reached(mean: Any) -> int | None:
    """Evaluations after which the mean curve is first at 95 %."""
    above = np.flatnonzero(mean >= report.TARGET)
    return int(above[0]) + 1 if len(above) else None


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, prog="python -m tests.benchmarks.searchers"
    )
    parser.add_argument("--synthetic", action="store_true", help="the made-up table")
    parser.add_argument("--exact", action="store_true", help="no noise: all prompts in each trial")
    parser.add_argument("--seeds", type=int, default=30, help="runs of each searcher (at least 2)")
    parser.add_argument("--only", nargs="+", choices=VARIANTS, help="print these beside genetic")
    given = parser.parse_args(arguments)
    if not given.synthetic and not RECORDED.exists():
        parser.error(
            "there is no tests/data/table.jsonl: record it with "
            "python -m tests.benchmarks.record_table, or add --synthetic"
        )
    table = synthetic() if given.synthetic else recorded()
    names = list(dict.fromkeys(["genetic", "random", *given.only])) if given.only else VARIANTS
    curves = {}
    for name in names:
        print(f"{name}: {given.seeds} runs", file=sys.stderr, flush=True)
        most = LONG if name == "random" else EVALUATIONS
        runs = [trace(table, name, seed, given.exact, most) for seed in range(max(2, given.seeds))]
        curves[name] = np.array(runs)
    found = summary(curves)
    words = report.words(given.synthetic, given.exact, len(table.speedups), given.seeds)
    print(report.markdown(found, words))
    if not given.only:
        report.write(found, words, ROOT, given.synthetic, given.exact)
    return 0


if __name__ == "__main__":
    sys.exit(main())
