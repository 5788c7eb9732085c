"""A trained U-Net guides a transformer's hidden tokens."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from engine.minis import pipelines, tasks
from engine.minis.alignment import Alignment
from engine.minis.stages import Place
from engine.minis.tasks import Task
from engine.minis.train import CHECKPOINTS

CAPTIONS = ["a red circle on a white background", "a blue ring on a black background"]


@pytest.fixture(scope="module")
def task(tmp_path_factory: pytest.TempPathFactory) -> Task:
    place = Place("cpu", False, tmp_path_factory.mktemp("work"))
    torch.manual_seed(0)
    shared = tasks.load_shared(CHECKPOINTS, place)
    return tasks.build("pixart-mini", shared, [], CAPTIONS, place, CHECKPOINTS)


def test_the_guide_is_asked_at_the_same_noise_on_its_own_schedule() -> None:
    kept = pipelines.build_scheduler("pixart-mini").alphas_cumprod
    theirs = pipelines.build_scheduler("sdxl-mini").alphas_cumprod
    asked: list[torch.Tensor] = []
    transformer: Any = pipelines.build_denoiser("pixart-mini")
    unet: Any = pipelines.build_denoiser("sdxl-mini")

    def guide(noisy: torch.Tensor, times: torch.Tensor, rows: Any) -> None:
        asked.append(times)
        raise StopIteration

    alignment = Alignment(transformer, unet, guide, kept, theirs)
    times = torch.tensor([20, 200, 500, 700])
    with pytest.raises(StopIteration):
        alignment.loss(torch.randn(4, 4, 16, 16), times, {})
    assert torch.allclose(theirs[asked[0]], kept[times], atol=0.01)
    assert not torch.equal(asked[0], times)


def test_alignment_reaches_the_first_blocks_and_trains_neither_guide_nor_text_encoder(
    task: Task,
) -> None:
    rows = {name: values[[1, 2]] for name, values in task.table.items()}
    noisy, times = torch.randn(2, 4, 16, 16), torch.tensor([100, 600])
    transformer: Any = task.module["transformer"]
    optimizer = torch.optim.Adam(task.module.parameters(), lr=3e-3)
    losses = []
    assert task.extra_loss is not None
    for _ in range(30):
        task.predict(noisy, times, rows)
        loss = task.extra_loss(noisy, times, rows)
        optimizer.zero_grad(set_to_none=True)
        torch.autograd.backward(loss)
        optimizer.step()
        losses.append(loss.item())
    assert losses[-1] < 0.5 * losses[0]
    assert transformer.transformer_blocks[0].attn1.to_q.weight.grad.any()
    assert all(value.grad is None for value in task.module["text_encoder"].parameters())
    assert transformer.proj_out.weight.grad is None  # not on the way to a hidden token


def test_nothing_of_the_guide_is_part_of_the_pipeline(task: Task, tmp_path: Path) -> None:
    pipeline = pipelines.assemble("pixart-mini", task.parts(task.module))
    assert set(pipeline.components) == {
        "vae",
        "tokenizer",
        "text_encoder",
        "transformer",
        "scheduler",
    }
    pipeline.transformer.save_pretrained(tmp_path)
    names = pipeline.transformer.state_dict()
    assert not any("head" in name for name in names)
