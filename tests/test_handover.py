"""What a study says while it runs of the trial that it would hand over."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from engine import handover, results
from engine.results import Result
from engine.schema import Config

RISKY = Result(
    0, {}, "risky", rung=1, speedup=9.0, speedup_low=8.0, speedup_high=10.0,
    loss=0.04, loss_low=-0.03, loss_high=0.11, wall_s=1.0,
)  # fmt: skip
SURE = replace(
    RISKY, trial=1, key="sure", speedup=4.0, speedup_low=3.8, speedup_high=4.2,
    loss=0.01, loss_low=-0.01, loss_high=0.03,
)  # fmt: skip


@pytest.mark.parametrize(
    ("asked", "named"),
    [
        ((), "best within the goal: 9.00x (trial 0)"),
        (("goal.speedup=3",), "best within the goal: 4.00x (trial 1)"),
        (("goal.max_loss=0",), "best within the goal: none yet"),
    ],
)
def test_progress_names_the_trial_that_the_study_would_hand_over(
    composed: Callable[..., Config],
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    asked: tuple[str, ...],
    named: str,
) -> None:
    for result in (RISKY, SURE):
        results.save(result, tmp_path / str(result.trial) / "result.json")
    handover.report_trial(composed(*asked), tmp_path, SURE)
    assert named in "".join(capsys.readouterr())
