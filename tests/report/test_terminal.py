"""The result on the console."""

from __future__ import annotations

import io
from typing import Any

import pytest
from rich.console import Console

from engine.report import front_table, summary_line
from tests.report.small_study import FRONT, Study


def test_the_sentence_names_the_fastest_point_within_the_goal(study: Study) -> None:
    assert summary_line(study.study, study.front) == (
        "3.96x (3.80 to 4.16) faster than DPM-Solver++ 2M, 20 steps, at 2.8 % quality loss, "
        "on the miniature sd-mini."
    )


def test_the_sentence_names_the_point_that_the_study_hands_over(study: Study) -> None:
    rows = [entry | {"recommended": False} for entry in study.front["front"]]
    rows[-1]["recommended"] = True
    sentence = summary_line(study.study, {"front": rows})
    assert sentence.startswith(f"{rows[-1]['speedup']:.2f}x (")


def test_the_sentence_admits_that_nothing_met_the_goal(study: Study) -> None:
    rows = [entry | {"meets_goal": False} for entry in study.front["front"]]
    words = summary_line(study.study, {"front": rows})
    assert words.startswith("Nothing met the goal (quality loss at most 5.0 %")
    assert "4.72x" in words
    assert summary_line(study.study, {"front": []}).startswith("No result: 12")


@pytest.mark.parametrize(
    ("figures", "words"),
    [
        ({"speedup": 0.9, "speedup_low": 0.85, "speedup_high": 0.95}, "so nothing is gained"),
        ({"speedup": 1.02, "speedup_low": 0.97, "speedup_high": 1.07}, "so a gain is not shown"),
        ({"loss": None}, "quality: not measured"),
    ],
)
def test_the_sentence_is_honest_about_small_gains(
    study: Study, figures: dict[str, Any], words: str
) -> None:
    entry = study.front["front"][1] | figures
    assert words in summary_line(study.study, {"front": [entry]})


def test_the_sentence_says_why_quality_was_not_measured(study: Study) -> None:
    front = {"front": [study.front["front"][1] | {"loss": None}]}
    why = study.study | {"unmeasured": "model.weights=random are random numbers"}
    words = "quality: not measured (model.weights=random are random numbers)"
    assert words in summary_line(why, front)
    unscored = study.study | {"model": {"name": "sd15", "scorer": None}}
    assert "quality: not measured (the model names no scorer)" in summary_line(unscored, front)


def test_the_sentence_says_when_timings_are_void_or_not_timings(study: Study) -> None:
    void = study.study | {"control": {"low": 0.8, "high": 1.3, "ok": False, "word": "noisy"}}
    assert "timings are void" in summary_line(void, study.front)
    counted = summary_line(void | {"objective": "flops"}, study.front)
    assert "fewer operations than" in counted
    assert "void" not in counted


def test_the_table_fits_eighty_columns_and_prints_markup_as_it_is(study: Study) -> None:
    rows = [*study.front["front"]]
    rows[0] = rows[0] | {"genome": {"sampler": {"name": "[red]odd[/red]"}}}
    stream = io.StringIO()
    Console(file=stream, width=80, color_system=None).print(front_table({"front": rows}))
    lines = stream.getvalue().splitlines()
    assert max(map(len, lines)) <= 80
    assert "[red]odd[/red]" in stream.getvalue()
    for trial in FRONT:
        assert any(f" {trial} " in line for line in lines)
    assert "4.72x (4.53 to 4.96)" in stream.getvalue()


def test_a_start_that_costs_is_in_the_table(study: Study) -> None:
    costs = {"first_call_s": 41.5, "break_even": 120.3}
    rows = [entry | costs for entry in study.front["front"]]
    stream = io.StringIO()
    Console(file=stream, width=80, color_system=None).print(front_table({"front": rows}))
    assert max(map(len, stream.getvalue().splitlines())) <= 80
    assert "41.5 s" in stream.getvalue()
    assert "121 images" in stream.getvalue()
    assert "(4.53 to 4.96)" in stream.getvalue()


def test_the_sentence_names_fidelity_where_it_is_the_quality(study: Study) -> None:
    same = study.study | {"goal": {"max_loss": 0.05, "quality": "same_image"}}
    assert "at 2.8 % fidelity loss" in summary_line(same, study.front)
    rows = [entry | {"meets_goal": False} for entry in study.front["front"]]
    assert "(fidelity loss at most 5.0 %)" in summary_line(same, {"front": rows})
