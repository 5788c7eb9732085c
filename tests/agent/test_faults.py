"""Every fault breaks what it should, where it should, and is mended by those who are told."""

from __future__ import annotations

import ast
import random

import numpy as np
import pytest

from engine.errors import TrialError
from engine.program import generate
from engine.requests import Request
from engine.worker.conversation import Load, Worker
from engine.worker.pool import Pool
from tests.agent import edits
from tests.agent.faults import FAULTS, Complaint, Fault, mended
from tests.test_program import CHECKPOINT, SUBJECT

GENOME: dict[str, dict[str, object]] = {
    "sampler": {"name": "dpmpp_2m", "steps": 10, "spacing": "trailing"},
    "deepcache": {"interval": 3, "branch": 0},
    "tome": {"ratio": 0.5, "max_downsample": 2},
    "tgate": {"gate": 0.6},
}
CLEAN = generate(SUBJECT, GENOME, "test")
BY_NAME = {fault.name: fault for fault in FAULTS}
ASKED = Request.of("a red circle on a white background", 1)


def broken(name: str, seed: int = 0) -> str:
    text = BY_NAME[name].inject(CLEAN, random.Random(seed))
    assert text is not None
    return text


def told_all(fault: Fault, text: str) -> Complaint:
    """What a check would say that sees everything, in the words of the kind of check."""
    line = next(
        (i for i, (a, b) in enumerate(zip(CLEAN.split("\n"), text.split("\n"), strict=False), 1)
         if a != b), 1,
    )  # fmt: skip
    reasons = {
        "syntax error": f"SyntaxError: invalid syntax (accelerated.py, line {line})",
        "missing import": f"File accelerated.py, line {line}\nNameError: name '%s' is not defined",
        "technique on the wrong module": (
            f"File accelerated.py, line {line}, in {edits.function_at(text, line)}\n"
            "AttributeError: the object has no attribute 'unet'"
        ),
        "wrong pipeline class": (
            f"pipeline: asked StableDiffusionPipeline, found {edits.pipeline_class(text)}"
        ),
        "wrong scheduler": (
            "scheduler: asked DPMSolverMultistepScheduler, found "
            f"{edits.solvers(text).get(edits.solver(text) or '')}"
        ),
        "wrong steps": f"steps: asked 10, found {edits.steps(text)}",
        "parameter out of range": "; ".join(
            f"{m}.{g}: asked {GENOME[m][g]}, found {edits.gene(text, m, g)}"
            for m, g in (("deepcache", "interval"), ("tome", "ratio"), ("tgate", "gate"))
            if edits.gene(text, m, g) != str(GENOME[m][g])
        ),
        "wrong dtype": f"dtype: asked float32, found {edits.dtype(text)}",
        "duplicated work": "one image took 20 denoiser forwards, 10 were declared",
    }
    idle = [m for m in edits.METHODS if not edits.is_used(text, m)] or list(edits.METHODS)
    reason = reasons.get(fault.name, "; ".join(f"{m} is not active" for m in idle))
    if fault.name == "missing import":
        gone = set(CLEAN.split("\n")) - set(text.split("\n"))
        lost = next(iter(gone), "    import torch").split()[-1]
        reason %= lost
    return Complaint("specification", reason, GENOME)


@pytest.mark.parametrize("fault", FAULTS, ids=lambda f: f.name)
def test_a_fault_changes_the_program_the_same_way_for_the_same_seed(fault: Fault) -> None:
    for seed in range(8):
        text = fault.inject(CLEAN, random.Random(seed))
        assert text is not None
        assert text != CLEAN
        assert text == fault.inject(CLEAN, random.Random(seed))
        assert edits.parses(text) == (fault.found != "compile")


