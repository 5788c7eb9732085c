"""Searchers on a made-up table of the real registry."""

from __future__ import annotations

from collections import Counter

import numpy as np
import pytest

from engine.errors import UsageError
from engine.results import Result
from engine.search import Proposal, searcher
from engine.search.space import space
from engine.strategy import registry
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


@pytest.mark.parametrize("name", ["genetic", "random"])
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


@pytest.mark.parametrize("name", ["genetic", "random"])
def test_an_exhausted_space_gives_fewer(name: str) -> None:
    here = space({n: registry()[n] for n in ("channels_last", "tome")})
    told = study(searcher(name, here, 0), here, generations=10, count=5)
    assert len({r.key for r in told}) == here.size() == 43
    assert searcher(name, here, 0).ask(5, told, {r.key for r in told}, 43) == []


def test_the_first_generation_has_combinations_and_singles() -> None:
    asked = searcher("genetic", real_space(), 0).ask(7, [], set(), 0)
    origins = Counter(p.origin for p in asked)
    assert origins == {"seed": 6, "random": 1}
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
    assert set(whole) == {"seed", "random", "crossover", "mutation", "immigrant"}
    assert "seed" not in origins({"seeds": False})
    assert "crossover" not in origins({"crossover": 0.0})
    assert "immigrant" not in origins({"immigrants": 0, "crossover": 0.5})
    assert "mutation" not in origins({"mutation": 0.0})
    assert set(origins({"mutation": 0.0, "crossover": 0.0})) == {"seed", "random", "immigrant"}


def test_injected_results_become_parents() -> None:
    here = real_space()
    recipe = Proposal({"sampler": {"name": "unipc", "steps": 7, "spacing": "trailing"}}, "recipe")
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
        ("genetic", {"immigrant": 1}, "did you mean immigrants"),
        ("genetic", {"mutation": 2}, "search.mutation is 2; allowed: 0 to 1"),
        ("genetic", {"seeds": 1}, "search.seeds is 1; allowed: true or false"),
        ("genetic", {"immigrants": 0.5}, "allowed: whole numbers"),
        ("random", {"seeds": True}, "no options"),
    ],
)
def test_wrong_names_and_values_are_refused(
    name: str, options: dict[str, object], words: str
) -> None:
    with pytest.raises(UsageError, match=words):
        searcher(name, real_space(), 0, options)
