"""Ancestors, what changed on the way, and the drawing of them."""

from __future__ import annotations

import re
from xml.etree import ElementTree

import pytest

from engine.report import drawing, genealogy
from engine.results import Genome, Result
from engine.strategy import Value


def _result(trial: int, genome: Genome, origin: str, parents: tuple[int, ...] = ()) -> Result:
    return Result(trial, genome, f"k{trial}", origin, parents, 1, speedup=1.0 + trial, loss=0.01)


@pytest.fixture
def known() -> dict[int, Result]:
    sampler: dict[str, Value] = {"name": "a", "steps": 10}
    found = [
        _result(0, {"sampler": dict(sampler)}, "seed"),
        _result(1, {"sampler": dict(sampler), "tgate": {"gate": 0.5}}, "study:<b>earlier"),
        _result(2, {"tome": {}}, "random"),
        _result(3, {"sampler": {"name": "a", "steps": 7}, "tome": {}}, "crossover", (0, 2)),
        _result(4, {"sampler": {"name": "a", "steps": 7}}, "mutation", (3,)),
        _result(5, {"sampler": {"name": "a", "steps": 7}, "x": {}}, "crossover", (4, 1, 99)),
    ]
    return {r.trial: r for r in found}


def test_a_family_is_everybody_that_the_composition_came_from(known: dict[int, Result]) -> None:
    found = genealogy.family(known, 5)
    assert [r.trial for r in found.members] == [5, 4, 3, 2, 1, 0]
    assert (found.left_out, found.missing) == (0, ())
    assert genealogy.family(known, 1).members == (known[1],)


def test_lost_parents_are_named_and_later_ones_are_no_parents(known: dict[int, Result]) -> None:
    known[6] = _result(6, {}, "mutation", (6, 7, 5))
    del known[3]
    found = genealogy.family(known, 6)
    assert found.missing == (3,)
    assert [r.trial for r in found.members] == [6, 5, 4, 1]


def test_what_changed_is_said_gene_by_gene(known: dict[int, Result]) -> None:
    words = genealogy.changes(known[1].genome, known[3].genome)
    assert words == ["sampler steps 10 to 7", "+ tome", "without tgate"]
    assert genealogy.changes(known[0].genome, known[0].genome) == []
    assert genealogy.step(known[5], known) == "from #4: + x"
    assert genealogy.step(known[0], known) == "sampler name=a steps=10"


@pytest.mark.parametrize("size", [drawing.WIDE, drawing.NARROW])
def test_the_drawing_has_every_member_a_line_to_each_parent_and_stays_inside(
    known: dict[int, Result], size: drawing.Size
) -> None:
    svg = genealogy.drawing(genealogy.family(known, 5), known, size)
    root = ElementTree.fromstring(svg)
    words = " ".join(root.itertext())
    for trial, origin in ((5, "crossover"), (1, "study:<b>earlier"), (0, "seed")):
        assert f"#{trial} {trial + 1:.2f}x, loss 1.0 % {origin}" in " ".join(words.split())
    assert svg.count('class="descent"') == 5
    height = float(re.findall(r'viewBox="0 0 \d+ (\d+)"', svg)[0])
    for x, y in re.findall(r'cx="([\d.]+)" cy="([\d.]+)"', svg):
        assert 0 < float(x) < size[0] / 2
        assert 0 < float(y) < height


def test_a_line_of_a_thousand_generations_is_cut_with_a_word() -> None:
    chain = {i: _result(i, {}, "mutation", (i - 1,) if i else ()) for i in range(1000)}
    found = genealogy.family(chain, 999)
    assert len(found.members) == genealogy.MOST
    assert found.members[-1].trial == 1000 - genealogy.MOST
    assert found.left_out == 1000 - genealogy.MOST
