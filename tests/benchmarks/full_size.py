"""What each technique gains on a model of full size with random weights, alone and combined.

    python -m tests.benchmarks.full_size MODEL [OVERRIDES ...]
    python -m tests.benchmarks.full_size flux hw=h100

Random weights take the time and the memory of trained ones, so nothing is downloaded; quality is
not measured, and how often a cache with a threshold hits is not what trained weights would give.
Every technique that applies is timed at its default and its known-good settings against the
model's own program (``baseline=plain``) with the same number of steps; then the fastest setting
of each is added to the others, the most gainful first, as long as that makes the program faster.
Each figure is appended to tests/benchmarks/results/full_size-MODEL.jsonl as soon as it is there:
the same command goes on where it was stopped. A table is printed at the end, and written beside
it as Markdown.
"""

from __future__ import annotations

import dataclasses
import json
import sys
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from engine import session
from engine.errors import TrialError, UsageError
from engine.evaluate import Evaluator
from engine.genome import canonical, describe, key
from engine.results import Genome, Result
from engine.strategy import Strategy, registry
from engine.worker.process import matrix_rate
from tests.benchmarks.coverage import measured_on
from tests.benchmarks.record_table import composed

RESULTS = Path(__file__).with_name("results")
PROMPTS = 4
"""Pairs of each figure, in two rounds."""
GAIN = 1.01
"""Factor by which a combination must be faster to take one more technique."""


@dataclass(frozen=True)
class Book:
    """The figures of one model, in a file of JSON lines."""

    path: Path

    def rows(self) -> dict[str, dict[str, Any]]:
        """What was measured so far, by genome."""
        if not self.path.exists():
            return {}
        rows = map(json.loads, self.path.read_text(encoding="utf-8").splitlines())
        return {row["key"]: row for row in rows if "key" in row}

    def add(self, row: dict[str, Any]) -> None:
        self.path.parent.mkdir(parents=True, exist_ok=True)
        with self.path.open("a", encoding="utf-8") as lines:
            lines.write(json.dumps(row) + "\n")


def settings(strategy: Strategy, steps: int, dtypes: Sequence[str]) -> Iterator[Genome]:
    """Its default and known-good settings at the model's own number of steps and in dtypes that
    are fast here, each once."""
    seen = set()
    for genes in [strategy.defaults(), *(known.genes for known in strategy.known_good)]:
        values = strategy.checked(genes)
        for gene in strategy.genes.values():
            if gene.sets == "steps":
                values[gene.name] = steps
        slow = any(
            g.sets == "dtype" and values[g.name] not in dtypes for g in strategy.genes.values()
        )
        genome = canonical({strategy.name: values})
        if not slow and key(genome) not in seen:
            seen.add(key(genome))
            yield genome


@dataclass
class Bench:
    """Measures genomes of one configuration, each once, against its baseline."""

    evaluator: Evaluator
    book: Book
    rate: float

    def measure(self, genome: Genome) -> dict[str, Any]:
        """The row of a genome, from the file where it is there."""
        known = self.book.rows()
        if key(genome) in known:
            return known[key(genome)]
        row: dict[str, Any] = {"key": key(genome), "genome": genome}
        try:
            text = self.evaluator.arms.program(genome)
            blank = Result(len(known), genome, key(genome), "user")
            folder = self.evaluator.folder / str(len(known))
            folder.mkdir(parents=True, exist_ok=True)
            row |= self._figures(self.evaluator.acceptance(blank, text, folder, 0))
        except (TrialError, UsageError) as error:
            row["reason"] = str(error)
        self.book.add(row)
        print(f"{describe(genome)}: {_words(row)}", flush=True)
        return row

    def _figures(self, result: Result) -> dict[str, Any]:
        if not result.ok:
            return {"reason": f"{result.stage}: {result.reason}"}
        names = (
            "speedup", "speedup_low", "speedup_high", "seconds_per_image", "memory_gib",
            "load_s", "first_call_s", "cost_flops", "forwards",
        )  # fmt: skip
        row = {name: getattr(result, name) for name in names}
        row |= {"seconds_base": result.seconds_base, "memory_base_gib": result.memory_base_gib}
        if result.cost_flops and result.seconds_per_image:
            row["share_of_rate"] = result.cost_flops / result.seconds_per_image / self.rate
        return row

    def alone(self) -> dict[str, dict[str, Any]]:
        """The fastest setting of every technique that applies, by name."""
        reasons = self.evaluator.arms.applicable()
        steps = self.evaluator.config.model.steps
        found: dict[str, dict[str, Any]] = {}
        for name, strategy in registry().items():
            if reasons.get(name) is not None:
                print(f"{name} does not apply: {reasons[name]}")
                continue
            rows = [
                self.measure(genome)
                for genome in settings(strategy, steps, self.evaluator.machine.fast_dtypes)
            ]
            able = [row for row in rows if "speedup" in row]
            if able:
                found[name] = max(able, key=lambda row: float(row["speedup"]))
        return found

    def combined(self, alone: dict[str, dict[str, Any]]) -> dict[str, Any] | None:
        """The fastest combination that adding one technique after the other leads to."""
        able = [row for row in alone.values() if row["speedup_low"] > 1]
        best: dict[str, Any] | None = None
        for row in sorted(able, key=lambda r: -r["speedup"]):
            try:
                genome = canonical({**(best["genome"] if best else {}), **row["genome"]})
            except UsageError as error:
                print(f"left out: {error}")
                continue
            tried = self.measure(genome)
            if tried.get("speedup", 0.0) > GAIN * (best["speedup"] if best else 1.0):
                best = tried
        return best


