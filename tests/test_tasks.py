"""Each task through the command line, on tiny pipelines with random weights."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from tests.tiny import ONE, saved

CommandLine = Callable[..., Any]
MODELS = {
    "dit": "dit-mini",
    "sd-img2img": "sd15-img2img",
    "sd-control": "sd-mini-controlnet",
}
SMALL = (
    "+debug=tiny",
    "objective=flops",
    "model.height=64",
    "model.width=64",
    "model.prompts=scenes",
    "model.scorer=mini",
    "model.steps=8",
    "baseline=plain",
    "technique=[sampler]",
    "technique.sampler.steps=5",
)


@pytest.mark.slow
@pytest.mark.parametrize("kind", MODELS)
def test_a_composition_is_measured_on_a_model_of_every_task(
    kind: str, command_line: CommandLine, tmp_path: Path
) -> None:
    folder = saved(kind, tmp_path / "models")
    # A composition's figures are those of random weights; that it ran and was counted is the test.
    done = command_line(f"model={MODELS[kind]}", f"model.weights={folder}", *SMALL)
    assert done.returncode == 0, done.stdout + done.stderr
    (run,) = (tmp_path / "outputs" / "runs").iterdir()
    result = json.loads(next(run.rglob("result.json")).read_text(encoding="utf-8"))
    # Five steps instead of eight; a tiny transformer leaves much of the work to the decoder.
    assert 1.15 < result["speedup"] < 1.7
    assert result["samples"]
    images = sorted((run / "inputs").glob("*.png")) if (run / "inputs").exists() else []
    assert bool(images) == (kind != "dit")
    for image in images:
        assert Image.open(image).size == (64, 64)
    program = next(run.rglob("accelerated.py")).read_text(encoding="utf-8")
    assert ("--class" in program) == (kind == "dit")


@pytest.mark.slow
def test_a_class_that_the_model_lacks_is_one_line(
    command_line: CommandLine, tmp_path: Path
) -> None:
    folder = saved("dit", tmp_path / "models")
    done = command_line(
        "model=dit-mini", f"model.weights={folder}", f"prompt={ONE.replace('circle', 'cirle')}"
    )
    assert done.returncode != 0
    assert "has no class 'a red cirle on a white background'; did you mean" in done.stderr
    assert "Traceback" not in done.stderr
