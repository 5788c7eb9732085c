"""Record a reduced space whole, so that searchers can be compared on it in seconds.

    python -m tests.benchmarks.record_table            writes or completes tests/data/table.jsonl

Every genome's program draws the same 24 captions from the same seeds in one batch; the table keeps
its counted cost, the CLIP score's loss of each caption and the checker's accuracy. Nothing is
timed, so the table can be recorded on a busy machine and comes out the same. A line is appended
for each genome: the same command goes on where it was stopped.
"""

from __future__ import annotations

import json
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from engine import session
from engine.config import CONF, from_mapping
from engine.errors import TrialError
from engine.evaluate import Evaluator
from engine.genome import canonical, describe
from engine.requests import Request, Shape
from engine.results import Genome
from engine.schema import Config
from engine.search.space import Space, space
from engine.strategy import Value, registry

TABLE = Path(__file__).resolve().parents[1] / "data" / "table.jsonl"
PROMPTS = 24
ONLY: dict[str, dict[str, list[Value]]] = {
    "sampler": {
        "name": ["dpmpp_2m", "unipc", "ddim"],
        "steps": [4, 6, 8, 10, 14, 20],
        "spacing": ["trailing"],
    },
    "tgate": {"gate": [0.4, 0.6]},
    "tome": {"ratio": [0.5], "max_downsample": [1]},
    "deepcache": {"interval": [2, 3, 5], "branch": [0]},
    "guidance": {"start": [0.0], "stop": [0.5]},
}
"""720 settings, of which those with a guidance stop behind T-GATE's gate are illegal."""


def reduced() -> Space:
    """The table's space."""
    return space(registry(), only=ONLY)


def composed(*overrides: str) -> Config:
    """conf/ with overrides."""
    import hydra
    from omegaconf import OmegaConf

    with hydra.initialize_config_dir(str(CONF), version_base="1.3"):
        cfg = hydra.compose("config", overrides=list(overrides))
    data: Any = OmegaConf.to_container(cfg, resolve=True)
    return from_mapping(data)


def recorded(path: Path = TABLE) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """The table's head and its rows."""
    head, *rows = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
    return head, rows


class Recorder:
    """Draws the captions with programs and scores them against the baseline's pictures."""

    def __init__(self, evaluator: Evaluator) -> None:
        self.evaluator = evaluator
        model = evaluator.config.model
        cases = tuple(evaluator.asked.cases(PROMPTS, "search"))
        self.request = Request(cases, 1000, Shape(model.height, model.width, batch=PROMPTS))
        self.cost, self.scores, self.accuracy = self.measured(evaluator.arms.baseline)

    def measured(self, genome: Genome) -> tuple[int, list[float], float]:
        """Counted operations of one image, CLIP scores, share of correct pictures."""
        from engine.measure import quality

        prompts = self.request.prompts
        arms = self.evaluator.arms
        worker = arms.load(genome, arms.program(genome))
        try:
            cost = worker.cost(Request.of(prompts[0], 1))["flops"]
            images = list(worker.generate(self.request).images)
            worker.check_active()
        finally:
            worker.close()
        scorer = self.evaluator.scoring.scorer()
        assert scorer is not None
        right = quality.checker(images, prompts)
        return int(cost), scorer.scores(images, prompts), sum(map(bool, right)) / len(right)

    def row(self, here: Space, genome: Genome) -> dict[str, Any]:
        key = here.key(genome)
        try:
            cost, scores, accuracy = self.measured(genome)
        except TrialError as error:
            return {"key": key, "genome": genome, "stage": error.stage, "reason": error.reason}
        level = sum(self.scores) / len(self.scores)
        losses = [(b - s) / level for b, s in zip(self.scores, scores, strict=True)]
        return {
            "key": key,
            "genome": genome,
            "speedup": round(self.cost / cost, 4),
            "loss": round(sum(losses) / len(losses), 5),
            "losses": [round(x, 4) for x in losses],
            "accuracy": round(accuracy, 4),
        }


def missing(here: Space, path: Path) -> Iterator[Genome]:
    done = {row["key"] for row in recorded(path)[1]} if path.exists() else set()
    for genome in here.genomes():
        if here.key(genome) not in done:
            yield canonical(genome)


def main() -> int:
    config = composed("objective=flops", "hw.threads=1")
    here = reduced()
    todo = list(missing(here, TABLE))
    print(f"{len(todo)} genomes to record in {TABLE}", flush=True)
    with tempfile.TemporaryDirectory() as folder:
        evaluator = Evaluator(config, session.machine_of(config), Path(folder))
        with evaluator:
            recorder = Recorder(evaluator)
            if not TABLE.exists():
                head = {
                    "space": here.describe(),
                    "only": ONLY,
                    "prompts": PROMPTS,
                    "model": config.model.name,
                    "baseline": describe(evaluator.arms.baseline),
                    "accuracy_base": round(recorder.accuracy, 4),
                    "versions": dict(evaluator.machine.versions),
                }
                TABLE.write_text(json.dumps(head) + "\n", encoding="utf-8")
            started = time.monotonic()
            for index, genome in enumerate(todo):
                row = recorder.row(here, genome)
                with TABLE.open("a", encoding="utf-8") as lines:
                    lines.write(json.dumps(row) + "\n")
                if index % 20 == 0:
                    rate = (time.monotonic() - started) / (index + 1)
                    left = rate * (len(todo) - index - 1) / 60
                    print(f"{index + 1}/{len(todo)}, about {left:.0f} min left", flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
