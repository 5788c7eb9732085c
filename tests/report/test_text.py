"""Figures and compositions in words."""

from __future__ import annotations

from typing import Any

import pytest

from engine.report import text


@pytest.mark.parametrize(
    ("given", "words"),
    [(4.118, "4.12x"), (9.99, "9.99x"), (9.996, "10.0x"), (12.34, "12.3x"), (None, "\u2013")],
)
def test_speed_ups_have_two_decimals_under_ten(given: float | None, words: str) -> None:
    assert text.ratio(given) == words


@pytest.mark.parametrize(
    ("given", "words"),
    [(0.021, "2.1 %"), (-0.0001, "0.0 %"), (-0.012, "-1.2 %"), (None, "\u2013")],
)
def test_percentages_have_one_decimal_and_no_negative_zero(given: float | None, words: str) -> None:
    assert text.percent(given) == words


@pytest.mark.parametrize(
    ("given", "words"),
    [(0.1270, "0.127"), (0.06568, "0.0657"), (28, "28.0"), (280, "280"), (0, "0")],
)
def test_numbers_keep_three_significant_digits(given: float, words: str) -> None:
    assert text.number(given) == words


def test_flops_and_durations_carry_their_units() -> None:
    assert [text.flops(x) for x in (8.69e9, 4.5e13, None)] == ["8.69 G", "45.0 T", "\u2013"]
    assert [text.duration(x) for x in (42, 483, 11520)] == ["42 s", "8 min 03 s", "3 h 12 min"]


def test_a_genome_is_described_without_knowing_its_techniques() -> None:
    genome: dict[str, dict[str, Any]] = {
        "sampler": {"name": "unipc", "steps": 8},
        "novel": {"share": 0.5, "on": True},
    }
    assert text.describe(genome) == "sampler name=unipc steps=8 · novel share=0.5 on=true"
    assert text.describe({"channels_last": {}}) == "channels_last"
    assert text.describe({}) == "no technique"


def test_a_goal_names_only_the_limits_it_sets() -> None:
    goal = {"max_loss": 0.05, "accuracy_drop": None, "keep_steps": True, "seconds": None}
    assert text.goal_words(goal) == "quality loss at most 5.0 %, the baseline's number of steps"
    assert text.goal_words({}) == "no limit"
