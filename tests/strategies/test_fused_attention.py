"""One kernel is allowed inside the denoiser; torch has only ``flash`` on a CPU, so that runs."""

from __future__ import annotations

from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch.nn.attention import SDPBackend, sdpa_kernel

from engine.worker.probe import unmet
from strategies import fused_attention

CPU = SimpleNamespace(device="cpu", dtype="float32")


def test_it_is_refused_on_a_cpu(fresh: Callable[[], Any]) -> None:
    from engine.strategy import find

    reason = unmet(find("fused_attention").needs, fresh(), "unet", "cpu")
    assert reason == "it needs cuda, this runs on cpu"


def drawn(pipe: Any) -> Any:
    fused_attention.reset(pipe)
    embedded = torch.zeros(1, 4, pipe.unet.config.cross_attention_dim)
    with torch.no_grad():
        return pipe.unet(torch.ones(1, 4, 16, 16), 1, embedded).sample


def test_torchs_own_choice_is_reported_as_no_change(fresh: Callable[[], Any]) -> None:
    pipe = fresh()
    fused_attention.apply(pipe, CPU, kernel="flash")
    drawn(pipe)
    assert fused_attention.active(pipe) == "torch takes the kernel flash here by itself"


def test_another_kernel_than_torchs_choice_is_active(fresh: Callable[[], Any]) -> None:
    pipe = fresh()
    fused_attention.apply(pipe, CPU, kernel="flash")
    with sdpa_kernel(SDPBackend.MATH):
        drawn(pipe)
        assert fused_attention.active(pipe) is None


def test_a_kernel_that_cannot_run_is_an_error_and_nothing_else(fresh: Callable[[], Any]) -> None:
    pipe = fresh()
    fused_attention.apply(pipe, CPU, kernel="efficient")
    with pytest.raises(RuntimeError, match="No viable backend"):
        drawn(pipe)


@pytest.mark.parametrize("kernel", ["flash", "cudnn"])
def test_kernels_of_half_precision_refuse_float32(fresh: Callable[[], Any], kernel: str) -> None:
    cuda = SimpleNamespace(device="cuda", dtype="float32")
    with pytest.raises(ValueError, match=f"the {kernel} kernel needs float16 or bfloat16"):
        fused_attention.apply(fresh(), cuda, kernel=kernel)


def test_a_forward_that_was_replaced_is_reported(fresh: Callable[[], Any]) -> None:
    pipe = fresh()
    fused_attention.apply(pipe, CPU, kernel="flash")
    del pipe.unet.forward
    drawn(pipe)
    assert fused_attention.active(pipe) == "the denoiser's forward was replaced"
