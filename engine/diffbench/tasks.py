"""The 604 tasks: what is asked, what that implies, and a program that answers it.

``python -m engine.diffbench.tasks`` writes ``data/tasks.jsonl``, one task a line, the same bytes on
every machine; with ``--check`` it only says whether the file is stale and then exits with 1.
Targets of L4 and L5 come from labels: without a set of them the request has a field in their place
and the specification none.
"""

from __future__ import annotations

import dataclasses
import json
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from engine import catalogue
from engine.diffbench import baselines, phrases
from engine.diffbench.allocation import Slot, slots
from engine.diffbench.details import SCHEDULERS, VERSION, specification
from engine.errors import UsageError
from engine.reading.effective import gate_share
from engine.specification import Specification

if TYPE_CHECKING:
    from engine.program import Subject
    from engine.results import Genome

DATA = Path(__file__).with_name("data")
FILE = DATA / "tasks.jsonl"
_ATTEMPTS = 50
"""Ways to ask for a slot before two equal tasks count as a mistake of the tables."""


@dataclass(frozen=True)
class Task:
    """One task. ``difficulty`` and ``baseline`` (an id of :mod:`engine.diffbench.baselines`) are
    those of L4 and L5."""

    id: str
    level: int
    request: str
    specification: Specification
    difficulty: str | None
    baseline: str | None
    version: str

    @property
    def labelled(self) -> bool:
        """Whether the request is complete: L4 and L5 need a target from labels."""
        return self.level < 4 or self.specification.target is not None

    def to_json(self) -> dict[str, Any]:
        """Plain data that ``json`` takes."""
        return dataclasses.asdict(self) | {"specification": self.specification.to_json()}

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> Task:
        """The reverse of :meth:`to_json`."""
        asked = Specification.from_json(data["specification"])
        return cls(**{**data, "specification": asked})


@cache
def _unlabelled() -> tuple[Task, ...]:
    taken: set[str] = set()
    return tuple(_task(slot, taken) for slot in slots())


def tasks() -> list[Task]:
    """All of them, in order of level and number; those of L4 and L5 without targets."""
    return list(_unlabelled())


def find(name: str) -> Task:
    """The task of an id; raises UsageError for any other."""
    for task in _unlabelled():
        if task.id == name:
            return task
    raise UsageError(
        f"there is no task {name!r}; ids are L1-001 to L5-093, as in bench.ids=[L3-017]"
    )


def _task(slot: Slot, taken: set[str]) -> Task:
    """The slot's task; ``taken`` are the specifications so far, and none is asked twice."""
    name = None
    if slot.baseline is not None:
        name = baselines.of(slot.pipeline, slot.baseline).id
    for attempt in range(_ATTEMPTS):
        asked = specification(slot, attempt)
        text = phrases.request(asked, slot.level, slot.id, slot.number, attempt)
        same = json.dumps([asked.to_json(), slot.level, slot.difficulty], sort_keys=True)
        if same not in taken:
            taken.add(same)
            asked = dataclasses.replace(asked, request=text)
            return Task(slot.id, slot.level, text, asked, slot.difficulty, name, VERSION)
    raise ValueError(f"{slot.id} asks what another task asks")


# --- references


def reference(task: Task, genome: Genome | None = None) -> str:
    """A program that answers the task, by our generator, for the published model on CUDA.

    For L4 and L5 that is ``genome``, the winner that a set of labels holds for the baseline;
    without one it is the baseline itself, which keeps everything but the target. Raises TrialError
    where a technique's library is missing.
    """
    from engine import program
    from engine.genome import canonical, describe

    wanted = canonical(asked_genome(task.specification) if genome is None else genome)
    return program.generate(subject(task.specification), wanted, describe(wanted))


def subject(asked: Specification) -> Subject:
    """What the program of a specification runs: what it leaves free is as published, and the
    weights are as they are stored unless it asks for half precision."""
    from engine.program import Subject

    entry = catalogue.entry(asked.model)
    return Subject(
        name=asked.model,
        id=asked.model_id,
        revision=entry["revision"],
        pipeline=asked.pipeline,
        denoiser=entry["denoiser"],
        steps=asked.steps or entry["steps"],
        guidance_scale=entry["guidance_scale"]
        if asked.guidance_scale is None
        else asked.guidance_scale,
        height=asked.height or entry["height"],
        width=asked.width or entry["width"],
        miniature=False,
        device="cuda",
        dtype=asked.dtype or "float32",
        task=entry["task"],
        controlnet=asked.controlnet,
    )


def asked_genome(asked: Specification) -> Genome:
    """The techniques that a specification names, with what it leaves free at a setting that acts.

    FP16 is no technique here: the program loads its weights so.
    """
    found: Genome = {}
    steps = asked.steps or int(catalogue.entry(asked.model)["steps"])
    if asked.scheduler is not None:
        solver = next(name for name, known in SCHEDULERS.items() if known == asked.scheduler)
        # As SD's own sampler does and SDXL's configuration says: whoever takes the scheduler over
        # from the configuration must pass beside a reference, and trailing steps draw better.
        found["sampler"] = {"name": solver, "steps": steps, "spacing": "leading"}
    for name, settings in asked.methods.items():
        genes = dict(settings)
        if "gate_step" in genes:
            genes["gate"] = gate_share(int(genes.pop("gate_step")), steps)
        if name == "tome" and "max_downsample" not in genes and asked.model.startswith("sdxl"):
            # SDXL has no attention at full resolution.
            genes["max_downsample"] = 2
        found[name] = genes
    return found


# --- the file


def text(chosen: Sequence[Task]) -> str:
    """Tasks as JSON lines."""
    rows = (json.dumps(task.to_json(), ensure_ascii=False, sort_keys=True) for task in chosen)
    return "".join(f"{row}\n" for row in rows)


def main(arguments: Sequence[str]) -> int:
    """Write the file, or with ``--check`` only say whether it is stale."""
    if set(arguments) - {"--check"}:
        print("error: python -m engine.diffbench.tasks takes --check or nothing", file=sys.stderr)
        return 2
    wanted = text(tasks()).encode()
    same = FILE.exists() and FILE.read_bytes() == wanted
    if not same and "--check" not in arguments:
        FILE.parent.mkdir(parents=True, exist_ok=True)
        FILE.write_bytes(wanted)
        print(f"written: {FILE} ({len(tasks())} tasks, version {VERSION})")
    elif not same:
        print(f"stale: {FILE}; run python -m engine.diffbench.tasks")
    return int(not same and "--check" in arguments)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
