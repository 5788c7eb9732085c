"""The agent's loop on a made-up table of costs: who proposes what, and what each switch does."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from engine.agent import calls, feedback
from engine.agent.brief import Brief
from engine.agent.llm import BudgetSpent, Model, Reply, Request
from engine.agent.record import Record
from engine.agent.replay import Replay
from engine.agent.roles import Coder, Debugger, Planner
from engine.agent.source import AgentSource
from engine.agent.structured import Structured
from engine.agent.workbench import Workbench, specification_of
from engine.agent.writer import Writer
from engine.genome import describe
from engine.program import generate
from engine.results import Genome, Result
from engine.schema import AgentConfig
from engine.search import Proposal, paper, searcher
from tests.agent.author import Author, plan
from tests.search.table import measure, real_space
from tests.test_program import SUBJECT

AGENT = AgentConfig(plans=3, refined=1, tuned=1, repairs=1, rewrites=1)
TEN = plan("ten steps", {"sampler": {"steps": 10}})
EIGHT = plan("eight steps", {"sampler": {"steps": 8}})
SIX = plan("six steps", {"sampler": {"steps": 6}})
GATE = plan("a gate", {"sampler": {"steps": 12}, "tgate": {"gate": 0.6}})
OWN = plan("by hand", {"sampler": {"steps": 12}}, structure="a loop of its own")


@dataclass(frozen=True)
class Ran:
    """What a run of a program would tell, here from its text alone."""

    ok: bool
    stage: str | None = None
    reason: str | None = None
    traceback: str = ""


def ran(program: str) -> Ran:
    if "import torch" in program:
        return Ran(True)
    return Ran(False, "load", "NameError: name 'torch' is not defined", "at 0x7f001122, line 3")


def template(genome: Genome) -> str:
    return generate(SUBJECT, genome, describe(genome))


def source(asker: Model, folder: Path, agent: AgentConfig = AGENT, insights: str = "") -> Any:
    model = Structured(asker)
    space = real_space()
    brief = Brief("", "the model", "", "20 steps", "as fast as possible")

    def asked(plan: Any, genome: Genome) -> Any:
        return specification_of(template(genome), genome, "sd-mini", plan.structure, None)

    return AgentSource(
        agent=agent,
        space=space,
        planner=Planner(model, brief, space, {}, agent.knowledge),
        writer=Writer(
            Coder(model, brief, agent.knowledge),
            Debugger(model, agent.knowledge, agent.memory) if agent.debugger else None,
            Workbench(folder, ran if agent.debugger else None, agent.check),
            template,
            asked,
            agent.repairs,
            agent.rewrites,
            agent.writes == "always",
        ),
        tuner=lambda within: searcher("genetic", within, 0),
        selector=paper.Paper(space, 0, paper.Options(refined=agent.refined)),
        base=feedback.Base(20, None, False),
        goal={"max_loss": 0.05},
        max_loss=0.05,
        memory=False,
        seed=0,
        insights=insights,
        folder=folder,
    )


def told_of(agent: AgentSource, proposals: Sequence[Proposal], first: int) -> list[Result]:
    found = []
    for trial, proposal in enumerate(proposals, first):
        result = measure(agent.space, proposal, trial)
        found.append(dataclasses.replace(result, key=proposal.key, note=proposal.note))
    return found


def generations(agent: AgentSource, count: int, plans: int = 3) -> list[list[Proposal]]:
    """So many calls, each told what the earlier ones led to."""
    told: list[Result] = []
    found = []
    for _ in range(count):
        asked = agent.ask(plans, told, {r.key for r in told}, len(told))
        told += told_of(agent, asked, len(told))
        found.append(asked)
    return found


def outcomes(folder: Path) -> dict[str, str]:
    rows = json.loads((folder / "plans.json").read_text(encoding="utf-8"))["plans"]
    return {row["title"]: row["outcome"] for row in rows}


def test_the_searcher_tunes_the_structures_that_the_model_chose(tmp_path: Path) -> None:
    author = Author([[TEN, GATE], [EIGHT, SIX | {"refines": 1}]])
    first, second = generations(source(author, tmp_path), 2)
    assert [p.origin for p in first] == ["seed", "model", "model"]
    assert second[0].origin == "mutation"
    assert frozenset(second[0].genome) in {frozenset(p.genome) for p in first}


def test_without_tuning_the_model_makes_every_candidate(tmp_path: Path) -> None:
    author = Author([[TEN, GATE, EIGHT]])
    (asked,) = generations(source(author, tmp_path, dataclasses.replace(AGENT, tuning=False)), 1)
    assert [p.note for p in asked] == ["ten steps", "a gate", "eight steps"]


def test_without_the_selector_no_measurement_is_fed_back(tmp_path: Path) -> None:
    author = Author([[TEN, GATE, EIGHT], [SIX]])
    agent = dataclasses.replace(AGENT, selector=False)
    _, second = generations(source(author, tmp_path, agent), 2)
    text = author.of("planner")[1].messages[-1].text
    assert "Best trials" not in text
    assert "To be refined" not in text
    assert "with 3 plans: 3 new" in text
    assert second[0].note == "six steps"


def test_memory_brings_insights_of_earlier_studies_to_the_planner(tmp_path: Path) -> None:
    author = Author([[TEN, GATE]])
    generations(source(author, tmp_path, AGENT, "- tome on: speed 0.98x (4 trials)"), 1)
    assert "tome on: speed 0.98x" in author.of("planner")[0].messages[-1].text


def test_parents_of_the_paper_are_drawn_by_fitness_and_refined_one_by_one(tmp_path: Path) -> None:
    agent = AgentConfig(name="paper", plans=4, refined=2, tuning=False, check=False)
    author = Author([[TEN, GATE, EIGHT, SIX], [TEN | {"refines": 0}]])
    _, second = generations(source(author, tmp_path, agent), 2, 4)
    text = author.of("planner")[1].messages[-1].text
    assert "with 4 plans: 2 refined, one for each of #" in text
    assert "and 2 new" in text
    assert second == [] or second[0].origin == "refined"


def test_a_broken_program_is_repaired_and_the_repair_is_submitted(tmp_path: Path) -> None:
    author = Author([[OWN, TEN]], faulty=[1])
    (asked,) = generations(source(author, tmp_path), 1)
    own = next(p for p in asked if p.note == "by hand")
    assert own.program is not None
    assert "import torch" in own.program
    text = author.of("debugger")[0].messages[-1].text
    assert "Stage: load" in text
    assert "0x7f001122" not in text
    rows = json.loads((tmp_path / "plans.json").read_text(encoding="utf-8"))["plans"]
    history = next(row["history"] for row in rows if row["title"] == "by hand")
    assert [e["what"] for e in history] == ["wrote", "failed", "repaired"]


def test_without_the_debugger_a_broken_program_is_submitted_as_it_is(tmp_path: Path) -> None:
    author = Author([[OWN, TEN]], faulty=[1])
    agent = dataclasses.replace(AGENT, debugger=False)
    (asked,) = generations(source(author, tmp_path, agent), 1)
    own = next(p for p in asked if p.note == "by hand")
    assert own.program is not None
    assert "import torch" not in own.program
    assert author.of("debugger") == []


class Wrong(Author):
    """Writes another number of steps than the plan says, and repairs nothing."""

    def complete(self, request: Request) -> Reply:
        reply = super().complete(request)
        if request.role == "planner":
            return reply
        return dataclasses.replace(reply, text=reply.text.replace("STEPS = 12", "STEPS = 50"))


def test_a_program_that_says_something_else_than_its_plan_goes_back(tmp_path: Path) -> None:
    author = Wrong([[OWN, TEN], [EIGHT]])
    (asked,) = generations(source(author, tmp_path), 1)
    text = author.of("debugger")[0].messages[-1].text
    assert "Stage: specification" in text
    assert "steps: asked 12, found 50" in text
    assert len(author.of("coder")) == 2, "the coder starts again once, as rewrites says"
    assert outcomes(tmp_path)["by hand"].startswith("failed at specification")
    replanned = author.of("planner")[1].messages[-1].text
    assert "could not be turned into working programs" in replanned
    assert [p.note for p in asked] == ["", "ten steps", "eight steps"]


def test_without_the_check_such_a_program_is_submitted(tmp_path: Path) -> None:
    author = Wrong([[OWN, TEN]])
    agent = dataclasses.replace(AGENT, check=False)
    (asked,) = generations(source(author, tmp_path, agent), 1)
    own = next(p for p in asked if p.note == "by hand")
    assert own.program is not None
    assert "STEPS = 50" in own.program


def test_a_written_program_that_does_what_another_does_is_not_measured(tmp_path: Path) -> None:
    author = Author([[OWN, OWN | {"title": "the same by hand"}]])
    (asked,) = generations(source(author, tmp_path), 1)
    assert [p.note for p in asked].count("the same by hand") == 0
    assert "does what trial" in outcomes(tmp_path)["the same by hand"]
    assert len(asked) == 3, "the searcher fills the place"


def test_always_writes_programs_that_a_genome_says_whole(tmp_path: Path) -> None:
    author = Author([[TEN, EIGHT]])
    agent = dataclasses.replace(AGENT, writes="always")
    (asked,) = generations(source(author, tmp_path, agent), 1)
    assert [p.program is None for p in asked] == [True, False, False]
    assert len(author.of("coder")) == 2


class Poor(Author):
    """Can pay for so many calls."""

    def __init__(self, plans: Sequence[list[dict[str, Any]]], calls: int) -> None:
        super().__init__(plans)
        self.left = calls

    def complete(self, request: Request) -> Reply:
        if self.left == 0:
            raise BudgetSpent("calls", "llm.budget.calls=1 is used up (1)")
        self.left -= 1
        return super().complete(request)


def test_what_was_made_before_the_budget_was_spent_is_proposed(tmp_path: Path) -> None:
    agent = source(Poor([[TEN, OWN]], 1), tmp_path)
    asked = agent.ask(3, [], set(), 0)
    assert [p.note for p in asked] == ["", "ten steps"]
    assert agent.ended == "llm.budget.calls=1 is used up (1)"
    assert agent.ask(3, told_of(agent, asked, 0), set(), 3) == []


def test_asking_again_gives_the_same_proposals_and_runs_nothing_twice(tmp_path: Path) -> None:
    plans = [[OWN, TEN], [EIGHT, SIX]]
    first = generations(source(Author(plans, faulty=[1]), tmp_path), 2)
    lines = (tmp_path / "attempts.jsonl").read_text(encoding="utf-8")
    assert lines.count("\n") == 2
    with (tmp_path / "attempts.jsonl").open("a", encoding="utf-8") as file:
        file.write('{"program": "cut off by a ki')
    second = generations(source(Author(plans, faulty=[1]), tmp_path), 2)
    assert second == first
    assert (tmp_path / "attempts.jsonl").read_text(encoding="utf-8").startswith(lines)


def test_a_recording_gives_the_same_proposals_elsewhere_and_asks_nobody(tmp_path: Path) -> None:
    plans = [[OWN, TEN], [EIGHT, SIX | {"refines": 0}]]
    here, there = tmp_path / "here", tmp_path / "there"
    author = Author(plans, faulty=[1])
    first = generations(source(Record(author, here / calls.FILE, {}), here), 2)
    second = generations(source(Replay(here), there), 2)
    assert second == first
    assert outcomes(there) == outcomes(here)
    assert len(author.requests) == len(calls.read(here / calls.FILE)) == 4
    again = generations(source(Record(Author([]), here / calls.FILE, {}), here), 2)
    assert again == first


@pytest.mark.parametrize("count", [1, 2])
def test_the_model_has_a_place_in_the_smallest_generation(count: int, tmp_path: Path) -> None:
    asked = source(Author([[TEN]]), tmp_path).ask(count, [], set(), 0)
    assert [p.origin for p in asked] == ["seed", "model"][-count:]
