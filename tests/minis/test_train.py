"""Training: resumable, and its presets and names are checked."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

from engine.minis import loop, train
from engine.minis.loop import Schedule


def test_a_resumed_run_ends_where_an_uninterrupted_one_does(tmp_path: Path) -> None:
    def fresh() -> torch.nn.Linear:
        torch.manual_seed(0)
        return torch.nn.Linear(3, 1)

    def run(module: torch.nn.Linear, checkpoint: Path, stop: int | None = None) -> None:
        def loss_at(step: int) -> torch.Tensor:
            if step == stop:
                raise KeyboardInterrupt
            data = torch.randn(8, 3, generator=torch.Generator().manual_seed(step))
            gap: torch.Tensor = module(data) - data.sum(1, keepdim=True)
            return gap.square().mean()

        schedule = Schedule(steps=20, batch=8, rate=0.1, average=0.9)
        loop.train(module, loss_at, schedule, checkpoint, title="test")

    whole = fresh()
    run(whole, tmp_path / "whole.pt")
    before = loop.SAVE_EVERY_S
    try:
        loop.SAVE_EVERY_S = 0.0
        with pytest.raises(KeyboardInterrupt):
            run(fresh(), tmp_path / "parts.pt", stop=12)
    finally:
        loop.SAVE_EVERY_S = before
    resumed = fresh()
    run(resumed, tmp_path / "parts.pt")
    assert torch.allclose(whole.weight, resumed.weight)


def test_the_rate_warms_up_and_falls_to_zero() -> None:
    schedule = Schedule(steps=1000, batch=1, rate=1.0)
    rates = [schedule.rate_at(step) for step in range(1000)]
    assert rates[0] < 0.02
    assert max(rates) > 0.95
    assert rates[-1] < 0.001


@pytest.mark.slow
def test_the_smallest_preset_writes_a_pipeline_with_its_card(tmp_path: Path) -> None:
    out = tmp_path / "checkpoints" / "sd-mini"
    arguments = ["sd-mini", "preset=smoke", f"out={out}", f"work={tmp_path / 'work'}"]
    assert train.main(arguments) == 0
    assert (out / "model_index.json").exists()
    assert json.loads((out / "card.json").read_text())["pipeline"]["captions"] == 20


@pytest.mark.parametrize("arguments", [[], ["sdxl"], ["sd-mini", "presets=cpu"]])
def test_wrong_arguments_show_the_usage(
    arguments: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    assert train.main(arguments) == 2
    assert "usage:" in capsys.readouterr().err


def test_an_unknown_preset_names_the_presets(capsys: pytest.CaptureFixture[str]) -> None:
    assert train.main(["sd-mini", "preset=tpu"]) == 2
    assert "cpu, gpu, smoke" in capsys.readouterr().err
