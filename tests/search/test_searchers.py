"""Searchers on a made-up table of the real registry."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace

import numpy as np
import pytest

from engine.errors import UsageError
from engine.results import Result
from engine.search import Proposal, searcher
from engine.search.archive import front
from engine.search.paper import Options, Paper
from engine.search.space import space
from engine.strategy import Value, registry
from tests.search.table import best, measure, real_space, study, volume

SEEDS = range(20)


def test_genetic_beats_random_in_volume_and_in_its_best_point() -> None:
    here = real_space()
    ours = [study(searcher("genetic", here, s), here) for s in SEEDS]
    theirs = [study(searcher("random", here, s), here) for s in SEEDS]
    gaps = np.array([volume(a) - volume(b) for a, b in zip(ours, theirs, strict=True)])
    assert gaps.mean() > 3 * gaps.std(ddof=1) / np.sqrt(len(gaps))
    assert (gaps > 0).sum() >= 16
    assert np.mean([best(a) for a in ours]) > 1.2 * np.mean([best(b) for b in theirs])


def test_operators_alone_beat_random_too() -> None:
    here = real_space()
    ours = [volume(study(searcher("genetic", here, s, {"screen": False}), here)) for s in SEEDS]
    theirs = [volume(study(searcher("random", here, s), here)) for s in SEEDS]
    assert np.mean(ours) > np.mean(theirs)


def test_screening_helps() -> None:
    here = real_space()
    ours = [best(study(searcher("genetic", here, s), here)) for s in SEEDS]
    without = [best(study(searcher("genetic", here, s, {"screen": False}), here)) for s in SEEDS]
    assert np.mean(ours) > np.mean(without)


def test_a_time_asked_for_draws_the_genetic_search_as_the_speed_up_that_keeps_it() -> None:
    here = real_space()
    told = [replace(r, seconds_base=0.5) for r in study(searcher("genetic", here, 0), here, 2)]
    target = 1.5 * best(told)
    fast = searcher("genetic", here, 0, speedup=target).ask(7, told, set(), 14)
    assert fast == searcher("genetic", here, 0, seconds=0.5 / target).ask(7, told, set(), 14)
    assert fast != searcher("genetic", here, 0).ask(7, told, set(), 14)


@pytest.mark.parametrize("name", ["genetic", "random", "tpe", "nsga2", "paper"])
def test_asking_again_gives_the_same_and_never_what_is_taken(name: str) -> None:
    here = real_space()
    told = study(searcher(name, here, 3), here, generations=2)
    taken = {r.key for r in told}
    asked = searcher(name, here, 3).ask(7, told, taken, len(told))
    assert asked == searcher(name, here, 3).ask(7, told, taken, len(told))
    assert asked != searcher(name, here, 4).ask(7, told, taken, len(told))
    keys = [here.key(p.genome) for p in asked]
    assert len(set(keys)) == 7
    assert not set(keys) & taken
    assert all(here.legal(p.genome) for p in asked)


@pytest.mark.parametrize("name", ["genetic", "random", "tpe", "nsga2", "paper"])
def test_an_exhausted_space_gives_fewer(name: str) -> None:
    here = space({n: registry()[n] for n in ("channels_last", "tome")})
    told = study(searcher(name, here, 0), here, generations=10, count=5)
    assert len({r.key for r in told}) == here.size() == 43
    assert searcher(name, here, 0).ask(5, told, {r.key for r in told}, 43) == []


def test_the_first_generation_has_combinations_and_singles() -> None:
    asked = searcher("genetic", real_space(), 0).ask(7, [], set(), 0)
    origins = Counter(p.origin for p in asked)
    assert origins == {"seed": 7}
    # All slots at once, but for a guidance stop that T-GATE's gate makes idle.
    assert len(asked[0].genome) >= 5
    # A single stands on the sampler, which is always on.
    assert sum(len(p.genome) <= 2 for p in asked if p.origin == "seed") >= 2


def test_each_mechanism_can_be_switched_off() -> None:
    here = real_space()

    def origins(options: dict[str, object]) -> Counter[str]:
        told = study(searcher("genetic", here, 1, options), here, generations=6)
        return Counter(r.origin for r in told)

    whole = origins({})
    assert set(whole) == {"seed", "mutation"}
    assert set(origins({"seeds": False})) == {"random", "mutation"}
    assert set(origins({"mutation": False})) == {"seed", "random"}


def test_without_ranks_parents_are_drawn_alike() -> None:
    here = real_space()
    told = study(searcher("random", here, 0), here, generations=6)

    def drawn(ranked: bool) -> Counter[int]:
        options = {"ranked": ranked, "screen": False}
        asked = searcher("genetic", here, 0, options).ask(200, told, {r.key for r in told}, 42)
        return Counter(p.parents[0] for p in asked)

    assert max(drawn(False).values()) < 20 < max(drawn(True).values())


def test_a_long_history_breeds_from_its_front_and_its_newest() -> None:
    here = real_space()
    told = study(searcher("random", here, 0), here, generations=1, count=700)
    stars = {r.trial for r in front(told)}
    asked = searcher("genetic", here, 0).ask(50, told, {r.key for r in told}, 700)
    parents = {trial for p in asked for trial in p.parents}
    assert all(trial in stars or trial >= 200 for trial in parents)
    assert parents & stars


def test_injected_results_become_parents() -> None:
    here = real_space()
    recipe = Proposal(
        {"sampler": {"name": "unipc", "steps": 7, "spacing": "trailing"}}, "recipe:best.yaml"
    )
    told: list[Result] = [measure(here, recipe, 0)]
    first = searcher("genetic", here, 0, {"seeds": False}).ask(7, told, {told[0].key}, 1)
    assert {p.parents for p in first if p.parents} == {(0,)}
    seeded = searcher("genetic", here, 0).ask(7, told, {told[0].key}, 1)
    assert seeded[0].origin == "seed"


def test_failed_results_are_no_parents() -> None:
    here = real_space()
    failed = Result(trial=0, genome={"sampler": {}}, key="k", origin="seed", stage="run")
    asked = searcher("genetic", here, 0).ask(7, [failed], {"k"}, 1)
    assert len(asked) == 7
    assert all(not p.parents for p in asked)


@pytest.mark.parametrize(
    ("name", "options", "words"),
    [
        ("genetc", {}, "did you mean genetic"),
        ("genetic", {"screens": True}, "did you mean screen"),
        ("genetic", {"mutation": 2}, "search.mutation is 2; allowed: true or false"),
        ("genetic", {"seeds": 1}, "search.seeds is 1; allowed: true or false"),
        ("paper", {"refined": 0.5}, "allowed: whole numbers"),
        ("random", {"seeds": True}, "no options"),
        ("exhaustive", {}, "would measure .* genomes; allowed: at most 50,000.*search.only"),
        ("tpe", {"startup": -1}, "search.startup is -1; allowed: whole numbers from 0"),
        ("nsga2", {"parents": 1}, "search.parents is 1; allowed: whole numbers from 2"),
        ("paper", {"normalise": "rank"}, "allowed: proportional or softmax"),
        ("paper", {"temperature": 0}, "search.temperature is 0; allowed: from 0.001"),
    ],
)
def test_wrong_names_and_values_are_refused(
    name: str, options: dict[str, object], words: str
) -> None:
    with pytest.raises(UsageError, match=words):
        searcher(name, real_space(), 0, options)


def test_exhaustive_measures_everything_once_in_an_order_of_its_seed() -> None:
    here = space({n: registry()[n] for n in ("channels_last", "tome")})
    told = study(searcher("exhaustive", here, 0), here, generations=20, count=5)
    assert {r.key for r in told} == set(here.listing)
    assert len(told) == here.size() == 43
    again = study(searcher("exhaustive", here, 0), here, generations=2, count=5)
    assert [r.key for r in again] == [r.key for r in told[:10]]
    other = study(searcher("exhaustive", here, 1), here, generations=2, count=5)
    assert [r.key for r in other] != [r.key for r in again]


@pytest.mark.parametrize("name", ["tpe", "nsga2"])
def test_optunas_samplers_learn_from_what_was_told(name: str) -> None:
    here = real_space()
    told = study(searcher("random", here, 0), here, generations=8)
    taken = {r.key for r in told}

    def worth(proposer: str) -> float:
        """Mean speed-up of proposals, of which those beyond the limit count as 0."""
        asked = searcher(proposer, here, 1).ask(40, told, taken, len(told))
        found = [measure(here, p, i) for i, p in enumerate(asked)]
        return float(np.mean([best([r]) for r in found]))

    assert worth(name) > 1.2 * worth("random")


def test_nsga2_breeds_from_injected_results() -> None:
    here = real_space()
    genes: dict[str, Value] = {"name": "unipc", "steps": 7, "spacing": "leading"}
    recipes = [
        measure(here, Proposal({"sampler": genes, "tgate": {"gate": r / 10}}, "recipe"), r)
        for r in range(2, 9)
    ]
    asked = searcher("nsga2", here, 0).ask(20, recipes, {r.key for r in recipes}, 9)
    alike = [p for p in asked if p.genome["sampler"]["name"] == "unipc"]
    assert len(alike) > 10


def test_the_paper_rewrites_m_plans_and_adds_new_ones_without_crossing() -> None:
    here = real_space()
    told = study(searcher("paper", here, 0), here, generations=4)
    assert Counter(r.origin for r in told) == {"random": 7 + 3 * 3, "mutation": 3 * 4}
    assert all(len(r.parents) == (r.origin == "mutation") for r in told)
    more = searcher("paper", here, 0, {"refined": 7}).ask(7, told, {r.key for r in told}, 28)
    assert {p.origin for p in more} == {"mutation"}


def test_the_papers_fitness_decides_which_plans_are_drawn() -> None:
    here = real_space()
    told = study(searcher("random", here, 0), here, generations=4)
    best = max(told, key=Paper(here, 0).fitness)
    cold = Options(normalise="softmax", temperature=0.001, replacement=True)
    asked = Paper(here, 0, cold).ask(7, told, {r.key for r in told}, 28)
    assert {p.parents for p in asked if p.parents} == {(best.trial,)}
    last = Paper(here, 0, Options(pool="last")).ask(7, told, {r.key for r in told}, 28)
    assert all(p.parents[0] >= 21 for p in last if p.parents)
    distinct = [p.parents for p in Paper(here, 0).ask(7, told, {r.key for r in told}, 28)]
    assert len(set(distinct[:4])) == 4