@pytest.mark.parametrize("fault", FAULTS, ids=lambda f: f.name)
def test_a_debugger_that_is_told_mends_it(fault: Fault) -> None:
    for seed in range(8):
        text = fault.inject(CLEAN, random.Random(seed))
        assert text is not None
        found = mended(text, told_all(fault, text))
        assert found is not None, (fault.name, seed)
        assert found[0] == fault.name
        if fault.name == "missing import":
            # It may stand elsewhere; the workers below show that the program runs.
            assert edits.parses(found[1])
        else:
            assert ast.dump(ast.parse(found[1])) == ast.dump(ast.parse(CLEAN)), (fault.name, seed)


@pytest.mark.parametrize("fault", FAULTS, ids=lambda f: f.name)
def test_a_debugger_that_is_told_little_mends_nothing(fault: Fault) -> None:
    text = broken(fault.name)
    for reason in ("", "it failed", "slower than the baseline", "one image looks wrong"):
        assert mended(text, Complaint(fault.found, reason, GENOME)) is None


def test_a_program_without_faults_is_left_alone() -> None:
    everything = "; ".join(told_all(f, broken(f.name)).reason for f in FAULTS if f.name[0] == "d")
    assert mended(CLEAN, Complaint("run", everything, GENOME)) is None


def test_a_plain_program_has_no_place_for_the_faults_of_methods() -> None:
    plain = generate(SUBJECT, {}, "test")
    without = {f.name for f in FAULTS if f.inject(plain, random.Random(0)) is None}
    assert without == {
        "technique on the wrong module",
        "wrong scheduler",
        "parameter out of range",
        "method left out",
        "dead method",
        "method undone",
        "method without effect",
    }


# --- in a real worker


def drawn(worker: Worker, text: str) -> None:
    worker.load(load_of(text))
    worker.generate(ASKED)


def load_of(text: str) -> Load:
    return Load(
        program=text,
        strategies=tuple(GENOME),
        models={SUBJECT.id: str(CHECKPOINT)},
        denoiser="unet",
        device="cpu",
        threads=1,
        timeout_s=120.0,
    )


def test_a_missing_import_stops_the_program_and_is_mended_by_its_own_message(pool: Pool) -> None:
    text = next(t for s in range(50) if (t := broken("missing import", s)).count("DeepCacheSD") < 2)
    worker = pool.spawn()
    with pytest.raises(TrialError, match="name 'DeepCacheSDHelper' is not defined") as failed:
        worker.load(load_of(text))
    worker.close()
    found = mended(text, Complaint(failed.value.stage, failed.value.reason))
    assert found is not None
    whole = pool.spawn()
    whole.load(load_of(found[1]))
    whole.generate(ASKED)
    whole.check_active()
    whole.close()


@pytest.mark.parametrize(
    ("swap", "message"),
    [
        (("pipe=pipe)", "pipe=pipe.unet)"), "has no attribute 'unet'"),
        (("apply_patch(pipe,", "apply_patch(pipe.vae,"), "has no attribute '_tome_info'"),
        (("interval=3", "interval=0"), "modulo by zero"),
    ],
)
def test_what_cannot_run_says_why(worker: Worker, swap: tuple[str, str], message: str) -> None:
    text = CLEAN.replace(*swap)
    with pytest.raises(TrialError, match=message):
        drawn(worker, text)


def test_what_is_undone_is_not_active(worker: Worker) -> None:
    worker.load(load_of(broken("method undone")))
    worker.generate(ASKED)
    with pytest.raises(TrialError, match=r"skipped the deep layers|merged tokens"):
        worker.check_active()


def test_duplicated_work_draws_the_same_image_with_twice_the_forwards(pool: Pool) -> None:
    images, forwards = [], []
    for text in (CLEAN, broken("duplicated work")):
        worker = pool.spawn()
        worker.load(load_of(text))
        images.append(worker.generate(ASKED).images)
        forwards.append(worker.cost(ASKED)["forwards"])
        worker.close()
    assert forwards == [10, 20]
    assert np.array_equal(images[0], images[1])
