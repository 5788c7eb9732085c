"""Which attentions change, what answers them, and what is reported when nothing does."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.nn.functional import scaled_dot_product_attention
from torch.profiler import ProfilerActivity, profile

from strategies import attention

FUSED = "aten::_scaled_dot_product_flash_attention_for_cpu"


@pytest.mark.parametrize("scale", [None, 0.3])
def test_the_plain_form_equals_torch(scale: float | None) -> None:
    draw = torch.Generator().manual_seed(0)
    query = torch.randn(2, 3, 5, 8, generator=draw)
    key, value = (torch.randn(2, 3, 7, 8, generator=draw) for _ in range(2))
    torch.testing.assert_close(
        attention.plain_attention(query, key, value, scale),
        scaled_dot_product_attention(query, key, value, scale=scale),
    )


def test_half_precision_sums_in_float32() -> None:
    draw = torch.Generator().manual_seed(0)
    query, key, value = (torch.randn(1, 2, 512, 16, generator=draw).bfloat16() for _ in range(3))
    truth = scaled_dot_product_attention(query.float(), key.float(), value.float())
    found = attention.plain_attention(query, key, value, None)
    assert found.dtype == torch.bfloat16
    # A softmax that adds 512 weights in bfloat16 would be off by several hundredths.
    assert (found - truth).abs().max() < 0.01


@pytest.mark.parametrize("kernel", ["plain", "math"])
@pytest.mark.parametrize(("where", "left"), [("all", 0), ("cross", 0.5)])
def test_the_fused_kernel_runs_only_where_it_was_left(
    ready: Callable[..., Any], kernel: str, where: str, left: float
) -> None:
    counts = []
    for genome in ({}, {"attention": {"kernel": kernel, "where": where}}):
        made = ready(genome, steps=1)
        embedded = torch.zeros(1, 4, made.pipe.unet.config.cross_attention_dim)
        with torch.no_grad(), profile(activities=[ProfilerActivity.CPU]) as seen:
            made.pipe.unet(torch.zeros(1, 4, 16, 16), 1, embedded)
        counts.append(sum(event.name == FUSED for event in seen.events()))
    before, after = counts
    assert before > 0
    assert after == left * before
    assert made.reasons() == {"attention": None}


def test_tensors_may_come_by_name() -> None:
    state = {"ran": False}
    drawn = torch.randn(3, 1, 2, 5, 8, generator=torch.Generator().manual_seed(0))
    named = dict(zip(("query", "key", "value"), drawn, strict=True))

    def compute() -> Any:
        return scaled_dot_product_attention(**named, attn_mask=None, dropout_p=0.0, scale=None)

    found = attention.with_kernel(compute, "plain", state)()
    torch.testing.assert_close(found, compute())
    assert state["ran"]


def test_a_mask_is_left_to_torch() -> None:
    state = {"ran": False}
    mask = torch.zeros(1, 1, 5, 5)
    query = torch.ones(1, 1, 5, 8)

    def masked() -> Any:
        return scaled_dot_product_attention(query, query, query, attn_mask=mask)

    attention.with_kernel(masked, "plain", state)()
    assert not state["ran"]


def test_the_reference_is_inactive_where_torch_takes_it_anyway(ready: Callable[..., Any]) -> None:
    made = ready({"attention": {"kernel": "math", "where": "all"}}, steps=2)
    made.latents()
    assert made.reasons() == {"attention": None}
    with sdpa_kernel(SDPBackend.MATH):
        assert made.reasons() == {"attention": "torch takes its reference here by itself"}


def test_processors_without_the_function_are_reported(ready: Callable[..., Any]) -> None:
    from diffusers.models.attention_processor import AttnProcessor

    made = ready({"attention": {}}, steps=2)
    made.pipe.unet.set_attn_processor(AttnProcessor())
    made.latents()
    assert "no attention that was to change" in str(made.reasons()["attention"])


def test_a_gate_reuses_what_the_other_form_computed(ready: Callable[..., Any]) -> None:
    both, gated = ready({"attention": {}, "tgate": {}}), ready({"tgate": {}})
    torch.testing.assert_close(both.latents(), gated.latents(), atol=1e-3, rtol=0)
    assert set(both.reasons().values()) == {None}


def test_it_can_be_traced_in_one_graph(ready: Callable[..., Any]) -> None:
    pipe = ready({"attention": {"kernel": "plain", "where": "all"}}).pipe
    embedded = torch.zeros(1, 4, pipe.unet.config.cross_attention_dim)
    given = (torch.ones(1, 4, 16, 16), torch.tensor(1), embedded)
    with torch.no_grad():
        expected = pipe.unet(*given).sample
        traced: Any = torch.compile(pipe.unet, mode="default", dynamic=False, fullgraph=True)
        torch.testing.assert_close(traced(*given).sample, expected)
