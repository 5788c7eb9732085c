"""Fused projections: query, key and value of an attention come from one matrix product.

What it does: the weights of the three projections of a self-attention (key and value of a
cross-attention) are joined, so that one larger product replaces three. Denoiser and autoencoder
alike; the separate weights are dropped, so memory stays the same. The sums are the same up to
rounding and the operations as many.

When it pays: small batches on a GPU, where launching kernels costs, and quantized layers, which
quantize their input once instead of three times. By itself little.

Genes: none.

How it fails: attention processors that know the separate projections only (sliced attention,
LoRA's and IP-Adapter's) fail after it, as their weights are gone. diffusers' fused processor for
joint attention leaves out the normalisation of queries and keys, so Stable Diffusion 3.5 would
draw something else without a word: models with both are refused. DiT cannot fuse. It must come
before quantization, which does not know how to join its own weights (diffusers-torchao issue 37);
its order sees to that.

Published: PyTorch, Accelerating Generative AI III: SDXL on an A100, 30 steps, compiled: 2.54 to
2.52 s, and more from int8 afterwards.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from engine.strategy import KnownGood, Needs, strategy


@strategy(
    slot="qkv",
    order=30,
    exact=True,
    timed_only=True,
    needs=Needs(methods=("fuse_qkv_projections",), fused_lora=True),
    known_good=(KnownGood({}, "PyTorch, Accelerating Generative AI III: SDXL 2.54 to 2.52 s"),),
)
@dataclass(frozen=True)
class QkvFusion:
    """No genes: the projections are joined or not."""


def can_fuse(network: Any) -> bool:
    return hasattr(network, "fuse_qkv_projections")


def drop_separate(network: Any) -> None:
    """Remove the projections that the joined ones have replaced."""
    for module in network.modules():
        if getattr(module, "fused_projections", False):
            cross = getattr(module, "is_cross_attention", False)
            replaced = ["to_k", "to_v"] if cross else ["to_q", "to_k", "to_v"]
            if hasattr(module, "to_added_qkv"):
                replaced += ["add_q_proj", "add_k_proj", "add_v_proj"]
            for name in replaced:
                delattr(module, name)


def apply(pipe: Any, ctx: Any) -> None:
    # A tiny autoencoder has no attention to fuse.
    denoiser = getattr(pipe, "unet", None) or pipe.transformer
    for network in filter(can_fuse, (denoiser, getattr(pipe, "vae", None))):
        network.fuse_qkv_projections()
        drop_separate(network)


def active(pipe: Any) -> str | None:
    """Whether every attention of the denoiser has joined projections and a processor for them."""
    from diffusers.models.attention import AttentionModuleMixin

    denoiser = getattr(pipe, "unet", None) or pipe.transformer
    attentions = [m for m in denoiser.modules() if hasattr(m, "fused_projections")]
    plain = sum(not attention.fused_projections for attention in attentions)
    if plain or not attentions:
        return f"{plain} of {len(attentions)} attentions have separate projections"
    for attention in attentions:
        # The newer kind of attention asks at every call whether its projections are joined.
        asks = isinstance(attention, AttentionModuleMixin)
        if not asks and not type(attention.processor).__name__.startswith("Fused"):
            return f"{type(attention.processor).__name__} took the place of the fused processor"
    return None


def unfit(pipe: Any) -> str | None:
    """Why the library's fused processor would compute something else, or None."""
    from diffusers.models.attention_processor import Attention

    denoiser = getattr(pipe, "unet", None) or pipe.transformer
    for module in denoiser.modules():
        joint = isinstance(module, Attention) and module.added_kv_proj_dim is not None
        if joint and (module.norm_q is not None or module.norm_k is not None):
            return (
                f"{type(denoiser).__name__} normalises queries and keys, which diffusers' fused "
                "processor for joint attention leaves out"
            )
    return None