def _words(row: dict[str, Any]) -> str:
    if "reason" in row:
        return str(row["reason"])
    return f"{row['speedup']:.2f}x ({row['speedup_low']:.2f} to {row['speedup_high']:.2f})"


def table(rows: Sequence[dict[str, Any]], head: dict[str, Any]) -> str:
    """Markdown of all figures, fastest first."""
    machine = head["machine"]
    lines = [
        f"# {head['model']} at full size, random weights",
        "",
        f"{machine['device_name']}, torch {machine['versions']['torch']}, diffusers "
        f"{machine['versions']['diffusers']}, {head['dtype']}; matrix products run at "
        f"{head['rate'] / 1e12:.1f} TFLOP/s. Command: `{head['command']}`. Intervals are 95 %, "
        f"from {PROMPTS} pairs; quality is not measured.",
        "",
        "| techniques | faster | s an image | peak GiB | first call s | share of matrix rate |",
        "|---|---|---|---|---|---|",
    ]
    able = [row for row in rows if "speedup" in row]
    for row in sorted(able, key=lambda r: -r["speedup"]):
        share = row.get("share_of_rate")
        lines.append(
            f"| {describe(row['genome'])} | {_words(row)} | {row['seconds_per_image']:.2f} | "
            f"{row['memory_gib']:.1f} | {row['first_call_s']:.1f} | "
            f"{'unknown' if share is None else f'{100 * share:.0f} %'} |"
        )
    failed = [row for row in rows if "reason" in row]
    lines += ["", "Did not run:", ""] if failed else []
    lines += [f"- {describe(row['genome'])}: {row['reason']}" for row in failed]
    return "\n".join(lines) + "\n"


def run(model: str, overrides: Sequence[str], results: Path = RESULTS) -> str:
    """All figures of a model; the table."""
    config = composed(
        f"model={model}", "model.weights=random", "baseline=plain",
        f"measure.acceptance_prompts={PROMPTS}", "search.timeout_s=600", *overrides,
    )  # fmt: skip
    machine = session.machine_of(config)
    book = Book(results / f"full_size-{model}.jsonl")
    with (
        tempfile.TemporaryDirectory() as folder,
        Evaluator(config, machine, Path(folder)) as evaluator,
    ):
        dtype = evaluator.arms.subject.dtype
        head = {
            "model": model,
            "machine": json.loads(json.dumps(measured_on(evaluator), default=dict)),
            "dtype": dtype,
            "rate": matrix_rate(machine.device, (dtype,)),
            "config": dataclasses.asdict(config.model),
            "command": " ".join(["python -m tests.benchmarks.full_size", model, *overrides]),
        }
        if not book.path.exists():
            book.add(head)
        bench = Bench(evaluator, book, head["rate"])
        bench.measure({})
        best = bench.combined(bench.alone())
        rows = list(book.rows().values())
    text = table(rows, head)
    if best is not None:
        text += f"\nThe best combination found: {describe(best['genome'])}: {_words(best)}.\n"
    book.path.with_suffix(".md").write_text(text, encoding="utf-8")
    return text


def main(arguments: Sequence[str]) -> int:
    if not arguments or "=" in arguments[0]:
        print(__doc__, file=sys.stderr)
        return 2
    print(run(arguments[0], arguments[1:]))
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
