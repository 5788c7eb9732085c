"""Paired timing: the order of the arms, fresh pairs, contaminated rounds."""

from __future__ import annotations

import os

import numpy as np
import pytest

from engine.measure import paired
from engine.measure.paired import Pairs, measure
from engine.worker.pool import Answer


class FakeArm:
    """An arm with known seconds that notes what it was asked for."""

    def __init__(self, name: str, seconds: float, book: list[tuple[str, str, int]]) -> None:
        self.name = name
        self.seconds = seconds
        self.book = book
        self.pid = os.getpid()
        self.paused = False

    def generate(self, prompt: str, seed: int) -> Answer:
        assert not self.paused
        self.book.append((self.name, prompt, seed))
        return Answer(np.zeros((1, 1, 3), np.uint8), self.seconds + seed * 1e-12)

    def pause(self) -> None:
        self.paused = True

    def resume(self) -> None:
        self.paused = False


def run(rounds: int, seed: int = 0) -> tuple[paired.Series, list[tuple[str, str, int]]]:
    book: list[tuple[str, str, int]] = []
    base, candidate = FakeArm("base", 2.0, book), FakeArm("candidate", 1.0, book)
    rng = np.random.default_rng(seed)
    pairs = Pairs([f"prompt {i}" for i in range(5)], rng)
    return measure(base, candidate, pairs, rounds, rng, watch_load=False), book


def test_a_round_is_abba_over_two_pairs_in_random_order_of_the_arms() -> None:
    _, book = run(40)
    orders = set()
    for start in range(0, len(book), 4):
        names = [name for name, _, _ in book[start : start + 4]]
        assert names[0] == names[3] != names[1] == names[2]
        asked = [(prompt, seed) for _, prompt, seed in book[start : start + 4]]
        assert asked[0] == asked[1] != asked[2] == asked[3]
        orders.add(names[0])
    assert orders == {"base", "candidate"}


def test_no_arm_sees_a_pair_twice() -> None:
    _, book = run(40)
    assert len(set(book)) == len(book)


def test_both_arms_are_listed_in_the_order_of_the_pairs() -> None:
    series, _ = run(20)
    base = [(t.prompt, t.seed) for t in series.of("base")]
    assert base == [(t.prompt, t.seed) for t in series.of("candidate")]
    assert series.seconds("base") == pytest.approx([2.0] * 40, abs=0.1)
    assert series.seconds("candidate") == pytest.approx([1.0] * 40, abs=0.1)


def test_contaminated_rounds_are_repeated_within_the_budget_and_then_counted(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(paired._OtherLoad, "share", lambda self: 1.0)
    book: list[tuple[str, str, int]] = []
    rng = np.random.default_rng(0)
    prompts = [f"prompt {i}" for i in range(16)]
    arms = FakeArm("base", 2.0, book), FakeArm("candidate", 1.0, book)
    series = measure(*arms, Pairs(prompts, rng), 8, rng)
    assert series.repeated == 2
    assert series.contaminated == 8
    # A repeated round asks for the same prompts, so that none is missing in the end.
    assert [t.prompt for t in series.of("base")] == prompts
    assert len(set(book)) == len(book)


def test_the_same_chance_gives_the_same_rounds() -> None:
    assert run(6, seed=3)[1] == run(6, seed=3)[1]
    assert run(6, seed=3)[1] != run(6, seed=4)[1]
