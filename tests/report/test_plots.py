"""What the drawings compute."""

from __future__ import annotations

import random
import re
from dataclasses import replace
from pathlib import Path
from xml.etree import ElementTree

import pytest

from engine.report import drawing, plots
from engine.report.material import read_study
from tests.report.small_study import FAILED, FRONT, Study


def test_ticks_are_round_and_enclose_the_range() -> None:
    for low, high in ((0.0, 7.3), (0.8, 4.1), (-0.6, 12.0), (0.0, 0.02)):
        found = drawing.ticks(low, high)
        assert found[0] <= low
        assert found[-1] >= high
        assert 3 <= len(found) <= 8


def test_the_gain_is_averaged_over_the_allowed_losses() -> None:
    # 3x at no loss and 5x from half the limit on: the gains are 2 and 4 on one half each.
    assert plots.gain([(3.0, 0.0), (5.0, 0.05)], 0.1) == pytest.approx(3.0)
    assert plots.gain([(3.0, -0.4)], 0.1) == pytest.approx(2.0)
    assert plots.gain([(0.8, 0.0), (9.0, 0.2)], 0.1) == 0.0


def test_gain_and_best_never_fall_from_trial_to_trial(study: Study) -> None:
    found = plots.progress(read_study(study.folder))
    best = [b or 0.0 for b in found.best]
    assert list(found.volume) == sorted(found.volume)
    assert best == sorted(best)
    assert found.volume[-1] > found.volume[0]


def test_best_counts_only_trials_within_the_goal(study: Study) -> None:
    material = read_study(study.folder)
    allowed = [t.speedup for t in material.trials if t.ok and (t.loss or 0) <= 0.05]
    assert plots.progress(material).best[-1] == max(s for s in allowed if s)
    losing = replace(material.trials[9], accuracy=0.8, speedup=99.0)
    assert plots.progress(replace(material, trials=(losing,))).best == (None,)


@pytest.mark.parametrize("size", [drawing.WIDE, drawing.NARROW])
def test_the_front_plot_has_every_measured_trial_within_the_drawing(
    study: Study, size: tuple[int, int]
) -> None:
    svg = plots.front(read_study(study.folder), size, range(12))
    root = ElementTree.fromstring(svg)
    titles = [t.text or "" for t in root.iter("title")]
    for trial in study.trials:
        named = [t for t in titles if t.startswith(f"#{trial.trial}:")]
        assert len(named) == (0 if trial.trial in FAILED else 1)
    assert sum("beyond the scale" in t for t in titles) == 1
    assert svg.count('class="whisker"') == len(FRONT)
    assert svg.count('class="point best"') == 1
    for name, value in re.findall(r' (cx|cy|x1|x2|y1|y2)="([-\d.]+)"', svg):
        assert 0 <= float(value) <= size["y" in name]


def test_the_front_plot_survives_an_empty_study(study: Study, tmp_path: Path) -> None:
    empty = replace(read_study(study.folder), points=(), trials=())
    ElementTree.fromstring(plots.front(empty, drawing.WIDE, ()))
    assert plots.steps((), (), "none", "none", drawing.WIDE) == ""


def test_progress_grows_as_if_it_were_computed_from_all_trials_each_time(study: Study) -> None:
    material = read_study(study.folder)
    rng = random.Random(0)
    trials = tuple(
        replace(
            material.trials[1], trial=i, speedup=rng.uniform(0.8, 5), loss=rng.gauss(0.04, 0.05)
        )
        for i in range(200)
    )
    found = plots.progress(replace(material, trials=trials))
    every = [(t.speedup or 0.0, t.loss or 0.0) for t in trials]
    for count in (1, 17, 200):
        assert found.volume[count - 1] == pytest.approx(plots.gain(every[:count], found.limit))


def test_thousands_of_trials_that_lie_on_each_other_are_drawn_once(study: Study) -> None:
    material = read_study(study.folder)
    rng = random.Random(0)
    trials = tuple(
        replace(material.trials[1], trial=i, speedup=rng.uniform(1, 3), loss=rng.uniform(0, 0.05))
        for i in range(20_000)
    )
    svg = plots.front(replace(material, trials=trials), drawing.WIDE, {5})
    drawn = svg.count('class="trial"')
    assert 100 < drawn < 5000
    others = sum(map(int, re.findall(r"and (\d+) more here", svg)))
    assert drawn + others == 20_000 - len(FRONT)
    assert svg.count("#trial-") <= 1


def test_a_long_line_has_only_its_steps() -> None:
    values = [1.0] * 5000 + [2.0] * 5000
    svg = plots.steps(range(10_000), values, "t", "y", drawing.WIDE)
    (path,) = re.findall(r'class="steps" d="([^"]*)"', svg)
    assert path.count("V") == 1
