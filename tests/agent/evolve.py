"""Small studies by an agent, in this process, on the miniature, by counted operations."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

from omegaconf import OmegaConf

from engine import results, study
from engine.agent.answer import in_process, plain
from engine.agent.llm import Model
from engine.results import Result
from engine.schema import Config
from engine.worker import sandbox

SANDBOX = "bwrap" if sandbox.probe().ok else "process"
"""The real sandbox where it starts, else plain processes."""
TINY = (
    "objective=flops", f"sandbox={SANDBOX}", "model=sd-mini", "search.first_call_s=59",
    "measure.search_prompts=2", "measure.scored_prompts=2", "measure.acceptance_prompts=4",
    "measure.control_prompts=4", "goal.max_loss=1.0", "goal.accuracy_drop=1.0",
)  # fmt: skip
Compose = Callable[..., Config]


def configured(compose: Compose, folder: Path, *overrides: str, llm: str = "mailbox") -> Config:
    """A tiny study ``s`` under ``folder``."""
    config = compose(*TINY, f"llm={llm}", *overrides)
    paths = dataclasses.replace(config.paths, outputs=str(folder))
    return dataclasses.replace(config, study="s", paths=paths)


def run(config: Config, model: Model | None = None) -> Path:
    """Run or resume the study; its folder."""
    study.run(OmegaConf.create(plain(config)), [], in_process(config), model)
    return home(config)


def home(config: Config) -> Path:
    return Path(config.paths.outputs) / "sweeps" / str(config.study)


def searched(folder: Path) -> dict[int, Result]:
    """The results that the search saw, by trial."""
    found = {}
    for path in folder.glob("*/result.json"):
        if path.parent.name.isdigit():
            earlier = path.with_name("search.json")
            result = results.load(earlier if earlier.exists() else path)
            found[result.trial] = result
    return found


def essence(folder: Path) -> list[tuple[Any, ...]]:
    """Plans, programs, costs and verdicts of a study."""
    found: list[tuple[Any, ...]] = []
    for trial, r in sorted(searched(folder).items()):
        text = (folder / str(trial) / "accelerated.py").read_text(encoding="utf-8")
        found.append((trial, r.note, r.genome, text, r.cost_flops, r.loss, r.stage, r.parents))
    front = json.loads((folder / "front.json").read_text(encoding="utf-8"))["front"]
    return [*found, *((row["trial"], row["cost_flops"], row["loss"]) for row in front)]
