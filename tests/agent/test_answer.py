"""Answers without a language model: rules plan, the generator writes, the text is held against the
request."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest

from engine import results, session
from engine.agent import asked
from engine.agent.answer import Answer, _best, _settled, answer, conversation
from engine.errors import UsageError
from engine.evaluate import Evaluator
from engine.phrasing import by_rules
from engine.reading import read
from engine.results import Result
from engine.specification import Specification, mismatches, overrides
from tests.agent.evolve import Compose

SD15 = "Stable Diffusion 1.5 with the UniPC scheduler, 20 steps, DeepCache at interval 3"


def answered(spec: Specification, compose: Compose, folder: Path, *more: str) -> Answer:
    config = compose(*overrides(spec), "model.weights=mini", "agent.debugger=false", *more)
    return answer(spec, config, None, folder)


def test_rules_answer_with_a_program_for_the_published_model(
    tmp_path: Path, composed: Compose
) -> None:
    spec = by_rules(SD15)
    made = answered(spec, composed, tmp_path)
    reading = read(made.program)
    assert mismatches(spec, reading) == ()
    assert reading.model_id == "stable-diffusion-v1-5/stable-diffusion-v1-5"
    assert reading.method("deepcache") is not None
    assert (made.written, made.calls, made.cost, made.trial) == (False, 0, 0.0, None)


def test_what_no_technique_composes_needs_a_model(tmp_path: Path, composed: Compose) -> None:
    spec = dataclasses.replace(by_rules(SD15), scheduler="LMSDiscreteScheduler")
    config = composed("model=sd15", "model.weights=mini")
    with pytest.raises(UsageError, match=r"LMSDiscreteScheduler.*llm=NAME"):
        answer(spec, config, None, tmp_path)


def test_a_request_is_a_plan_and_what_no_gene_says_is_its_structure() -> None:
    spec = by_rules(SD15)
    plan = asked.plan_of(spec)
    assert plan.techniques == {
        "sampler": {"name": "unipc", "steps": 20},
        "deepcache": {"interval": 3},
    }
    assert plan.structure == ""
    far = dataclasses.replace(spec, methods={"deepcache": {"interval": 40}})
    assert "use deepcache with {'interval': 40}" in asked.plan_of(far).structure


def test_a_control_image_is_handed_in_and_needs_nobody_to_write_code() -> None:
    spec = by_rules("Stable Diffusion 1.5 with ControlNet canny, UniPC scheduler, 20 steps")
    assert spec.preprocessor == "canny"
    assert asked.plan_of(spec).structure == ""


def test_a_command_that_is_repeated_finds_what_its_request_was_answered(
    composed: Compose,
) -> None:
    base = ("model=sd-mini", "request='UniPC in 12 steps'", "llm=mailbox")
    home = conversation(composed(*base))
    assert home.parent.name == "requests"
    for same in ("llm.budget.calls=3", "agent.repairs=0", "llm=ollama"):
        assert conversation(composed(*base, same)) == home
    for other in ("request='UniPC in 10 steps'", "model=sd15", "objective=flops"):
        assert conversation(composed(*base, other)) != home


def test_a_technique_that_did_nothing_takes_its_next_known_setting() -> None:
    spec = by_rules("SDXL with DDIM, 30 steps, and token merging")
    plan = asked.plan_of(spec)
    changed = asked.repaired(plan, spec, "active", "technique tome: nothing was merged")
    assert changed is not None
    assert changed.techniques["tome"] != plan.techniques["tome"]
    assert asked.repaired(plan, spec, "load", "tome is broken") is None


def test_a_programmer_is_given_settings_that_act_where_the_request_leaves_them_open(
    tmp_path: Path, composed: Compose
) -> None:
    spec = by_rules("SDXL with DDIM, 4 steps, and token merging at ratio 0.5")
    small = ("model.weights=mini", "model.height=64", "model.width=64")
    config = composed(*overrides(spec), *small)
    history: list[str] = []
    plan = asked.plan_of(spec)
    with Evaluator(config, session.machine_of(config), tmp_path) as evaluator:
        settled, failed = _settled(spec, config, evaluator, plan, history)
        untouched, _ = _settled(spec, composed("agent.debugger=false"), evaluator, plan, [])
    assert failed is None
    assert settled.techniques["tome"]["max_downsample"] != 1
    assert settled.techniques["tome"]["ratio"] == 0.5
    assert "failed at active" in history[0]
    assert untouched == plan


@pytest.mark.parametrize(
    ("target", "chosen"),
    [(1.5, 1), (2.55, 2), (3.6, 2), (9.0, 2)],
    ids=["the fastest that is sure", "the surest", "only just reached", "missed"],
)
def test_a_target_is_answered_by_what_keeps_it_most_surely(
    tmp_path: Path, composed: Compose, target: float, chosen: int
) -> None:
    measured = [
        # Fast, and its loss is hardly kept.
        (3.7, 0.049),
        (2.6, 0.01),
        (3.65, 0.03),
        (1.6, 0.0),
    ]
    for trial, (speedup, loss) in enumerate(measured):
        result = Result(trial, {}, str(trial), rung=2, speedup=speedup, loss=loss)
        result = dataclasses.replace(
            result, speedup_low=0.95 * speedup, speedup_high=1.05 * speedup, loss_high=loss + 0.03
        )
        (tmp_path / str(trial)).mkdir()
        results.save(result, tmp_path / str(trial) / "result.json")
    config = composed(f"goal.speedup={target}", "goal.max_loss=0.05")
    best = _best(tmp_path, config)
    assert best is not None
    assert best.trial == chosen
