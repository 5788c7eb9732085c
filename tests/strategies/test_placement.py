"""Offloading hooks, put on for real with the CPU in the place of the accelerator."""

from __future__ import annotations

from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from engine.program import generate
from strategies import placement
from tests.test_program import SUBJECT, loaded

Ready = Callable[..., Any]
MODES = ("model", "group_block", "group_leaf", "sequential")
# Running it needs an accelerator: on a CPU accelerate loses track of weights that nobody moved.
HERE = ("model", "group_block", "group_leaf")


@pytest.mark.parametrize("mode", HERE)
@pytest.mark.parametrize("others", [{}, {"deepcache": {}, "tgate": {}, "tome": {}}], ids="+".join)
def test_hooked_pipelines_draw_the_same_picture(
    ready: Ready, mode: str, others: dict[str, Any]
) -> None:
    expected = ready(others, steps=4).latents()
    made = ready({**others, "placement": {"mode": mode}}, steps=4)
    assert torch.equal(made.latents(), expected)
    # The next image starts with hooks that have been put on afresh.
    assert torch.equal(made.latents(), expected)
    assert set(made.reasons().values()) == {None}


def test_sequential_takes_every_weight_of_the_denoiser_off(ready: Ready) -> None:
    made = ready({"placement": {"mode": "sequential"}})
    assert {p.device.type for p in made.pipe.unet.parameters()} == {"meta"}
    assert made.reasons() == {"placement": None}


def test_without_hooks_it_is_not_active(ready: Ready) -> None:
    made = ready({"placement": {}})
    made.pipe.remove_all_hooks()
    assert "no module of the denoiser is hooked" in str(made.reasons()["placement"])


def test_weights_that_stay_on_the_device_are_reported(ready: Ready) -> None:
    made = ready({"placement": {"mode": "sequential"}})
    made.pipe._placement_state["device"] = "meta"
    assert "all weights of the denoiser stayed on meta" in str(made.reasons()["placement"])


def test_groups_are_fetched_ahead_only_where_no_layer_is_skipped(ready: Ready) -> None:
    cuda = torch.device("cuda")
    assert placement.looks_ahead(ready({}).pipe, cuda)
    assert not placement.looks_ahead(ready({"tgate": {}}).pipe, cuda)
    assert not placement.looks_ahead(ready({}).pipe, torch.device("cpu"))


@pytest.mark.parametrize("mode", MODES)
def test_a_program_places_instead_of_moving(mode: str) -> None:
    text = generate(SUBJECT, {"placement": {"mode": mode}}, "test")
    assert f"pipe = placement_place(pipe, CTX, mode={mode!r})" in text
    assert "pipe.to(" not in text
    program = loaded(text)
    called: list[str] = []
    unet = torch.nn.Linear(1, 1)
    pipe = SimpleNamespace(
        unet=unet,
        enable_model_cpu_offload=lambda device: called.append("model"),
        enable_sequential_cpu_offload=lambda device: called.append("sequential"),
        enable_group_offload=lambda **options: called.append(options["offload_type"]),
    )
    assert program["accelerate"](pipe) is pipe
    assert called == [f"{mode.removeprefix('group_')}_level" if "group" in mode else mode]


@pytest.mark.gpu
@pytest.mark.parametrize("mode", MODES)
def test_on_a_gpu_the_weights_leave_after_the_image(fresh: Callable[[], Any], mode: str) -> None:
    pipe = fresh()
    pipe = placement.place(pipe, SimpleNamespace(device="cuda"), mode=mode)
    pipe("a red circle on a white background", num_inference_steps=2)
    assert placement.active(pipe) is None
