"""Layerwise fp8: weights of the denoiser are stored in 8 bits and widened layer by layer.

What it does: convolutions and linear layers keep their weights as 8-bit floats; a hook widens a
layer's weights just before it computes and narrows them again behind it. Products are computed in
the pipeline's own number format, so nothing is faster. Embeddings, norms and first and last
layers stay as they are.

When it pays: memory only: half of bfloat16's weights, a quarter of float32's. Any device.

Genes: ``storage``: ``float8_e4m3fn`` has three bits of fraction and ends at 448, ``float8_e5m2``
has two and the range of float16.

How it fails: every layer widens its weights at every call, which costs time, most on a CPU.
Weights lose precision for good: narrowing cannot be undone. Each layer is hooked, so a compiler
finds nothing to compile, hence the conflict. Attention processors that read a layer's weights
themselves would see 8 bits.

Published: diffusers' documentation, reduce memory: CogVideoX-5b loads in half the memory. No
figures of quality.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from engine.strategy import KnownGood, Needs, gene, strategy


@strategy(
    slot="quantization",
    order=36,
    exact=False,
    timed_only=True,
    for_memory=True,
    needs=Needs(methods=("enable_layerwise_casting",)),
    # Every layer is hooked, so nothing is left to compile.
    conflicts=("compile",),
    known_good=(
        KnownGood({"storage": "float8_e4m3fn"}, "diffusers documentation, reduce memory usage"),
    ),
)
@dataclass(frozen=True)
class LayerwiseFp8:
    """Genes of layerwise fp8."""

    storage: str = gene(
        "float8_e4m3fn", "number format of stored weights", choices=("float8_e4m3fn", "float8_e5m2")
    )


def apply(pipe: Any, ctx: Any, *, storage: str) -> None:
    import torch

    denoiser = getattr(pipe, "unet", None) or pipe.transformer
    wanted = getattr(torch, storage)
    denoiser.enable_layerwise_casting(storage_dtype=wanted, compute_dtype=denoiser.dtype)
    pipe._layerwise_fp8_state = wanted


def active(pipe: Any) -> str | None:
    """Whether weights of the denoiser lie in 8 bits after an image."""
    denoiser = getattr(pipe, "unet", None) or pipe.transformer
    if all(p.dtype != pipe._layerwise_fp8_state for p in denoiser.parameters()):
        return "none of the denoiser's weights is stored in 8 bits"
    return None
