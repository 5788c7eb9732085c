"""Placement: weights wait in the memory of the host and visit the GPU when they are needed.

What it does: instead of moving the whole pipeline to the GPU, hooks bring a part there before it
computes and take it away afterwards. Values stay exactly the same.

When it pays: when the model does not fit otherwise, or memory is worth more than time. Never for
time.

Genes: ``mode`` is what travels. ``model``: a whole component at a time; the denoiser stays for
all its steps, so this is cheap. ``group_block`` and ``group_leaf``: blocks or single layers at
every step, the next one copied while one computes. ``sequential``: single layers, each waited
for; the least memory and by far the slowest.

How it fails: every step pays for the copies over the bus in all modes but ``model``; pinned host
memory can run out. The copy of the next layer follows the order of the first pass, so where
another technique has replaced a forward and may skip layers (DeepCache, T-GATE) groups are
copied without looking ahead. Compilation finds nothing to compile where every layer is hooked
(``sequential``, ``group_leaf``). Only where there is a GPU: on a CPU there is nowhere to go.

Published: cache-dit's documentation, FLUX on an L20: none 23.4 s and 38 GiB, model 56 s and
25 GiB, sequential 335 s and 1 GiB. diffusers' page on reducing memory: group offloading.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from engine.strategy import KnownGood, Needs, gene, strategy


@strategy(
    slot="placement",
    order=85,
    exact=True,
    timed_only=True,
    for_memory=True,
    needs=Needs(devices=("cuda",)),
    known_good=(
        KnownGood({"mode": "model"}, "cache-dit documentation: FLUX on an L20 38 to 25 GiB"),
        KnownGood({"mode": "group_leaf"}, "diffusers documentation, reduce memory"),
    ),
)
@dataclass(frozen=True)
class Placement:
    """Genes of the placement."""

    mode: str = gene(
        "model", "what travels", choices=("model", "group_block", "group_leaf", "sequential")
    )


def looks_ahead(pipe: Any, device: Any) -> bool:
    """Whether the next group may be copied on a stream of its own.

    Only if the layers run in the same order at every step; a technique that skips some has
    replaced a forward.
    """
    denoiser = getattr(pipe, "unet", None) or pipe.transformer
    replaced = any("forward" in vars(module) for module in denoiser.modules())
    return device.type == "cuda" and not replaced


def place(pipe: Any, ctx: Any, *, mode: str) -> Any:
    import torch

    device = torch.device(ctx.device)
    if mode == "model":
        pipe.enable_model_cpu_offload(device=device)
    elif mode == "sequential":
        pipe.enable_sequential_cpu_offload(device=device)
    else:
        pipe.enable_group_offload(
            onload_device=device,
            offload_device=torch.device("cpu"),
            offload_type=f"{mode.removeprefix('group_')}_level",
            num_blocks_per_group=1,
            use_stream=looks_ahead(pipe, device),
        )
    pipe._placement_state = {"device": device.type}
    return pipe


def active(pipe: Any) -> str | None:
    """Whether the denoiser is hooked for offloading and has left the device after the image."""
    denoiser = getattr(pipe, "unet", None) or pipe.transformer
    hooks = ("_hf_hook", "_diffusers_hook")
    if not any(hasattr(module, hook) for module in denoiser.modules() for hook in hooks):
        return "no module of the denoiser is hooked for offloading"
    device = pipe._placement_state["device"]
    if device != "cpu" and all(p.device.type == device for p in denoiser.parameters()):
        return f"all weights of the denoiser stayed on {device}"
    return None
