"""A plan becomes a genome of the space, or is refused in one clear sentence."""

from __future__ import annotations

import json

import pytest

from engine.agent import plans
from engine.agent.llm import FormatFailure
from engine.agent.plans import IllegalPlan, Plan, genome_of, read
from engine.agent.roles import Coder, Planner, Told
from engine.agent.schemas import check_schema, faults
from engine.genome import key
from tests.agent import known
from tests.agent.known import Compose
from tests.agent.scripted import Scripted

CACHE = {"title": "cache", "why": "skips", "techniques": {"deepcache": {"interval": 2}},
         "structure": "", "refines": None}  # fmt: skip


def test_a_plan_survives_being_written_and_read() -> None:
    plan = Plan("a title", "a reason", {"tome": {"ratio": 0.5}}, "reversed", 3)
    assert read(json.loads(plans.as_json(plan))) == plan
    assert faults(json.loads(plans.as_json(plan)), plans.SCHEMA) == []
    check_schema(plans.ANSWER)


def test_a_plan_becomes_the_canonical_genome_with_the_baselines_sampler(composed: Compose) -> None:
    config = composed()
    space = known.space_of(config.model)
    genome = genome_of(read(CACHE), space, known.baseline(config))
    assert genome["sampler"] == config.baseline.technique["sampler"]
    assert genome["deepcache"] == {"interval": 2, "branch": 0}
    assert key(genome) == space.key(genome)


def test_a_plan_is_shown_with_the_sampler_and_the_defaults_that_its_genome_settles(
    composed: Compose,
) -> None:
    config = composed()
    reply = json.dumps({"plans": [CACHE]})
    ((plan, genome),) = planner(config, [reply]).plans(1, [], Told(), "plans").plans
    assert plan.techniques == genome
    assert list(plan.techniques) == ["deepcache", "sampler"]
    coder = Coder(Scripted([]), known.briefed(config), knowledge=False)
    shown = coder.messages(plan, "", "", ())[-1].text
    sampler = config.baseline.technique["sampler"]
    assert f'"steps": {sampler["steps"]}' in shown
    assert '"branch": 0' in shown


@pytest.mark.parametrize(
    ("techniques", "sentence"),
    [
        ({"deepcash": {}}, "did you mean deepcache"),
        ({"deepcache": {"intervall": 3}}, "no gene 'intervall'; did you mean interval"),
        ({"deepcache": {"interval": 99}}, "interval is 99; allowed: 2 to 6"),
        ({"deepcache": {"interval": "3"}}, "interval is '3'; allowed: 2 to 6"),
        ({"tome": {"ratio": 0.5, "max_downsample": 3}}, "allowed: one of 1, 2, 4"),
        ({"flow_sampler": {}}, "cannot be used here"),
        ({"first_block_cache": {}}, "cannot be used here"),
        ({"tgate": {"gate": 0.4}, "guidance": {"stop": 0.8}}, "must be below"),
    ],
)
def test_an_illegal_plan_is_refused_in_a_sentence(
    techniques: dict[str, dict[str, object]], sentence: str, composed: Compose
) -> None:
    config = composed()
    plan = read({"title": "t", "why": "", "techniques": techniques})
    with pytest.raises(IllegalPlan) as refused:
        genome_of(plan, known.space_of(config.model), known.baseline(config))
    assert sentence in str(refused.value)
    assert "\n" not in str(refused.value)


def test_pinned_steps_cannot_be_planned_away(composed: Compose) -> None:
    config = composed()
    space = known.space_of(config.model, fixed={"sampler": {"steps": 20}})
    with pytest.raises(IllegalPlan, match="held at 20"):
        genome_of(read({"techniques": {"sampler": {"steps": 8}}}), space, {})
    assert genome_of(read(CACHE), space, {})["sampler"]["steps"] == 20


@pytest.mark.parametrize(
    "data",
    [[1], "x", {"techniques": []}, {"techniques": {"tome": [1]}}, {"refines": True},
     {"techniques": {"tome": {"ratio": None}}}],
)  # fmt: skip
def test_what_is_no_plan_is_refused(data: object) -> None:
    with pytest.raises(IllegalPlan):
        read(data)


def planner(config: object, answers: list[str | Exception]) -> Planner:
    from engine.schema import Config

    assert isinstance(config, Config)
    space = known.space_of(config.model)
    return Planner(Scripted(answers), known.briefed(config), space, known.baseline(config))


def test_illegal_plans_go_back_once_with_the_reason(composed: Compose) -> None:
    bad = CACHE | {"title": "too far", "techniques": {"deepcache": {"interval": 40}}}
    asked = planner(
        composed(), [json.dumps({"plans": [CACHE, bad]}), json.dumps({"plans": [CACHE | bad | {
            "techniques": {"deepcache": {"interval": 5}}}]})],
    )  # fmt: skip
    found = asked.plans(2, [], Told(), "plans")
    assert [g["deepcache"]["interval"] for _, g in found.plans] == [2, 5]
    assert found.refused == ()
    assert isinstance(asked.model, Scripted)
    again = asked.model.requests[1].messages
    assert again[-2].role == "assistant"
    assert "interval is 40; allowed: 2 to 6" in again[-1].text
    assert "1 plans in place" in again[-1].text


def test_plans_that_stay_illegal_are_left_out_and_said(composed: Compose) -> None:
    bad = json.dumps({"plans": [CACHE | {"techniques": {"nothing": {}}}]})
    found = planner(composed(), [bad, bad]).plans(1, [], Told(), "plans")
    assert found.plans == ()
    assert "unknown technique 'nothing'" in found.refused[0]


def test_a_planner_that_cannot_answer_costs_only_its_plans(composed: Compose) -> None:
    found = planner(composed(), [FormatFailure("no JSON", "hm")]).plans(2, [], Told(), "plans")
    assert found.plans == ()
    assert "no JSON" in found.refused[0]


def test_only_the_drawn_parents_may_be_refined(composed: Compose) -> None:
    wrong = json.dumps({"plans": [CACHE | {"refines": 7}]})
    right = json.dumps({"plans": [CACHE | {"refines": 2}]})
    asked = planner(composed(), [wrong, right])
    found = asked.plans(0, [2], Told(), "plans")
    assert [plan.refines for plan, _ in found.plans] == [2]
    assert isinstance(asked.model, Scripted)
    assert "refines is 7; allowed: 2" in asked.model.requests[1].messages[-1].text
