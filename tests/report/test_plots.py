"""What the drawings compute."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path
from xml.etree import ElementTree

import pytest

from engine.report import plots
from engine.report.material import read_study
from tests.report.small_study import FAILED, FRONT, Study


def test_ticks_are_round_and_enclose_the_range() -> None:
    for low, high in ((0.0, 7.3), (0.8, 4.1), (-0.6, 12.0), (0.0, 0.02)):
        found = plots.ticks(low, high)
        assert found[0] <= low
        assert found[-1] >= high
        assert 3 <= len(found) <= 8


def test_hypervolume_is_the_mean_gain_over_the_allowed_losses() -> None:
    # 3x at no loss and 5x from half the limit on: the gains are 2 and 4 on one half each.
    assert plots.hypervolume([(3.0, 0.0), (5.0, 0.05)], 0.1) == pytest.approx(3.0)
    assert plots.hypervolume([(3.0, -0.4)], 0.1) == pytest.approx(2.0)
    assert plots.hypervolume([(0.8, 0.0), (9.0, 0.2)], 0.1) == 0.0


def test_hypervolume_and_best_never_fall_from_trial_to_trial(study: Study) -> None:
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


@pytest.mark.parametrize("size", [plots.WIDE, plots.NARROW])
def test_the_front_plot_has_every_measured_trial_within_the_drawing(
    study: Study, size: tuple[int, int]
) -> None:
    svg = plots.front(read_study(study.folder), size)
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
    ElementTree.fromstring(plots.front(empty, plots.WIDE))
    assert plots.steps((), (), "none", "none", plots.WIDE) == ""
