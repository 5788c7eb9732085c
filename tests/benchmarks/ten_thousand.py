"""How a study scales: seconds to ask, tell, resume and report with ten thousand trials.

    python -m tests.benchmarks.ten_thousand --trials 10000

The evaluator is made up (figures from ``tests.search.table``, so no model runs); the ledger, the
genetic searcher in generations of 50, the files and the report are the real ones. The figures go
to the console and to tests/benchmarks/results/ten_thousand.json, with the machine. They include
the disk; a machine that does other things at the same time gives larger ones.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from engine import hardware
from engine.goal import within_goal
from engine.report import write_study_report
from engine.results import Result, Sample, row, save, write_json
from engine.search import Proposal, archive, searcher
from engine.search.ledger import Ledger, Results
from engine.search.space import Space
from tests.report.small_study import describe_study
from tests.search import table

OUTPUT = Path(__file__).parent / "results" / "ten_thousand.json"
POPULATION = 50
PROMPTS = 8
"""Prompts of a search's rung; an accepted trial has 36."""
SAID = 1000
"""Trials between two lines on the console."""
ACCEPTED = 8
FAILING = 0.03
"""Share of the trials that fail."""
GOAL = {"max_loss": 0.05, "accuracy_drop": 0.05}
BASE_S = 0.31
PROFILE = "cpu-benchmark"


@dataclass
class Clock:
    """Seconds of each call, by what was done."""

    spent: dict[str, list[float]] = field(default_factory=dict)

    @contextmanager
    def timing(self, what: str) -> Iterator[None]:
        started = time.perf_counter()
        yield
        self.spent.setdefault(what, []).append(time.perf_counter() - started)

    def figures(self) -> dict[str, dict[str, float]]:
        """Calls, and their median, last and total seconds."""
        return {
            what: {
                "calls": len(seconds),
                "median": statistics.median(seconds),
                "last": seconds[-1],
                "total": sum(seconds),
            }
            for what, seconds in self.spent.items()
        }


@dataclass(frozen=True)
class Study:
    """A study in a folder with an evaluator that computes its figures."""

    folder: Path
    space: Space
    clock: Clock
    say: Callable[[str], None]

    def open(self) -> Ledger:
        url = f"sqlite:///{self.folder / 'ledger.db'}"
        return Ledger.open(url, "benchmark", {"space": self.space.describe()}, PROFILE)

    def search(self, trials: int) -> None:
        """Generations as engine.study runs them: read, ask, claim, measure, tell."""
        ask = searcher("genetic", self.space, 0, {}, max_loss=GOAL["max_loss"])
        told = Results(self.folder)
        with self.open() as ledger:
            for first in range(0, trials, POPULATION):
                if first % SAID == 0:
                    self.say(f"{first} of {trials} trials")
                with self.clock.timing("read"):
                    earlier = told.read()
                taken = {r.key for r in earlier}
                with self.clock.timing("ask"):
                    wanted = min(POPULATION, trials - first)
                    proposals = ask.ask(wanted, earlier, taken, first)
                for trial, proposal in enumerate(proposals, first):
                    with self.clock.timing("claim"):
                        ledger.claim(trial, self.space.key(proposal.genome), proposal)
                    result = evaluate(self.space, proposal, trial)
                    save(result, self.folder / str(trial) / "result.json")
                    with self.clock.timing("tell"):
                        ledger.told(result)
            self._accept(ledger, told)

    def _accept(self, ledger: Ledger, told: Results) -> None:
        """Measure points of the front again: their files are replaced, the index follows."""
        for candidate in archive.front(told.read())[:ACCEPTED]:
            home = self.folder / str(candidate.trial)
            save(candidate, home / "search.json")
            samples = made_up(candidate.trial, candidate.speedup or 1.0, 36)
            accepted = dataclasses.replace(candidate, rung=2, samples=samples)
            save(accepted, home / "result.json")
            with self.clock.timing("rebuild after an acceptance"):
                ledger.rebuild(told)

    def resume(self, what: str) -> int:
        """What a new process does before it searches on; the number of settled claims."""
        with self.clock.timing(what):
            ledger = self.open()
            ledger.rebuild(Results(self.folder))
            settled = len(ledger.taken()) - len(ledger.open_claims())
        ledger.close()
        return settled

    def report(self) -> Path:
        """The report on everything, from the files that a study leaves."""
        told = Results(self.folder).read()
        accepted = [r for r in told if r.rung == 2]
        counts = {"evaluations": len(told), "failed": sum(not r.ok for r in told)}
        write_json(self.folder / "study.json", describe_study() | {"goal": GOAL} | counts)
        rows = [row(r, meets_goal=within_goal(r, GOAL)) for r in archive.front(accepted)]
        write_json(self.folder / "front.json", {"study": {"study": "benchmark"}, "front": rows})
        with self.clock.timing("report"):
            return write_study_report(self.folder)


