"""What may vary, what is pinned, and that samples obey it."""

from __future__ import annotations

import numpy as np
import pytest

from engine.errors import UsageError
from engine.results import Genome
from engine.search.space import space
from engine.strategy import registry
from tests.search.table import KNOWN, real_space


def test_samples_are_legal_and_use_every_technique() -> None:
    here = real_space()
    rng = np.random.default_rng(0)
    seen = [here.sample(rng) for _ in range(200)]
    assert all(here.legal(g) for g in seen)
    assert {name for g in seen for name in g} == set(here.strategies)


def test_the_slot_that_decides_the_steps_is_always_on() -> None:
    here = real_space()
    rng = np.random.default_rng(0)
    assert all("sampler" in here.sample(rng) for _ in range(50))
    assert not here.legal({"deepcache": {}})


def test_pinned_genes_stay_and_the_other_genes_vary() -> None:
    here = real_space(fixed={"sampler": {"steps": 20}})
    rng = np.random.default_rng(0)
    seen = [here.sample(rng)["sampler"] for _ in range(50)]
    assert {genes["steps"] for genes in seen} == {20}
    assert len({genes["name"] for genes in seen}) > 1
    assert not here.legal({"sampler": {"steps": 10}})
    assert here.fitted({"sampler": {"steps": 10}})["sampler"]["steps"] == 20


def test_excluded_techniques_never_occur_and_the_reason_is_given() -> None:
    here = real_space(exclude={"deepcache": "the backbone is a transformer"})
    rng = np.random.default_rng(0)
    assert all("deepcache" not in here.sample(rng) for _ in range(50))
    assert not here.legal({"sampler": {}, "deepcache": {}})
    with pytest.raises(UsageError, match="the backbone is a transformer"):
        real_space(
            exclude={"deepcache": "the backbone is a transformer"},
            fixed={"deepcache": {"interval": 2}},
        )


def test_a_reduced_space_has_the_listed_values_and_techniques_only() -> None:
    here = real_space(only={"sampler": {"steps": [10, 5], "name": ["unipc"]}, "deepcache": {}})
    assert set(here.strategies) == {"sampler", "deepcache"}
    assert list(here.values("sampler", "steps")) == [5, 10]
    rng = np.random.default_rng(0)
    seen = [here.sample(rng) for _ in range(100)]
    assert {g["sampler"]["steps"] for g in seen} == {5, 10}
    assert {g["sampler"]["name"] for g in seen} == {"unipc"}
    assert len({g["deepcache"]["interval"] for g in seen if "deepcache" in g}) == 5
    assert here.size() == len(here.listing) == 4 * (1 + 15)
    assert "tome" in here.excluded


def test_a_reduced_space_may_have_one_value_for_each_gene() -> None:
    here = real_space(only={"sampler": {"name": ["ddim"], "steps": [9], "spacing": ["leading"]}})
    assert list(here.listing.values()) == [
        {"sampler": {"name": "ddim", "steps": 9, "spacing": "leading"}}
    ]


def test_genomes_outside_a_reduced_space_are_illegal_and_move_to_its_nearest_values() -> None:
    here = real_space(only={"sampler": {"steps": [5, 10]}, "tome": {"ratio": [0.33]}})
    outside: Genome = {"sampler": {"steps": 8}, "tome": {"ratio": 0.5}, "deepcache": {}}
    assert not here.legal({"sampler": {"steps": 8}})
    assert here.legal({"sampler": {"steps": 10}, "tome": {"ratio": 0.33}})
    moved = here.fitted(outside)
    assert here.legal(moved)
    assert (moved["sampler"]["steps"], moved["tome"]["ratio"]) == (10, 0.33)
    assert "deepcache" not in moved


@pytest.mark.parametrize(
    ("only", "words"),
    [
        ({"deepcach": {}}, "did you mean deepcache"),
        ({"sampler": {"step": [5]}}, "did you mean steps"),
        ({"sampler": {"steps": [5, 500]}}, "steps is 500; allowed: 3 to 50"),
        ({"sampler": {"steps": []}}, "allowed: a list of values"),
        ({"sampler": {"name": "ddim"}}, "allowed: a list of values"),
    ],
)
def test_illegal_reductions_are_refused(only: dict[str, object], words: str) -> None:
    with pytest.raises(UsageError, match=words):
        real_space(only=only)


def test_pinned_genes_must_agree_with_a_reduced_space() -> None:
    only = {"sampler": {"steps": [5, 10]}}
    here = real_space(only=only, fixed={"sampler": {"steps": 10}})
    assert list(here.values("sampler", "steps")) == [10]
    with pytest.raises(UsageError, match="allows 5, 10: change one"):
        real_space(only=only, fixed={"sampler": {"steps": 8}})
    with pytest.raises(UsageError, match="tome is pinned but cannot be used: not named"):
        real_space(only=only, fixed={"tome": {"ratio": 0.5}})


def test_the_callers_predicate_holds() -> None:
    here = real_space(allowed=lambda g: len(g) <= 2)
    rng = np.random.default_rng(0)
    assert max(len(here.sample(rng)) for _ in range(50)) == 2


def test_the_size_counts_what_enumeration_finds() -> None:
    known = {name: registry()[name] for name in ("deepcache", "channels_last", "guidance")}
    here = space(known)
    # Of 7 starts and 16 stops of guidance, 6 pairs have the start at the stop or behind it.
    assert here.size() == (1 + 15) * 2 * (1 + 7 * 16 - 6) - 1
    assert len({here.key(g) for g in here.genomes()}) == here.size()


def test_an_empty_space_says_so() -> None:
    with pytest.raises(UsageError, match=r"no technique applies; .*tome: no attention"):
        real_space(exclude=dict.fromkeys(KNOWN, "no attention")).sample(np.random.default_rng(0))


def test_unknown_names_are_refused() -> None:
    with pytest.raises(UsageError, match="deepcache"):
        real_space(exclude={"deepcach"})


def test_the_description_tells_spaces_apart() -> None:
    whole = real_space().describe()
    assert whole == real_space().describe()
    assert whole != real_space(exclude={"tome"}).describe()
    assert whole != real_space(fixed={"sampler": {"steps": 20}}).describe()


def test_only_a_reduced_space_describes_its_values() -> None:
    assert "only" not in real_space().describe()
    here = real_space(only={"sampler": {"steps": [5, 10]}})
    assert here.describe()["only"] == {"sampler": {"steps": [5, 10]}}
    assert here.describe() != real_space(only={"sampler": {"steps": [5]}}).describe()
