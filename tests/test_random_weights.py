"""Runs on random numbers from the command line: they end, and say that no quality was measured."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from engine.config import CONF
from tests.test_architectures import without_weights

SAID = "quality: not measured (model.weights=random are random numbers)"
# A small architecture in place of the published ones, under the name of the miniature.
PROGRAM = """
import pathlib, sys
import engine.architectures, engine.cli
engine.architectures.FOLDER = pathlib.Path(sys.argv.pop(1))
sys.exit(engine.cli.main(sys.argv[1:]))
"""
SMALL = (
    "model=sd-mini",
    "model.weights=random",
    "model.steps=8",
    "objective=flops",
    "baseline=plain",
    "measure.acceptance_prompts=2",
)


def run(folder: Path, *arguments: str) -> str:
    without_weights(folder / "architectures" / "sd-mini")
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM, str(folder / "architectures"), *SMALL, *arguments],
        cwd=folder,
        env=dict(os.environ, PYTHONPATH=str(CONF.parent), OMP_NUM_THREADS="1"),
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    # Lines are wrapped where the terminal would end.
    return " ".join(done.stdout.split())


def test_a_single_run_measures_speed_and_no_quality(tmp_path: Path) -> None:
    said = run(tmp_path, "technique=[sampler]", "technique.sampler.steps=4")
    assert SAID in said
    (folder,) = (tmp_path / "outputs" / "runs").iterdir()
    result = json.loads((folder / "result.json").read_text())
    assert result["speedup"] == pytest.approx(2, rel=0.2)
    for name in ("loss", "accuracy", "accuracy_base", "psnr", "ssim"):
        assert result[name] is None, name
    assert SAID.removeprefix("quality") in (folder / "report.html").read_text()
    program = (folder / "accelerated.py").read_text()
    # It is the program that runs the real weights.
    assert 'MODEL_ID = "sd-mini"' in program.replace("'", '"')
    assert "architectures" not in program


@pytest.mark.slow
def test_a_search_hands_over_its_fastest_point(tmp_path: Path) -> None:
    said = run(tmp_path, "+sweep=ga", "+debug=tiny", "study=s")
    assert said.count(SAID) > 1
    best = tmp_path / "outputs" / "sweeps" / "s" / "best"
    assert SAID in (best / "README.md").read_text()
    front = json.loads((best.parent / "front.json").read_text())["front"]
    assert front[0]["meets_goal"]
    assert front[0]["loss"] is None
