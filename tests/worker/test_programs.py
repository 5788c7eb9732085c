"""Programs of real techniques in real workers: what is copied works away from the registry."""

from __future__ import annotations

import numpy as np
import pytest

from engine.errors import TrialError
from engine.program import generate
from engine.requests import Request
from engine.results import Genome
from engine.worker.conversation import Load, Worker
from engine.worker.pool import Pool
from tests.test_program import CHECKPOINT, SUBJECT

ASKED = Request.of("a red circle on a white background", 1)


def load_of(genome: Genome) -> Load:
    return Load(
        program=generate(SUBJECT, genome, "test"),
        strategies=tuple(genome),
        models={SUBJECT.id: str(CHECKPOINT)},
        denoiser="unet",
        device="cpu",
        threads=1,
        timeout_s=120.0,
    )


def test_split_guidance_and_bytes_cost_what_the_plain_program_costs(pool: Pool) -> None:
    counts, images = [], []
    genomes: tuple[Genome, ...] = ({}, {"split_guidance": {}}, {"dynamic_int8": {}})
    for genome in genomes:
        worker = pool.spawn()
        worker.load(load_of(genome))
        images.append(worker.generate(ASKED).images.astype(int))
        worker.check_active()
        counts.append(worker.cost(ASKED))
        worker.close()
    assert counts[0]["flops"]
    assert [c["flops"] for c in counts] == [counts[0]["flops"]] * 3
    # The worker sees the call of the whole batch, before it is split.
    assert [c["batches"] for c in counts] == [[2] * SUBJECT.steps] * 3
    assert np.abs(images[1] - images[0]).max() <= 1
    assert np.abs(images[2] - images[0]).max() > 1


def test_offloading_is_refused_where_there_is_nowhere_to_go(worker: Worker) -> None:
    with pytest.raises(TrialError, match="placement cannot apply: it needs cuda"):
        worker.load(load_of({"placement": {}}))


def test_compilation_that_never_ran_is_no_success(worker: Worker) -> None:
    worker.load(load_of({"compile": {}}))
    with pytest.raises(TrialError, match="ran as compiled code"):
        worker.check_active()


@pytest.mark.slow
def test_a_worker_compiles_once_and_counts_that(worker: Worker) -> None:
    worker.timeout_s = 600.0
    worker.load(load_of({"compile": {"scope": "regional"}}))
    worker.timeout_s = 600.0
    worker.generate(ASKED)
    worker.check_active()
    first = worker.graphs()
    assert first
    worker.generate(ASKED)
    assert worker.graphs() == first
