"""The benchmark on the command line, as far as nothing has to be drawn."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from engine.config import from_mapping
from engine.diffbench import app
from engine.diffbench.agents import composed
from engine.diffbench.runner import Run
from tests.conftest import CommandLine


def test_requests_are_exported_without_references_and_tasks_are_listed(
    command_line: CommandLine, tmp_path: Path
) -> None:
    done = command_line("+bench=export", "bench.levels=[1]", "bench.name=mine")
    assert done.returncode == 0, done.stderr
    assert "41 requests" in done.stdout
    path = tmp_path / "outputs" / "bench" / "mine" / "requests.jsonl"
    rows = [json.loads(text) for text in path.read_text(encoding="utf-8").splitlines()]
    assert set(rows[0]) == {"id", "level", "request", "version"}
    listed = command_line("bench=diffbench", "bench.sample=60", "bench.list=true", "bench.name=two")
    assert "60 tasks" in listed.stdout
    assert len((path.parent.parent / "two" / "tasks.jsonl").read_text("utf-8").splitlines()) == 60


def test_each_shard_lists_the_tasks_of_its_own(command_line: CommandLine, tmp_path: Path) -> None:
    listed = []
    for shard in ("1/2", "2/2"):
        choice = ("bench.levels=[1]", f"bench.shard={shard}", "bench.list=true", "bench.name=two")
        assert command_line("bench=diffbench", *choice).returncode == 0
    for file in ("tasks-1of2.jsonl", "tasks-2of2.jsonl"):
        path = tmp_path / "outputs" / "bench" / "two" / file
        listed += [json.loads(line)["id"] for line in path.read_text("utf-8").splitlines()]
    assert sorted(listed) == [f"L1-{number:03d}" for number in range(1, 42)]


def test_what_cannot_be_scored_is_one_line(command_line: CommandLine, tmp_path: Path) -> None:
    (tmp_path / "answers.jsonl").write_text('{"id": "L1-001"}\n', encoding="utf-8")
    for typed, said in (
        (("+bench=score",), "needs bench.submissions=FILE"),
        (("+bench=score", "bench.submissions=answers.jsonl"), "line 1 has no program"),
        (("+bench=diffbench", "bench.labels=none"), "bench.labels=none does not exist"),
        (("+bench=diffbench", "+sweep=ga"), "leave out +sweep="),
        (("+bench=nothing",), "unknown bench 'nothing'"),
        (("+bench=export", "bench.name=../up"), "bench.name='../up' is not a name"),
    ):
        done = command_line(*typed)
        assert done.returncode == 2, typed
        assert said in done.stderr
        assert done.stderr.count("\n") == 1


def test_an_interrupted_run_says_how_to_go_on(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    def struck(self: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(Run, "go", struck)
    typed = ("+bench=diffbench", "bench.contestant=rules", "bench.ids=[L1-002]", "hw=cpu")
    with pytest.raises(KeyboardInterrupt):
        app.run(from_mapping(composed(typed)), tmp_path / "mine", typed)
    said = capsys.readouterr().out
    assert "interrupted; this goes on" in said
    assert "bench.contestant=rules 'bench.ids=[L1-002]'" in said
