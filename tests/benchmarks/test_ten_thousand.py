"""The benchmark of large studies runs, small; its seconds are nobody's business here."""

from __future__ import annotations

from pathlib import Path

from tests.benchmarks.ten_thousand import run, words


def test_a_small_study_goes_through_every_part(tmp_path: Path) -> None:
    record = run(55, tmp_path)
    assert record["trials"] == 55
    assert record["settled"] == [55, 55]
    calls = {what: seconds["calls"] for what, seconds in record["seconds"].items()}
    assert calls["ask"] == calls["read"] == 2
    assert calls["tell"] == calls["claim"] == 55
    assert calls["rebuild after an acceptance"] > 0
    assert (tmp_path / "report.html").exists()
    assert "resume without the database" in words(record)
