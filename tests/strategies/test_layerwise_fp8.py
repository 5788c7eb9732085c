"""Weights in eight bits of memory that compute in the pipeline's own format."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch

from engine.errors import UsageError
from engine.genome import canonical
from tests.strategies.tiny import ARCHITECTURES, denoiser, tiny_sd3

Ready = Callable[..., Any]


def stored_bytes(pipe: Any) -> int:
    return sum(p.numel() * p.itemsize for p in denoiser(pipe).parameters())


@pytest.mark.parametrize("storage", ["float8_e4m3fn", "float8_e5m2"])
def test_weights_shrink_and_the_picture_stays_near(ready: Ready, storage: str) -> None:
    plain = ready({}, pipe=tiny_sd3())
    made = ready({"layerwise_fp8": {"storage": storage}}, pipe=tiny_sd3())
    whole, narrow = stored_bytes(plain.pipe), stored_bytes(made.pipe)
    # A third of so small a network is norms, which stay.
    assert narrow < 0.7 * whole
    expected, found = plain.latents(), made.latents()
    gap = float((found - expected).abs().mean() / expected.abs().mean())
    assert 1e-4 < gap < 0.5
    # Narrowed again behind each layer.
    assert stored_bytes(made.pipe) == narrow
    assert made.reasons() == {"layerwise_fp8": None}


def test_norms_and_embeddings_keep_their_format(ready: Ready) -> None:
    pipe = ready({"layerwise_fp8": {}}, pipe=tiny_sd3()).pipe
    kept = {n: p.dtype for n, p in pipe.transformer.named_parameters() if "norm" in n or "pos" in n}
    assert kept
    assert set(kept.values()) == {torch.float32}


def test_half_precision_beside_it_is_still_seen(ready: Ready) -> None:
    genome = {"precision": {"dtype": "bfloat16", "vae": "same"}, "layerwise_fp8": {}}
    made = ready(genome, pipe=tiny_sd3(), steps=2)
    assert torch.isfinite(made.latents()).all()
    assert made.reasons() == {"precision": None, "layerwise_fp8": None}
    made.pipe.transformer.to(torch.float32)
    assert made.reasons()["layerwise_fp8"] == "none of the denoiser's weights is stored in 8 bits"


@pytest.mark.parametrize(("model", "cached"), [("flux", "taylorseer"), ("sdxl", "deepcache")])
def test_it_combines_with_caches_and_joined_projections(
    ready: Ready, model: str, cached: str
) -> None:
    genome: dict[str, Any] = {"qkv_fusion": {}, "layerwise_fp8": {}, cached: {}}
    made = ready(genome, pipe=ARCHITECTURES[model]())
    assert torch.isfinite(made.latents()).all()
    assert set(made.reasons().values()) == {None}


def test_a_compiler_would_find_nothing_to_compile() -> None:
    with pytest.raises(UsageError, match="exclude each other"):
        canonical({"layerwise_fp8": {}, "compile": {}})