def evaluate(space: Space, proposal: Proposal, trial: int) -> Result:
    """A result as a real trial leaves it, with the figures of a made-up table."""
    plain = table.measure(space, proposal, trial)
    if np.random.default_rng((1, trial)).random() < FAILING:
        return dataclasses.replace(
            plain, speedup=None, loss=None, stage="run", reason="RuntimeError: made up"
        )
    speedup, loss = plain.speedup or 1.0, plain.loss or 0.0
    return dataclasses.replace(
        plain,
        rung=1,
        speedup_low=speedup * 0.97,
        speedup_high=speedup * 1.03,
        speedup_paper=speedup,
        loss_low=loss - 0.01,
        loss_high=loss + 0.01,
        memory_gib=0.6,
        memory_base_gib=0.6,
        cost_flops=4.1e10 / speedup,
        cost_base_flops=4.1e10,
        seconds_per_image=BASE_S / speedup,
        seconds_base=BASE_S,
        wall_s=12.0,
        busy_s=11.0,
        program=f"{trial}/accelerated.py",
        samples=made_up(trial, speedup, PROMPTS),
    )


def made_up(trial: int, speedup: float, prompts: int) -> tuple[Sample, ...]:
    """Both arms of each prompt; the pictures that they name are not there."""
    rng = np.random.default_rng((2, trial))
    return tuple(
        Sample(
            arm=arm,
            round=index // 2,
            position=position,
            prompt=f"a small green triangle to the left of a large red circle, number {index}",
            seed=1000 + index,
            seconds=float((BASE_S if arm == "base" else BASE_S / speedup) * rng.normal(1, 0.02)),
            score=float(rng.normal(31, 0.5)),
            correct=bool(rng.random() < 0.95),
            image=None,
            height=64,
            width=64,
            ssim=None if arm == "base" else float(rng.uniform(0.8, 1.0)),
        )
        for index in range(prompts)
        for position, arm in enumerate(("base", "candidate"))
    )


def run(trials: int, folder: Path, say: Callable[[str], None] = print) -> dict[str, Any]:
    """All parts in order, as a record. The folder must be empty."""
    import psutil

    study = Study(folder, table.real_space(), Clock(), say)
    study.search(trials)
    memory = psutil.Process().memory_info().rss / 2**30
    settled = [study.resume("resume")]
    (folder / "ledger.db").unlink()
    settled.append(study.resume("resume without the database"))
    report = study.report()
    files = list(folder.glob("*/result.json"))
    return {
        "trials": len(files),
        "settled": settled,
        "seconds": study.clock.figures(),
        "memory_gib": memory,
        "mib": {
            "results": sum(path.stat().st_size for path in files) / 2**20,
            "ledger": (folder / "ledger.db").stat().st_size / 2**20,
            "report": report.stat().st_size / 2**20,
        },
    }


def words(record: dict[str, Any]) -> str:
    """The record for the console."""
    lines = [f"{record['trials']} trials; seconds:", _line("", ["median", "last", "total"])]
    for what, seconds in record["seconds"].items():
        lines.append(_line(what, [f"{seconds[n]:.4f}" for n in ("median", "last", "total")]))
    sizes = ", ".join(f"{what} {size:.1f}" for what, size in record["mib"].items())
    lines.append(f"MiB: {sizes}; memory of the process: {record['memory_gib']:.2f} GiB")
    return "\n".join(lines)


def _line(what: str, cells: Sequence[str]) -> str:
    return f"{what:30}" + "".join(f"{cell:>12}" for cell in cells)


def main(arguments: Sequence[str] | None = None, say: Callable[[str], None] = print) -> None:
    parser = argparse.ArgumentParser(prog="python -m tests.benchmarks.ten_thousand")
    parser.add_argument("--trials", type=int, default=10_000)
    parser.add_argument("--output", type=Path, default=OUTPUT, help="file for the record")
    chosen = parser.parse_args(arguments)
    if chosen.trials < 1:
        parser.error("--trials: at least 1")
    machine = dataclasses.asdict(hardware.inspect("cpu"))
    with tempfile.TemporaryDirectory() as folder:
        record = run(chosen.trials, Path(folder), say)
    say(words(record))
    write_json(chosen.output, record | {"machine": json.loads(json.dumps(machine, default=dict))})
    say(f"written to {chosen.output}")


if __name__ == "__main__":
    main()
