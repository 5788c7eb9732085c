"""References in real workers: what they name takes effect, on miniatures of every class.

Where a miniature's trained weights are not there yet, networks of its kind with random numbers
stand in: what a technique does to a pipeline does not hang on the weights.
"""

from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest

from engine import catalogue
from engine.diffbench import tasks
from engine.genome import canonical, describe
from engine.models import CHECKPOINTS
from engine.program import generate
from engine.worker.conversation import Load
from engine.worker.pool import Pool
from tests.tiny import KINDS, ONE, request, saved

KIND = {
    "sd15": "sd",
    "sd21": "sd",
    "sd15-img2img": "sd-img2img",
    "sd21-img2img": "sd-img2img",
    "sdxl": "sdxl",
    "sdxl-img2img": "sdxl-img2img",
    "sd15-controlnet": "sd-control",
    "sdxl-controlnet": "sdxl-control",
    "pixart-alpha": "pixart-alpha",
    "pixart-sigma": "pixart-sigma",
    "dit": "dit",
}
"""Model to the kind of pipeline of ``tests.tiny``."""


def _sample() -> list[tasks.Task]:
    """The first task of each combination of a model with methods, and with a sampler on L1."""
    found: dict[tuple[object, ...], tasks.Task] = {}
    for task in tasks.tasks():
        asked = task.specification
        sampler = asked.scheduler if task.level == 1 else None
        if task.level < 4:
            found.setdefault((asked.model, *sorted(asked.methods), sampler), task)
    return list(found.values())


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("models")


@pytest.mark.slow
@pytest.mark.parametrize("task", _sample(), ids=lambda task: task.id)
def test_all_that_a_reference_names_takes_effect(task: tasks.Task, pool: Pool, root: Path) -> None:
    asked = task.specification
    kind = KIND[asked.model]
    trained = CHECKPOINTS / KINDS[kind].mini
    folder = trained if (trained / "model_index.json").is_file() else saved(kind, root)
    entry = catalogue.entry(asked.model)
    own = catalogue.entry(entry["mini"])
    here = dataclasses.replace(
        tasks.subject(asked),
        device="cpu",
        dtype="float32",
        height=own["height"],
        width=own["width"],
        miniature=True,
        # A pipeline's own folder holds the ControlNet of a miniature.
        controlnet=None,
    )
    genome = canonical(tasks.asked_genome(asked))
    worker = pool.spawn()
    try:
        worker.load(
            Load(
                program=generate(here, genome, describe(genome)),
                strategies=tuple(genome),
                models={here.id: str(folder)},
                denoiser=here.denoiser,
                device="cpu",
                threads=1,
                timeout_s=120.0,
            )
        )
        answer = worker.generate(request(kind, root, ONE))
        worker.check_active()
    finally:
        worker.close()
    assert answer.images.shape[0] == 1
