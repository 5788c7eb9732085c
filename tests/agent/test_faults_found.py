"""The agent's workbench finds every fault, at the stage that the fault names, and says enough."""

from __future__ import annotations

import random
from collections.abc import Iterator
from pathlib import Path

import pytest

from engine import session
from engine.agent.roles import Failure
from engine.agent.workbench import Workbench, specification_of
from engine.evaluate import Evaluator
from engine.genome import canonical
from engine.specification import Specification
from engine.worker.sandbox import probe
from tests.agent.faults import FAULTS, Complaint, Fault, mended
from tests.agent.test_faults import GENOME
from tests.benchmarks.record_table import composed
from tests.benchmarks.weak_judge import same_code

SANDBOX = probe()
STATED = tuple(f for f in FAULTS if f.found in ("compile", "specification"))
RUN = tuple(f for f in FAULTS if f not in STATED)
SEEDS = 6


def asked(text: str) -> Specification:
    """What a request with all these settings, in float32, asks of a program."""
    found = specification_of(text, canonical(GENOME), "sd-mini", "", None)
    assert found is not None
    return Specification(**{**found.__dict__, "dtype": "float32"})


def complaint_of(failure: Failure) -> Complaint:
    return Complaint(failure.stage, f"{failure.reason}\n{failure.traceback}", canonical(GENOME))


@pytest.fixture(scope="module")
def evaluator(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Evaluator]:
    config = composed("objective=flops")
    folder = tmp_path_factory.mktemp("study")
    with Evaluator(config, session.machine_of(config), folder) as made:
        yield made


@pytest.mark.parametrize("fault", STATED, ids=lambda f: f.name)
def test_what_is_stated_wrongly_is_found_in_the_text(
    fault: Fault, evaluator: Evaluator, tmp_path: Path
) -> None:
    clean = evaluator.arms.program(canonical(GENOME))
    bench = Workbench(tmp_path, None)
    assert bench.tried(clean, asked(clean)).failure is None
    for seed in range(SEEDS):
        text = fault.inject(clean, random.Random(seed))
        assert text is not None
        failure = bench.tried(text, asked(clean)).failure
        assert failure is not None, seed
        assert failure.stage == fault.found
        repaired = mended(text, complaint_of(failure))
        assert repaired is not None, failure
        assert same_code(repaired[1], clean), failure


@pytest.mark.skipif(not SANDBOX.ok, reason=f"no sandbox here: {SANDBOX.cause}")
def test_what_runs_wrongly_is_found_by_one_image(evaluator: Evaluator, tmp_path: Path) -> None:
    clean = evaluator.arms.program(canonical(GENOME))
    bench = Workbench(tmp_path, evaluator.attempt)
    assert bench.tried(clean, asked(clean)).failure is None
    for fault in RUN:
        text = fault.inject(clean, random.Random(1))
        assert text is not None
        failure = bench.tried(text, asked(clean)).failure
        assert failure is not None, fault.name
        # What the reader stumbles over is found before it runs.
        assert failure.stage in (fault.found, "load", "specification"), failure
        repaired = mended(text, complaint_of(failure))
        assert repaired is not None, (fault.name, failure)
        assert bench.tried(repaired[1], asked(clean)).failure is None, fault.name
