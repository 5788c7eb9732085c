"""What a technique measures of a model is measured once and written into programs as numbers."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from engine import calibration, session
from engine.arms import Arms
from engine.errors import TrialError
from engine.program import generate
from engine.schema import Config
from engine.worker.conversation import Load, Worker
from engine.worker.pool import Pool
from tests import tiny

STEPS = 8


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny FLUX on disk."""
    return tiny.saved("flux", tmp_path_factory.mktemp("models"))


@pytest.fixture
def arms(folder: Path, tmp_path: Path, composed: Callable[..., Config]) -> Iterator[Arms]:
    """The arms of a study on it."""
    config = composed(
        "model=flux",
        f"model.weights={folder}",
        "model.height=64",
        "model.width=64",
        f"model.steps={STEPS}",
        "hw=cpu",
    )
    made = Arms(config, session.machine_of(config), tmp_path / "study")
    try:
        yield made
    finally:
        made.close()


def loaded(pool: Pool, text: str, *strategies: str) -> Worker:
    worker = pool.spawn()
    worker.load(
        Load(
            program=text,
            strategies=strategies,
            models={},
            denoiser="transformer",
            device="cpu",
            threads=1,
            timeout_s=120.0,
        )
    )
    return worker


@pytest.mark.parametrize("name", ["first_block_cache", "magcache"])
def test_a_program_holds_what_was_measured_and_takes_effect(
    name: str, folder: Path, tmp_path: Path
) -> None:
    subject = tiny.subject("flux", folder, steps=STEPS)
    request = tiny.request("flux", tmp_path, tiny.ONE)
    pool = Pool("cpu", tmp_path)
    try:
        worker = loaded(pool, generate(subject, {}, "test"))
        found = worker.calibrate(name, [request, request], "transformer")
        worker.close()
        text = generate(subject, {name: {}}, "test", {name: found})
        assert "threshold=" in text
        assert "quantile" not in text
        worker = loaded(pool, text, name)
        worker.generate(request)
        worker.check_active()
    finally:
        pool.close()


def test_a_technique_that_cannot_apply_measures_nothing(folder: Path, tmp_path: Path) -> None:
    subject = tiny.subject("flux", folder, steps=STEPS)
    pool = Pool("cpu", tmp_path)
    try:
        worker = loaded(pool, generate(subject, {}, "test"))
        with pytest.raises(TrialError, match="technique deepcache cannot apply: it needs a unet"):
            worker.calibrate("deepcache", [], "transformer")
    finally:
        pool.close()


def test_a_study_measures_once_for_each_sampler(arms: Arms) -> None:
    genome: Any = {"first_block_cache": {"quantile": 0.3}}
    first = arms.program(genome)
    kept = list((arms.folder / "calibration").iterdir())
    assert len(kept) == 1
    assert len(json.loads(kept[0].read_text())["changes"]) == calibration.IMAGES * (STEPS - 1)
    # A second program reads what is kept: a number put there by hand shows.
    kept[0].write_text(json.dumps({"changes": [0.125] * 4}))
    second = arms.program({"first_block_cache": {"quantile": 0.6}})
    assert "threshold=0.125" in second
    assert "threshold=0.125" not in first
    arms.program(genome | {"flow_sampler": {"steps": 5}})
    assert len(list((arms.folder / "calibration").iterdir())) == 2


def test_other_techniques_ask_for_no_calibration(arms: Arms) -> None:
    arms.program({"flow_sampler": {"steps": 5}, "precision": {}})
    assert not (arms.folder / "calibration").exists()
