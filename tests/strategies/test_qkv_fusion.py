"""Joined projections: same sums, no second copy of the weights, first in the line."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch

from strategies import qkv_fusion


def weights(pipe: Any) -> int:
    return sum(p.numel() for part in (pipe.unet, pipe.vae) for p in part.parameters())


def test_pictures_agree_and_memory_stays(
    ready: Callable[..., Any], fresh: Callable[[], Any]
) -> None:
    made = ready({"qkv_fusion": {}}, steps=3)
    plain = ready({}, steps=3)
    images = [each.latents(output_type="pt") for each in (made, plain)]
    torch.testing.assert_close(*images, atol=1e-4, rtol=0)
    assert weights(made.pipe) == weights(plain.pipe)
    assert made.reasons() == {"qkv_fusion": None}


def test_autoencoder_and_denoiser_are_both_joined(ready: Callable[..., Any]) -> None:
    pipe = ready({"qkv_fusion": {}}).pipe
    for part in (pipe.unet, pipe.vae):
        names = [name for name, _ in part.named_modules()]
        assert any(name.endswith("to_qkv") for name in names)
        assert not any(name.endswith("to_k") for name in names)
    assert any(name.endswith("to_kv") for name, _ in pipe.unet.named_modules())


def test_a_plain_denoiser_counts_as_inactive(fresh: Callable[[], Any]) -> None:
    assert "have separate projections" in str(qkv_fusion.active(fresh()))


def test_another_processor_is_reported(ready: Callable[..., Any]) -> None:
    from diffusers.models.attention_processor import AttnProcessor2_0

    made = ready({"qkv_fusion": {}})
    made.pipe.unet.set_attn_processor(AttnProcessor2_0())
    assert "AttnProcessor2_0 took the place" in str(made.reasons()["qkv_fusion"])


@pytest.mark.parametrize(
    "others",
    [
        {"tgate": {}},
        {"tome": {}},
        {"deepcache": {}},
        {"attention": {"kernel": "plain", "where": "all"}},
        {"attention": {"kernel": "math", "where": "cross"}, "tgate": {}},
    ],
    ids="+".join,
)
def test_what_comes_later_draws_as_without_it(
    ready: Callable[..., Any], others: dict[str, Any]
) -> None:
    joined, apart = ready({"qkv_fusion": {}, **others}), ready(others)
    torch.testing.assert_close(joined.latents(), apart.latents(), atol=2e-3, rtol=0)
    assert set(joined.reasons().values()) == {None}


def test_quantization_rounds_the_joined_layers(ready: Callable[..., Any]) -> None:
    made = ready({"qkv_fusion": {}, "dynamic_int8": {"layers": "attention"}}, steps=2)
    assert torch.isfinite(made.latents()).all()
    assert set(made.reasons().values()) == {None}
    joined = [m for name, m in made.pipe.unet.named_modules() if name.endswith("to_qkv")]
    assert joined
    assert not any(isinstance(module, torch.nn.Linear) for module in joined)
