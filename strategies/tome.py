"""Token merging: self-attention runs on fewer tokens by merging the most similar ones.

What it does: before self-attention similar tokens are averaged, after it the result is copied
back to each. Cross-attention and the feed-forward part see all tokens. Implemented by the
package tomesd 0.1.3.

When it pays: where self-attention dominates: high resolution, large batch, attention at the top
level of the U-Net. With modern attention kernels the gain is small at 512 pixels.

Genes: ``ratio`` is the share of tokens merged (0.75 would be the package's limit; beyond 0.5
fine detail goes). ``max_downsample`` is how far down the U-Net merging reaches: 1 means only
attention at full latent resolution.

How it fails: SDXL has no attention at full resolution, so ``max_downsample=1`` changes nothing
there and is reported as inactive. Transformers (DiT) lack the blocks it patches (PixArt crashes
on a missing ``norm3``), hence U-Nets only. The matching draws random numbers from a generator
that forks off torch's global state at first use, so equal seeds would give unequal pictures:
``reset`` puts a freshly seeded one in its place. With an odd batch, as after guidance has
stopped, the package matches without randomness. ``fullgraph`` compilation fails.

Paper: Bolya and Hoffman, Token Merging for Fast Stable Diffusion, arXiv 2303.17604: up to 2x and
5.6 times less memory; README: SD 1.5 on an RTX 4090 ratio 0.5 1.87x (FID 33.12 to 33.02), 0.6
2.03x (33.37). diffusers' page on it: 24 % on an A100 with modern attention.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from engine.strategy import KnownGood, Needs, gene, strategy

SEED = 0


@strategy(
    slot="tokens",
    order=60,
    exact=False,
    overhead=True,
    needs=Needs(backbone=("unet",), modules=("BasicTransformerBlock",), libraries=("tomesd",)),
    known_good=(
        KnownGood(
            {"ratio": 0.5, "max_downsample": 1}, "README of tomesd: SD 1.5 on an RTX 4090 1.87x"
        ),
        KnownGood({"ratio": 0.5, "max_downsample": 2}, "README of tomesd recommends 1 or 2"),
    ),
)
@dataclass(frozen=True)
class TokenMerging:
    """Genes of token merging."""

    ratio: float = gene(0.5, "share of tokens merged", low=0.1, high=0.7, step=0.1)
    max_downsample: int = gene(1, "deepest level that merges", choices=(1, 2, 4))


class MergeCount:
    """Counts self-attention calls that got fewer tokens than their block."""

    def __init__(self) -> None:
        self.calls = 0
        self.merged = 0
        self.tokens = 0

    def at_block(self, module: Any, args: Any, kwargs: Any) -> None:
        tensor = args[0] if args else kwargs["hidden_states"]
        self.tokens = tensor.shape[1]

    def at_attention(self, module: Any, args: Any, kwargs: Any) -> None:
        tensor = args[0] if args else kwargs["hidden_states"]
        self.calls += 1
        self.merged += tensor.shape[1] < self.tokens


def apply(pipe: Any, ctx: Any, *, ratio: float, max_downsample: int) -> None:
    import tomesd

    tomesd.apply_patch(pipe, ratio=ratio, max_downsample=max_downsample)
    pipe._tome_state = MergeCount()
    for module in pipe.unet.modules():
        if hasattr(module, "_tome_info") and hasattr(module, "attn1"):
            module.register_forward_pre_hook(pipe._tome_state.at_block, with_kwargs=True)
            module.attn1.register_forward_pre_hook(pipe._tome_state.at_attention, with_kwargs=True)


def reset(pipe: Any) -> None:
    import torch

    # The package compares devices with their index: "cuda" would count as another device than
    # "cuda:0" and be replaced by a fork of the global state.
    device = torch.empty(0, device=pipe._execution_device).device
    pipe.unet._tome_info["args"]["generator"] = torch.Generator(device).manual_seed(SEED)
    pipe._tome_state.calls = 0
    pipe._tome_state.merged = 0


def active(pipe: Any) -> str | None:
    """Whether the last image merged tokens anywhere."""
    state = pipe._tome_state
    if state.merged == 0:
        reach = pipe.unet._tome_info["args"]["max_downsample"]
        return (
            f"none of {state.calls} self-attention calls merged tokens: this U-Net has no "
            f"attention within max_downsample={reach}, try a larger one"
        )
    return None
