"""Honest programs pass: the checks cost nobody anything who does what the text says."""

from __future__ import annotations

import pytest

from engine.results import Genome
from tests.adversarial.conftest import STEPS, Court

HALF: Genome = {"sampler": {"name": "ddim", "steps": STEPS // 2}}


def test_the_honest_identity_measures_about_one(court: Court) -> None:
    result = court.verdict(court.honest())
    assert result.ok, (result.stage, result.reason)
    assert result.speedup == pytest.approx(1.0, abs=0.01)
    assert result.loss is not None
    assert abs(result.loss) < 0.01
    assert result.untrusted
    assert result.evidence is not None
    assert result.evidence["forwards"] == STEPS
    # By the clock as well, with room for a busy machine.
    assert result.seconds_base is not None
    assert result.seconds_per_image is not None
    assert 0.4 < result.seconds_base / result.seconds_per_image < 2.5


def test_an_honest_program_of_half_the_steps_passes(court: Court) -> None:
    result = court.verdict(court.honest(HALF), HALF)
    assert result.ok, (result.stage, result.reason)
    assert result.speedup == pytest.approx(2.0, abs=0.25)
    assert result.rung == 1


@pytest.mark.slow
def test_an_honest_program_of_many_techniques_passes(court: Court) -> None:
    many: Genome = {"tgate": {"gate": 0.6}, "tome": {"ratio": 0.3}, "deepcache": {"interval": 2}}
    result = court.verdict(court.honest(many), many)
    assert result.ok, (result.stage, result.reason)
    assert result.evidence is not None
    assert set(result.evidence["methods"]) >= {"tgate", "tome", "deepcache"}


@pytest.mark.slow
def test_an_honest_program_passes_on_held_out_prompts_and_other_requests(court: Court) -> None:
    told = court.verdict(court.honest(HALF), HALF)
    accepted = court.evaluator.accept(told)
    assert accepted.ok, (accepted.stage, accepted.reason)
    assert accepted.rung == 2
    assert accepted.untrusted
    asked = {(s.prompt, s.seed) for s in told.samples}
    assert not asked & {(s.prompt, s.seed) for s in accepted.samples}
