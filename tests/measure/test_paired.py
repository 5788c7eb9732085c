"""Paired timing: the order of the arms, fresh pairs, contaminated rounds."""

from __future__ import annotations

import os

import numpy as np
import pytest

from engine.measure import paired
from engine.measure.paired import Pairs, measure
from engine.requests import Case, Request, Shape
from engine.worker.conversation import Answer

Book = list[tuple[str, Request]]


class FakeArm:
    """An arm with known seconds that notes what it was asked for."""

    def __init__(self, name: str, seconds: float, book: Book) -> None:
        self.name = name
        self.seconds = seconds
        self.book = book
        self.pid = os.getpid()
        self.paused = False

    def generate(self, request: Request) -> Answer:
        assert not self.paused
        self.book.append((self.name, request))
        images = np.zeros((len(request.cases), 1, 1, 3), np.uint8)
        return Answer(images, self.seconds + request.seed * 1e-12)

    def pause(self) -> None:
        self.paused = True

    def resume(self) -> None:
        self.paused = False


def run(rounds: int, seed: int = 0) -> tuple[paired.Series, Book]:
    book: Book = []
    base, candidate = FakeArm("base", 2.0, book), FakeArm("candidate", 1.0, book)
    rng = np.random.default_rng(seed)
    pairs = Pairs([Case(f"prompt {i}") for i in range(5)], rng)
    return measure(base, candidate, pairs, rounds, rng, watch_load=False), book


def test_a_round_is_abba_over_two_pairs_in_random_order_of_the_arms() -> None:
    _, book = run(40)
    orders = set()
    for start in range(0, len(book), 4):
        names = [name for name, _ in book[start : start + 4]]
        assert names[0] == names[3] != names[1] == names[2]
        asked = [request for _, request in book[start : start + 4]]
        assert asked[0] == asked[1] != asked[2] == asked[3]
        orders.add(names[0])
    assert orders == {"base", "candidate"}


def test_no_arm_sees_a_pair_twice() -> None:
    _, book = run(40)
    assert len(set(book)) == len(book)


def test_both_arms_are_listed_in_the_order_of_the_pairs() -> None:
    series, _ = run(20)
    base = [t.request for t in series.of("base")]
    assert base == [t.request for t in series.of("candidate")]
    assert series.seconds("base") == pytest.approx([2.0] * 40, abs=0.1)
    assert series.seconds("candidate") == pytest.approx([1.0] * 40, abs=0.1)


def test_contaminated_rounds_are_repeated_within_the_budget_and_then_counted(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(paired._OtherLoad, "share", lambda self: 1.0)
    book: Book = []
    rng = np.random.default_rng(0)
    cases = [Case(f"prompt {i}") for i in range(16)]
    arms = FakeArm("base", 2.0, book), FakeArm("candidate", 1.0, book)
    series = measure(*arms, Pairs(cases, rng), 8, rng)
    assert series.repeated == 2
    assert series.contaminated == 8
    # A repeated round asks for the same prompts, so that none is missing in the end.
    assert [t.request.cases for t in series.of("base")] == [(case,) for case in cases]
    assert len(set(book)) == len(book)


def test_fixed_pairs_keep_the_pictures_of_a_rounds_first_time(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    shares = iter([1.0, 0.0, 0.0, 0.0])
    monkeypatch.setattr(paired._OtherLoad, "share", lambda self: next(shares))
    monkeypatch.setattr(Pairs, "keeps_pictures", True)
    book: Book = []
    rng = np.random.default_rng(0)
    arms = FakeArm("base", 2.0, book), FakeArm("candidate", 1.0, book)
    series = measure(*arms, Pairs([Case(str(i)) for i in range(4)], rng), 2, rng)
    assert series.repeated == 1
    first, again = [r for _, r in book[:4]], [r for _, r in book[4:8]]
    assert {t.request for t in series.of("base")[:2]} == set(first)
    assert not set(first) & set(again), "what was timed again is fresh"
    known = {round(t.seconds - 2.0, 9) for t in series.of("base")[:2]}
    assert known == {round(r.seed * 1e-12, 9) for r in again}, "the seconds are the last ones"


def test_the_same_chance_gives_the_same_rounds() -> None:
    assert run(6, seed=3)[1] == run(6, seed=3)[1]
    assert run(6, seed=3)[1] != run(6, seed=4)[1]


def test_a_seed_of_the_users_own_is_used_once_and_other_seeds_after() -> None:
    pairs = Pairs([Case("a", seed=7), Case("b")], np.random.default_rng(0))
    first, _, again, _ = pairs.draw(4)
    assert (first.cases[0].prompt, first.seed) == ("a", 7)
    assert again.cases == first.cases
    assert again.seed != 7


def test_requests_take_their_shapes_in_turn_and_as_many_cases_as_the_batch() -> None:
    shapes = [Shape(64, 64, weight=1), Shape(96, 64, batch=3, weight=1)]
    drawn = Pairs([Case(str(i)) for i in range(8)], np.random.default_rng(0), shapes).draw(4)
    assert [r.shape for r in drawn] == [*shapes, *shapes]
    assert [r.prompts for r in drawn] == [["0"], ["1", "2", "3"], ["4"], ["5", "6", "7"]]
