"""A whole study by the command line, with the weak programmer behind a real HTTP server."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from engine.config import CONF
from engine.worker.sandbox import probe
from tests.agent.weak import Rates
from tests.agent.weak_server import programming
from tests.conftest import CommandLine

FOUND = probe()
needs_sandbox = pytest.mark.skipif(not FOUND.ok, reason=f"no sandbox here: {FOUND.cause}")
ROOT = CONF.parent
STUDY = (
    "+sweep=ga", "study=weak", "objective=flops", "llm=openai", "llm.model=weak",
    "agent.plans=3", "agent.generations=2", "agent.writes=always", "agent.tuned=1",
    "search.start=[]", "search.only={sampler:{steps:[5,8,10]},deepcache:{},tome:{},tgate:{}}",
    "measure.search_prompts=2", "measure.scored_prompts=0", "measure.acceptance_prompts=2",
    "measure.control_prompts=2",
)  # fmt: skip


class Study:
    """The command in a folder of its own; its output goes to a file."""

    def __init__(self, folder: Path, url: str) -> None:
        self.folder = folder
        self.command = [sys.executable, "-m", "engine", *STUDY, f"llm.base_url={url}"]

    @property
    def calls(self) -> list[dict[str, Any]]:
        """What is recorded whole."""
        path = self.folder / "outputs" / "sweeps" / "weak" / "calls.jsonl"
        if not path.exists():
            return []
        text = path.read_text(encoding="utf-8")
        return [json.loads(line) for line in text.splitlines(keepends=True) if line[-1:] == "\n"]

    def start(self) -> subprocess.Popen[bytes]:
        environment = dict(
            os.environ, PYTHONPATH=str(ROOT), OMP_NUM_THREADS="1", OPENAI_API_KEY="sk-test-of-ours"
        )
        with (self.folder / "output.txt").open("ab") as out:
            return subprocess.Popen(
                self.command, cwd=self.folder, env=environment, stdout=out, stderr=out,
                start_new_session=True,
            )  # fmt: skip

    @property
    def output(self) -> str:
        return (self.folder / "output.txt").read_text(encoding="utf-8")


def test_a_missing_key_ends_a_study_before_anything_is_measured(
    command_line: CommandLine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("OPENAI_API_KEY", raising=False)
    done = command_line("+sweep=ga", "study=keyless", "llm=openai")
    assert done.returncode == 2
    assert "OPENAI_API_KEY" in done.stderr
    assert not (tmp_path / "outputs" / "sweeps" / "keyless" / "baseline").exists()


@pytest.mark.slow
@needs_sandbox
def test_a_killed_study_goes_on_and_repeats_no_recorded_call(tmp_path: Path) -> None:
    with programming(seed=3, rates=Rates(faulty=0.8)) as (script, programmer):
        study = Study(tmp_path, script.url)
        process = study.start()
        deadline = time.monotonic() + 420
        while len(study.calls) < 5:
            assert process.poll() is None, study.output
            assert time.monotonic() < deadline, study.output
            time.sleep(0.2)
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()
        kept, sent = study.calls, len(script.seen)
        # A call that was under way when the study was killed is not recorded and is asked again.
        assert sent - len(kept) in (0, 1)
        again = study.start()
        status = again.wait(timeout=600)
        calls = study.calls
    assert status in (0, 1), study.output
    assert calls[: len(kept)] == kept
    assert len(script.seen) - len(calls) == sent - len(kept)
    assert script.surplus == 0
    sweeps = tmp_path / "outputs" / "sweeps" / "weak"
    assert json.loads((sweeps / "front.json").read_text(encoding="utf-8"))["front"] is not None
    assert programmer.diary.injected
    # The key stands in nothing that the study has written.
    for path in sweeps.rglob("*"):
        if path.is_file():
            assert b"sk-test-of-ours" not in path.read_bytes(), path
