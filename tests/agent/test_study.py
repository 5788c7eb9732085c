"""Whole studies whose candidates come from a language model: recorded, replayed, interrupted."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from engine.results import Result
from tests.agent import evolve
from tests.agent.author import Author, plan
from tests.agent.evolve import Compose, configured, essence, searched

PLANS = [
    [
        plan("ten steps", {"sampler": {"steps": 10}}),
        plan("a cache of its own", {"sampler": {"steps": 12}, "deepcache": {"interval": 2}},
             structure="as the package does it"),
    ],
    [
        plan("ten steps again", {"sampler": {"steps": 10}}),
        plan("fewer steps", {"sampler": {"name": "unipc", "steps": 8}}, structure="by hand",
             refines=1),
    ],
]  # fmt: skip
pytestmark = pytest.mark.slow
SMALL = ("agent.plans=3", "agent.generations=2", "agent.tuned=1", "agent.refined=1")


class Recorded:
    """A study by the author, and what it left."""

    def __init__(self, folder: Path, compose: Compose) -> None:
        self.author = Author(PLANS, faulty=[1])
        self.config = configured(compose, folder, *SMALL)
        self.home = evolve.run(self.config, self.author)
        self.results = searched(self.home)

    def by_note(self, note: str) -> Result:
        return next(r for r in self.results.values() if r.note == note)


@pytest.fixture(scope="module")
def recorded(tmp_path_factory: pytest.TempPathFactory) -> Recorded:
    from tests.conftest import composer

    return Recorded(tmp_path_factory.mktemp("agent"), composer)


def test_a_generation_is_the_searchers_share_and_then_the_models(recorded: Recorded) -> None:
    origins = {t: r.origin for t, r in recorded.results.items()}
    assert origins[0] == "seed"
    assert origins[1] == origins[2] == "model"
    assert origins[3] == "mutation"
    assert recorded.by_note("fewer steps").origin == "refined"
    (parent,) = recorded.by_note("fewer steps").parents
    assert parent in (0, 1, 2)
    assert len(recorded.results) == 6


def test_a_plan_without_structure_is_generated_and_one_with_it_is_written(
    recorded: Recorded,
) -> None:
    assert not recorded.by_note("ten steps").untrusted
    own = recorded.by_note("a cache of its own")
    assert own.untrusted
    assert own.ok, own.reason
    assert own.genome["deepcache"]["interval"] == 2
    text = (recorded.home / str(own.program)).read_text(encoding="utf-8")
    assert "DeepCacheSDHelper" in text
    assert [r.role for r in recorded.author.requests].count("coder") == 2


def test_a_missing_import_is_repaired_from_what_really_happened(recorded: Recorded) -> None:
    (asked,) = recorded.author.of("debugger")
    text = asked.messages[-1].text
    assert "Stage: load" in text
    assert "Reason: NameError" in text
    assert "torch" in text.partition("# Program")[0]
    own = recorded.by_note("a cache of its own")
    program = (recorded.home / str(own.program)).read_text(encoding="utf-8")
    assert program.startswith('"""Repaired."""')


def test_a_plan_that_was_measured_is_not_measured_again(recorded: Recorded) -> None:
    assert [r.note for r in recorded.results.values()].count("ten steps again") == 0
    plans = json.loads((recorded.home / "plans.json").read_text(encoding="utf-8"))["plans"]
    outcome = next(p["outcome"] for p in plans if p["title"] == "ten steps again")
    assert "repeats" in outcome


def test_the_second_call_sees_what_the_first_one_led_to(recorded: Recorded) -> None:
    text = recorded.author.of("planner")[1].messages[-1].text
    assert "# Best trials so far" in text
    assert "denoiser calls (baseline 20)" in text
    assert "# To be refined" in text
    assert " ms a call" not in text, "a counted study must not depend on a clock"


def test_titles_and_money_stand_in_files_and_report(recorded: Recorded) -> None:
    proposal = json.loads((recorded.home / "2" / "proposal.json").read_text(encoding="utf-8"))
    assert proposal["note"] == "a cache of its own"
    assert "DeepCacheSDHelper" in proposal["program"]
    spent = json.loads((recorded.home / "spent.json").read_text(encoding="utf-8"))
    assert {row["role"]: row["calls"] for row in spent["rows"]} == {
        "planner": 2, "coder": 2, "debugger": 1,
    }  # fmt: skip
    assert spent["total"]["dollars"] == pytest.approx(0.005)
    page = (recorded.home / "report.html").read_text(encoding="utf-8")
    assert "Language model" in page
    assert "a cache of its own" in page
    assert "repeats a composition" in page


def test_a_recorded_study_is_replayed_to_the_same_plans_programs_costs_and_verdicts(
    recorded: Recorded, tmp_path: Path, composed: Compose
) -> None:
    config = configured(composed, tmp_path, *SMALL, f"llm.folder={recorded.home}", llm="replay")
    folder = evolve.run(config)
    assert essence(folder) == essence(recorded.home)
    spent = json.loads((folder / "spent.json").read_text(encoding="utf-8"))
    assert spent["total"]["replayed"] == 5
    assert spent["total"]["dollars"] == 0


def test_a_finished_study_asks_and_measures_nothing_again(recorded: Recorded) -> None:
    before = essence(recorded.home)
    evolve.run(recorded.config, Author([]))
    assert essence(recorded.home) == before


def test_a_spent_budget_ends_the_search_with_the_best_program_so_far(
    tmp_path: Path, composed: Compose, capsys: pytest.CaptureFixture[str]
) -> None:
    config = configured(composed, tmp_path, *SMALL, "llm.budget.calls=1")
    author = Author(PLANS)
    folder = evolve.run(config, author)
    assert len(author.requests) == 1
    assert (folder / "best" / "accelerated.py").exists()
    assert [r.note for r in searched(folder).values()] == ["", "ten steps"]
    assert "llm.budget.calls=1 is used up" in capsys.readouterr().out
    page = (folder / "report.html").read_text(encoding="utf-8")
    assert "The search ended early" in page
    told = essence(folder)[:2]
    more = configured(composed, tmp_path, *SMALL, "llm.budget.calls=9")
    evolve.run(more, author)
    assert len(searched(folder)) == 6
    assert essence(folder)[: len(told)] == told
    assert len(author.of("planner")) == 2, "the recorded call was paid twice"
