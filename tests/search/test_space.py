"""What may vary, what is pinned, and that samples obey it."""

from __future__ import annotations

import numpy as np
import pytest

from engine.errors import UsageError
from engine.search.space import space
from engine.strategy import registry
from tests.search.table import real_space


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


def test_the_callers_predicate_holds() -> None:
    here = real_space(allowed=lambda g: len(g) <= 2)
    rng = np.random.default_rng(0)
    assert max(len(here.sample(rng)) for _ in range(50)) == 2


def test_the_size_counts_what_enumeration_finds() -> None:
    known = {name: registry()[name] for name in ("deepcache", "channels_last", "guidance")}
    here = space(known)
    assert here.size() == (1 + 15) * 2 * (1 + 16) - 1
    assert len({here.key(g) for g in here.genomes()}) == here.size()


def test_an_empty_space_says_so() -> None:
    with pytest.raises(UsageError, match=r"no technique applies; .*tome: no attention"):
        real_space(exclude=dict.fromkeys(registry(), "no attention")).sample(
            np.random.default_rng(0)
        )


def test_unknown_names_are_refused() -> None:
    with pytest.raises(UsageError, match="deepcache"):
        real_space(exclude={"deepcach"})


def test_the_description_tells_spaces_apart() -> None:
    whole = real_space().describe()
    assert whole == real_space().describe()
    assert whole != real_space(exclude={"tome"}).describe()
    assert whole != real_space(fixed={"sampler": {"steps": 20}}).describe()
