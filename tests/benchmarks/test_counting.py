"""Wilson's intervals against published and exact values."""

from __future__ import annotations

import math

import pytest

from engine.measure.statistics import wilson
from tests.benchmarks.counting import shown, table


def test_wilson_gives_the_published_values() -> None:
    # Newcombe, Statistics in Medicine 17 (1998), table I, method 3.
    assert wilson(81, 263) == pytest.approx((0.2553, 0.3662), abs=5e-5)
    assert wilson(15, 148) == pytest.approx((0.0624, 0.1605), abs=5e-5)
    assert wilson(0, 20) == pytest.approx((0.0, 0.1611), abs=5e-5)
    assert wilson(1, 29) == pytest.approx((0.0061, 0.1718), abs=5e-5)


def test_it_covers_about_as_often_as_it_says() -> None:
    for share in (0.05, 0.3, 0.59, 0.95):
        tries = 60
        covered = sum(
            math.comb(tries, k) * share**k * (1 - share) ** (tries - k)
            for k in range(tries + 1)
            if wilson(k, tries)[0] <= share <= wilson(k, tries)[1]
        )
        assert 0.92 <= covered <= 0.99


def test_ends_and_nonsense() -> None:
    assert wilson(5, 5)[1] == 1.0
    assert wilson(0, 5)[0] == 0.0
    for hits, tries in ((1, 0), (3, 2), (-1, 4)):
        with pytest.raises(ValueError, match="tries"):
            wilson(hits, tries)


def test_what_is_shown() -> None:
    assert shown(29, 30) == "29/30 (83 to 99 %)"
    assert shown(0, 0) == "0/0"
    assert table(["a", "b"], [[1, 2]]) == "| a | b |\n|---|--:|\n| 1 | 2 |"
