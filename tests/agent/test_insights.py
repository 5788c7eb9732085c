"""What earlier studies say of each gene: read from their files, for the same model and machine."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import pytest

from engine import results
from engine.agent import feedback, insights
from engine.genome import canonical, key
from engine.results import Result, Sample
from tests.agent import known

MODEL = {"name": "sd-mini", "weights": "mini"}


def trial(number: int, genome: dict[str, Any], speedup: float, loss: float) -> Result:
    full = canonical(genome)
    return Result(number, full, key(full), speedup=speedup, loss=loss, rung=1)


TOLD = [
    trial(0, {"sampler": {"steps": 10}}, 2.0, 0.01),
    trial(1, {"sampler": {"steps": 12}}, 2.0, 0.01),
    trial(2, {"sampler": {"steps": 10}, "deepcache": {"interval": 2}}, 3.0, 0.02),
    trial(3, {"sampler": {"steps": 12}, "deepcache": {"interval": 2}}, 3.0, 0.02),
    trial(4, {"sampler": {"steps": 10}, "deepcache": {"interval": 5}}, 4.0, 0.06),
    trial(5, {"sampler": {"steps": 12}, "deepcache": {"interval": 5}}, 4.0, 0.06),
]


def study(folder: Path, name: str, **changed: Any) -> None:
    machine = dataclasses.asdict(known.MACHINE)
    data = {"objective": "flops", "machine": machine, "model": MODEL, "started": name} | changed
    results.write_json(folder / name / "study.json", data)
    for one in TOLD:
        results.save(one, folder / name / str(one.trial) / "result.json")


def test_an_effect_is_the_mean_against_the_rest_with_its_count() -> None:
    found = {(e.technique, e.gene, e.value): e for e in insights.effects([TOLD])}
    on = found["deepcache", "", ""]
    assert on.speed == pytest.approx((3 * 4) ** 0.5 / 2)
    assert on.loss == pytest.approx(0.03)
    assert on.trials == 4
    value = found["deepcache", "interval", "5"]
    assert value.speed == pytest.approx(4 / 3)
    assert value.loss == pytest.approx(0.04)
    assert value.trials == 2
    assert found["sampler", "steps", "10"].speed == pytest.approx(1.0)
    assert "deepcache on: speed 1.73x, loss +3.0 points (4 trials)" in insights.words([on])


def test_failures_are_told_beside_what_worked() -> None:
    failed = dataclasses.replace(TOLD[4], trial=6, stage="load", speedup=None)
    (effect,) = [
        e for e in insights.effects([[*TOLD, failed]]) if (e.technique, e.gene) == ("deepcache", "")
    ]
    assert effect.failed == 1
    assert str(effect).endswith("(4 trials, 1 failed)")


def test_only_studies_of_the_same_model_machine_and_objective_count(tmp_path: Path) -> None:
    study(tmp_path, "a")
    study(tmp_path, "other-model", model=MODEL | {"name": "sdxl"})
    study(tmp_path, "timed", objective="time")
    machine = dataclasses.asdict(known.MACHINE) | {"device_name": "another"}
    study(tmp_path, "elsewhere", machine=machine)
    study(tmp_path, "own")
    (tmp_path / "damaged").mkdir()
    (tmp_path / "damaged" / "study.json").write_text("{", encoding="utf-8")
    found = insights.earlier(tmp_path, "own", MODEL, known.MACHINE.profile(), "flops")
    assert [[r.trial for r in told] for told in found] == [[0, 1, 2, 3, 4, 5]]
    assert insights.earlier(tmp_path / "none", "own", MODEL, "x", "flops") == []


def test_what_the_search_saw_counts_and_not_the_acceptance(tmp_path: Path) -> None:
    study(tmp_path, "a")
    lucky = dataclasses.replace(TOLD[0], speedup=9.0)
    results.save(lucky, tmp_path / "a" / "0" / "search.json")
    (told,) = insights.earlier(tmp_path, None, MODEL, known.MACHINE.profile(), "flops")
    assert told[0].speedup == 9.0


def test_a_report_names_work_and_the_prompts_that_lost_most() -> None:
    samples = tuple(
        Sample(arm, 0, 0, prompt, 1, 0.1, score=score)
        for prompt, pair in {"a red ring": (30.0, 20.0), "a blue box": (30.0, 29.9)}.items()
        for arm, score in zip(("base", "candidate"), pair, strict=True)
    )
    one = dataclasses.replace(
        TOLD[2], samples=samples, forwards=10, cost_flops=50, seconds_per_image=0.5
    )
    base = feedback.Base(20, 200, timed=True)
    text = feedback.report(one, base, {"max_loss": 0.05}, {2: "a cache"})
    assert "#2: 3.00x, loss 2.0 %, keeps the goal" in text
    assert "10 denoiser calls (baseline 20), work of a call 50 % of the baseline's" in text
    assert "50 ms a call" in text
    assert '("a cache")' in text
    assert "loses 33 % on: a red ring" in text
    assert "a blue box" not in text
    counted = feedback.report(one, feedback.Base(20, 200, timed=False), {"max_loss": 0.05}, {})
    assert " ms a call" not in counted
