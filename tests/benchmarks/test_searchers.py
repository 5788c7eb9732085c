"""The comparison of searchers on a table small enough to search whole."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from engine.search.space import space
from engine.strategy import registry
from tests.benchmarks import searchers, searchers_report


@pytest.fixture(scope="module")
def table() -> searchers.Table:
    here = space(
        {name: registry()[name] for name in ("sampler", "tome")},
        only={
            "sampler": {"name": ["unipc"], "steps": [5, 10, 20], "spacing": ["trailing"]},
            "tome": {"ratio": [0.3], "max_downsample": [1]},
        },
    )
    speedups = {key: 1.0 + i for i, key in enumerate(here.listing)}
    losses = {key: [0.004 * i, 0.006 * i] for i, key in enumerate(here.listing)}
    return searchers.Table(here, speedups, losses)


def test_a_search_of_everything_finds_the_whole_volume(table: searchers.Table) -> None:
    for variant in ("exhaustive", "random", "genetic"):
        curve = searchers.trace(table, variant, seed=0, exact=False)
        assert len(curve) == searchers.EVALUATIONS
        assert curve == sorted(curve)
        assert curve[-1] == pytest.approx(100)
        assert curve[0] < 100


def test_noise_is_what_a_trial_sees_and_never_what_it_is_judged_by(
    table: searchers.Table,
) -> None:
    genome = list(table.space.listing.values())[-1]
    noisy = searchers.Table(
        table.space, table.speedups, {key: list(np.arange(24.0)) for key in table.losses}
    )
    seen = {noisy.measure(genome, trial, 0, exact=False).loss for trial in range(9)}
    assert len(seen) > 5
    assert noisy.measure(genome, 0, 0, exact=True).loss == 11.5
    assert noisy.true(table.space.key(genome))[1] == 11.5


def test_differences_are_paired_by_seed_and_the_target_is_reached_by_the_mean() -> None:
    base = np.linspace(50, 99, 100)
    curves = {
        "genetic": np.array([base, base + 1]),
        "random": np.array([base - 2, base - 2]),
    }
    found = searchers.summary(curves)
    ahead = found["random"]["genetic_ahead"]["28"]
    assert ahead["points"] == pytest.approx(2.5)
    assert ahead["errors"] == pytest.approx(5.0)
    assert found["genetic"]["reaches"] == 1 + int(np.argmax(base + 0.5 >= 95))
    assert found["genetic"]["of_random"] == found["genetic"]["reaches"] / found["random"]["reaches"]


def test_the_report_has_a_row_and_a_curve_for_each_searcher(tmp_path: Path) -> None:
    base = np.linspace(50, 99, 100)
    curves = {name: np.array([base, base + i]) for i, name in enumerate(searchers.VARIANTS, 1)}
    found = searchers.summary(curves)
    text = searchers_report.markdown(found, "a test")
    assert all(f"| {name} |" in text for name in curves)
    drawing = searchers_report.plot(found, "a test")
    assert drawing.count("<polyline") == len(curves)
    (tmp_path / "docs").mkdir()
    searchers_report.write(found, "a test", tmp_path, synthetic=False, exact=False)
    folder = tmp_path / "tests" / "benchmarks" / "results"
    data = json.loads((folder / "searchers.json").read_text(encoding="utf-8"))
    assert set(data["searchers"]) == set(curves)
    assert (tmp_path / "docs" / "searchers.svg").read_text(encoding="utf-8") == drawing
