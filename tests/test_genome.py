"""The canonical form, its key and its spelling as Hydra overrides."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping

import pytest

from engine import genome
from engine.errors import UsageError
from engine.strategy import Gene, Strategy, registry

PLAIN = next(iter(registry().values()))


def made(
    name: str, slot: str, order: int, *genes: Gene, conflicts: tuple[str, ...] = ()
) -> Strategy:
    return dataclasses.replace(
        PLAIN,
        name=name,
        slot=slot,
        order=order,
        conflicts=conflicts,
        genes={g.name: g for g in genes},
        known_good=(),
    )


WORD = Gene("word", "plain", "", choices=("plain", "it's", "a b", "null", "back\\"))
KNOWN: Mapping[str, Strategy] = {
    one.name: one
    for one in (
        made("late", "a", 90, Gene("x", 1.0, "", low=0.5, high=2.0, step=0.5)),
        made("early", "b", 10, Gene("n", 4, "", low=1, high=8, step=1, sets="steps")),
        made("rival", "b", 20),
        made("other", "c", 10, WORD, Gene("on", True, "", choices=(True, False))),
        made("enemy", "d", 30, conflicts=("late",)),
        made("counter", "e", 30, Gene("m", 4, "", low=1, high=8, step=1, sets="steps")),
    )
}


def test_canonical_fills_defaults_and_orders_by_order_then_name() -> None:
    found = genome.canonical({"late": {}, "other": {}, "early": {"n": 3}}, KNOWN)
    assert list(found) == ["early", "other", "late"]
    assert found["early"] == {"n": 3}
    assert found["late"] == {"x": 1.0}


def test_the_key_depends_on_meaning_alone() -> None:
    first = genome.key({"late": {"x": 1}, "early": {"n": 4}}, KNOWN)
    assert first == genome.key({"early": {}, "late": {}}, KNOWN)
    assert first != genome.key({"early": {"n": 5}, "late": {}}, KNOWN)
    assert len(first) == 16
    assert int(first, 16) >= 0


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ({"erly": {}}, ("erly", "early")),
        ({"early": {"nn": 1}}, ("nn", "n")),
        ({"early": {"n": 9}}, ("technique.early.n", "1 to 8")),
        ({"early": {}, "rival": {}}, ("early", "rival", "slot 'b'")),
        ({"late": {}, "enemy": {}}, ("late", "enemy", "exclude")),
        ({"early": {}, "counter": {}}, ("early", "counter", "steps")),
    ],
)
def test_what_is_wrong_is_said_in_one_line(
    given: dict[str, dict[str, object]], words: tuple[str, ...]
) -> None:
    with pytest.raises(UsageError) as error:
        genome.canonical(given, KNOWN)
    assert all(word in str(error.value) for word in words)
    assert "\n" not in str(error.value)


def test_context_fields_are_the_genes_that_set_them() -> None:
    assert genome.context_fields({"early": {"n": 6}, "late": {}}, KNOWN) == {"steps": 6}
    assert genome.context_fields({}, KNOWN) == {}


def test_overrides_are_complete_and_an_empty_genome_gives_an_empty_list() -> None:
    assert genome.overrides({}, KNOWN) == ["technique=[]"]
    assert genome.overrides({"late": {}, "early": {"n": 8}}, KNOWN) == [
        "technique=[early,late]",
        "technique.early.n=8",
        "technique.late.x=1.0",
    ]


@pytest.mark.parametrize("word", WORD.choices)
def test_hydra_reads_back_what_overrides_spell(word: str) -> None:
    from hydra.core.override_parser.overrides_parser import OverridesParser

    lines = genome.overrides({"other": {"word": word, "on": False}}, KNOWN)
    read = {o.key_or_group: o.value() for o in OverridesParser.create().parse_overrides(lines)}
    assert read["technique.other.word"] == word
    assert read["technique.other.on"] is False


def test_from_config_takes_a_composed_node() -> None:
    from omegaconf import OmegaConf

    node = OmegaConf.create({"late": {"x": 2}, "early": {"n": 3}, "rival": None})
    del node["rival"]
    assert genome.from_config(node, KNOWN) == {"early": {"n": 3}, "late": {"x": 2.0}}
    assert genome.from_config({"rival": None}, KNOWN) == {"rival": {}}
    assert genome.from_config(None, KNOWN) == {}
    with pytest.raises(UsageError, match=r"technique\.early is 3"):
        genome.from_config({"early": 3}, KNOWN)


def test_every_registered_strategy_has_a_canonical_default() -> None:
    for name, one in registry().items():
        assert genome.canonical({name: {}}) == {name: one.defaults()}


def test_a_gene_that_must_be_below_another_is_held_to_it() -> None:
    together = {"tgate": {"gate": 0.4}, "guidance": {"stop": 0.6}}
    with pytest.raises(UsageError, match="must be below technique"):
        genome.canonical(together)
    assert genome.canonical({"tgate": {"gate": 0.6}, "guidance": {"stop": 0.4}})
    assert genome.canonical({"guidance": {"stop": 0.6}})


def test_a_range_must_hold_a_whole_step() -> None:
    few = {"sampler": {"steps": 6}}
    assert genome.canonical(few | {"guidance": {"start": 0.0, "stop": 0.2}})
    assert genome.canonical(few | {"guidance": {"start": 0.2, "stop": 0.35}})
    with pytest.raises(UsageError, match=r"guidance\.start=0\.2 must be below technique\.guid"):
        genome.canonical(few | {"guidance": {"start": 0.2, "stop": 0.3}})
    assert genome.canonical({"guidance": {"start": 0.2, "stop": 0.3}})
    with pytest.raises(UsageError, match=r"guidance\.start=0\.3 must be below technique\.guid"):
        genome.canonical({"guidance": {"start": 0.3, "stop": 0.3}})
