"""What the benchmark of targets shows."""

from __future__ import annotations

from tests.benchmarks.searchers import recorded
from tests.benchmarks.targets import found, markdown


def test_who_is_told_a_hard_target_reaches_it_more_often() -> None:
    (row,) = found(recorded(), 60, shares=(0.97,))
    assert row["told"] > row["untold"] > 0
    assert f"{row['told']} of 60" in markdown([row])
