"""The weak programmer errs as often as it says, and repairs only what it is told."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

import pytest

from engine.agent import knowledge, plans
from engine.agent.answers import code_of
from engine.agent.brief import Brief
from engine.agent.feedback import Base, report
from engine.agent.plans import IllegalPlan, Plan
from engine.agent.roles import Coder, Debugger, Failure, Planner, Told
from engine.measure.statistics import wilson
from engine.program import generate
from engine.results import Result
from engine.search.space import Space, space
from engine.strategy import registry
from tests.agent import edits
from tests.agent.faults import FAULTS
from tests.agent.proposing import techniques
from tests.agent.weak import Rates, WeakProgrammer
from tests.test_program import SUBJECT

TECHNIQUES: dict[str, dict[str, Any]] = {
    "sampler": {"name": "dpmpp_2m", "steps": 10, "spacing": "trailing"},
    "tgate": {"gate": 0.6},
    "tome": {"ratio": 0.5, "max_downsample": 2},
    "deepcache": {"interval": 3, "branch": 0},
}
CLEAN = generate(SUBJECT, TECHNIQUES, "sampler")
BRIEF = Brief("", "sd-mini", "", "50 DDIM steps", "as fast as possible")
NEVER = Rates(faulty=0, worse=0, illegal=0, illegal_unknown=0, repeated=0)
BODY = "def load_pipeline"


def plan(number: int = 0) -> Plan:
    return Plan(f"plan {number}", "", TECHNIQUES)


def written(model: WeakProgrammer, number: int, *, template: bool = False) -> str:
    return Coder(model, BRIEF, template).write(plan(number), CLEAN, "", (), "")


def here() -> Space:
    left_out = {name: "not here" for name in registry() if name not in TECHNIQUES}
    return space(registry(), exclude=left_out)


def test_without_faults_the_coder_writes_the_program_of_its_plan() -> None:
    text = written(WeakProgrammer(SUBJECT, rates=NEVER), 0)
    assert text.partition(BODY)[2] == CLEAN.partition(BODY)[2]


def test_the_same_seed_gives_the_same_programs_and_asking_again_gives_another() -> None:
    first, again, other = (WeakProgrammer(SUBJECT, seed) for seed in (1, 1, 2))
    texts = [written(first, n) for n in range(12)]
    assert texts == [written(again, n) for n in range(12)]
    assert texts != [written(other, n) for n in range(12)]
    # The second time is another draw: whoever asks again may get a better program.
    assert texts != [written(first, n) for n in range(12)]


@pytest.mark.parametrize("template", [False, True])
def test_programs_are_faulty_as_often_as_documented(template: bool) -> None:
    model = WeakProgrammer(SUBJECT, 3)
    texts = [written(model, n, template=template) for n in range(150)]
    faulty = sum(text.partition(BODY)[2] != CLEAN.partition(BODY)[2] for text in texts)
    # A fault above the functions, such as a missing import, changes the head alone.
    assert len({i.fault for i in model.diary.injected}) == len(FAULTS)
    low, high = wilson(round(len(texts) * _share(model, texts)), len(texts), 0.999)
    documented = model.rates.faulty * (model.rates.template if template else 1)
    assert low <= documented <= high
    assert faulty <= len(model.diary.injected)
    kinds = [i.kind for i in model.diary.injected]
    low, high = wilson(kinds.count("compile"), len(kinds), 0.999)
    assert low <= (1 - model.rates.speed) * model.rates.compile <= high


def _share(model: WeakProgrammer, texts: list[str]) -> float:
    return sum(_tail(text) != _tail(CLEAN) for text in texts) / len(texts)


def _tail(text: str) -> str:
    """Without the docstring, which has the title, and without what a vain repair leaves behind."""
    return text.partition("from __future__")[2].partition("# looked through")[0].strip()


def repaired(model: WeakProgrammer, text: str, failure: Failure, number: int) -> str:
    reflections = [f"attempt {number}"]
    return Debugger(model).repair(text, plan(), failure, reflections, "", "").program


def test_a_debugger_repairs_at_the_documented_rate_what_the_reason_names() -> None:
    model = WeakProgrammer(SUBJECT, 5, Rates(worse=0))
    text = edits.with_steps(CLEAN, 25)
    named = Failure("specification", "steps: asked 10, found 25")
    texts = [repaired(model, text, named, n) for n in range(120)]
    right = sum(_tail(t) == _tail(CLEAN) for t in texts)
    low, high = wilson(right, len(texts), 0.999)
    assert low <= model.rates.repair <= high
    assert model.diary.informed == 120


def test_a_debugger_that_is_told_nothing_repairs_nothing() -> None:
    model = WeakProgrammer(SUBJECT, 5, Rates(worse=0))
    text = edits.with_steps(CLEAN, 25)
    vague = Failure("quality", "the pictures are worse")
    assert {_tail(repaired(model, text, vague, n)) for n in range(40)} == {_tail(text)}
    assert model.diary.uninformed == 40


def test_a_debugger_does_not_take_old_reasons_for_new_ones() -> None:
    model = WeakProgrammer(SUBJECT, 5, Rates(worse=0, repair=1))
    text = edits.with_steps(CLEAN, 25)
    old = ["The cause was: steps: asked 10, found 25"]
    failure = Failure("run", "it failed")
    answer = Debugger(model).repair(text, plan(), failure, old, "", "").program
    assert _tail(answer) == _tail(text)


def test_the_debugger_sees_the_lines_that_a_traceback_counts() -> None:
    messages = Debugger(WeakProgrammer(SUBJECT)).messages(CLEAN, plan(), Failure("run", ""), (), "")
    assert f"```python\n{CLEAN.strip()}\n```" in messages[-1].text


def test_the_traceback_counts_as_information() -> None:
    model = WeakProgrammer(SUBJECT, 5, Rates(worse=0, repair=1))
    text = CLEAN.replace("DeepCacheSDHelper(pipe=pipe)", "DeepCacheSDHelper(pipe=pipe.unet)")
    line = text[: text.index("pipe=pipe.unet")].count("\n") + 1
    trace = f'  File "/tmp/x/accelerated.py", line {line}, in deepcache_apply\n    helper.enable()'
    reason = "AttributeError: 'UNet2DConditionModel' object has no attribute 'unet'"
    assert _tail(repaired(model, text, Failure("load", reason, trace), 0)) == _tail(CLEAN)
    assert _tail(repaired(model, text, Failure("load", "AttributeError"), 0)) == _tail(text)


# --- planner


@pytest.mark.parametrize("cards", [False, True])
def test_the_planner_reads_techniques_and_bounds_from_its_prompt(cards: bool) -> None:
    known = here()
    model = WeakProgrammer(SUBJECT)
    messages = Planner(model, BRIEF, known, {}, cards).messages(3, [], Told())
    found = {
        t.name: {g.name: list(g.values) for g in t.genes} for t in techniques(messages[1].text)
    }
    expected = {
        name: {gene.name: gene.values() for gene in one.genes.values()}
        for name, one in known.strategies.items()
    }
    assert found == expected


def test_plans_are_legal_but_for_the_documented_share() -> None:
    known = here()
    for rates, most in ((NEVER, 0), (Rates(illegal=1), 40)):
        model = WeakProgrammer(SUBJECT, 7, rates)
        illegal = 0
        for number in range(10):
            planner = Planner(model, BRIEF, known, {})
            messages = planner.messages(4, [], Told(), f"Answer {number}.")
            rows = json.loads(_asked(model, messages))["plans"]
            assert len(rows) == 4
            illegal += sum(_illegal(row, known) for row in rows)
        assert (illegal == 0) == (most == 0)


def _asked(model: WeakProgrammer, messages: Any) -> str:
    from engine.agent.llm import Request

    return model.complete(Request("planner", messages, plans.ANSWER, {})).text


def _illegal(row: Mapping[str, Any], known: Space) -> bool:
    try:
        plans.genome_of(plans.read(row), known, {})
    except IllegalPlan:
        return True
    return False


def test_refused_plans_are_planned_again() -> None:
    model = WeakProgrammer(SUBJECT, 11, Rates(illegal=0.5, repeated=0))
    planned = Planner(model, BRIEF, here(), {}).plans(6, [], Told(), "plans")
    assert len(planned.plans) + len(planned.refused) == 6
    assert len(planned.plans) > 3


def test_a_plan_refines_the_trials_that_are_named() -> None:
    model = WeakProgrammer(SUBJECT, 13, NEVER)
    planned = Planner(model, BRIEF, here(), {}).plans(1, [4, 9], Told(), "plans")
    assert [plan.refines for plan, _ in planned.plans] == [4, 9, None]


def test_a_refined_plan_varies_its_parent_in_one_place() -> None:
    known = here()
    parent = plans.genome_of(plan(), known, {})
    lines = report(Result(4, parent, "", speedup=2.0, loss=0.01), Base(20, 1, False), {}, {})
    differences = set()
    for seed in range(12):
        planner = Planner(WeakProgrammer(SUBJECT, seed, NEVER), BRIEF, known, {})
        planned = planner.plans(0, [4], Told(refined=lines), "")
        ((_, genome),) = planned.plans
        changed = [
            (name, gene)
            for name in genome
            for gene in genome[name]
            if genome[name][gene] != parent[name][gene]
        ]
        assert len(changed) == 1
        differences |= set(changed)
    assert len(differences) > 3


def test_a_request_that_names_methods_is_planned_with_them() -> None:
    request = "Draw with deepcache (interval 3, branch 0) and tgate (gate 0.6)."
    brief = Brief(request, "sd-mini", "", "50 DDIM steps", "")
    planned = Planner(WeakProgrammer(SUBJECT, 2, NEVER), brief, here(), {}).plans(1, [], Told(), "")
    ((found, _),) = planned.plans
    sampler = here().strategies["sampler"].defaults()
    asked = {name: TECHNIQUES[name] for name in ("tgate", "deepcache")}
    assert found.techniques == asked | {"sampler": sampler}


def test_cards_and_list_of_names_are_those_of_the_agent() -> None:
    # What the two readers above rest on; a new layout must be read anew.
    assert knowledge.cards(here(), 2).startswith("### ")
    assert code_of("```python\nimport os\n```") == "import os\n"
