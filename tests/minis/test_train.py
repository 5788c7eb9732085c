"""Training: resumable, and its presets and names are checked."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch

from engine.errors import UsageError
from engine.minis import loop, train
from engine.minis.loop import Schedule


@pytest.mark.parametrize("matrices", [0.0, 0.05])
def test_a_resumed_run_ends_where_an_uninterrupted_one_does(
    tmp_path: Path, matrices: float
) -> None:
    def fresh() -> torch.nn.Module:
        torch.manual_seed(0)
        return torch.nn.ModuleDict({"transformer_blocks": torch.nn.ModuleList([_line()])})

    def _line() -> torch.nn.Linear:
        return torch.nn.Linear(3, 2)

    def run(module: Any, checkpoint: Path, stop: int | None = None) -> None:
        def loss_at(step: int) -> torch.Tensor:
            if step == stop:
                raise KeyboardInterrupt
            data = torch.randn(8, 3, generator=torch.Generator().manual_seed(step))
            gap: torch.Tensor = module["transformer_blocks"][0](data) - data.sum(1, keepdim=True)
            return gap.square().mean()

        schedule = Schedule(steps=20, batch=8, rate=0.1, average=0.9, matrices=matrices)
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
    for one, other in zip(whole.parameters(), resumed.parameters(), strict=True):
        assert torch.allclose(one, other)


def test_a_checkpoint_of_an_earlier_version_is_named_and_nothing_is_trained(tmp_path: Path) -> None:
    checkpoint = tmp_path / "denoiser.pt"
    module = torch.nn.Linear(3, 2)
    torch.save({"module": module.state_dict(), "optimizer": {}, "step": 3}, checkpoint)
    schedule = Schedule(steps=5, batch=1, rate=0.1)
    with pytest.raises(UsageError, match=r"denoiser\.pt is of an earlier version; delete it"):
        loop.train(module, lambda step: module.weight.sum(), schedule, checkpoint, title="test")


def test_muon_takes_the_matrices_of_blocks_and_nothing_that_is_frozen() -> None:
    module = torch.nn.ModuleDict(
        {
            "transformer_blocks": torch.nn.Sequential(torch.nn.Linear(3, 3), torch.nn.Linear(3, 3)),
            "out": torch.nn.Linear(3, 3),
        }
    )
    blocks: Any = module["transformer_blocks"]
    blocks[1].requires_grad_(False)
    schedule = Schedule(steps=5, batch=1, rate=0.1, matrices=0.01)
    adam, muon = loop._optimizers(module, schedule)
    assert [v is blocks[0].weight for v in muon.param_groups[0]["params"]] == [True]
    assert len(adam.param_groups[0]["params"]) == 3  # a bias, and both of the last layer
    assert len(loop._optimizers(module, Schedule(steps=5, batch=1, rate=0.1))) == 1


def test_the_rate_warms_up_and_falls_to_zero() -> None:
    schedule = Schedule(steps=1000, batch=1, rate=3.0)
    rates = [schedule.share_at(step) for step in range(1000)]
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
