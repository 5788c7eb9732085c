"""Channels-last memory layout: convolutions read their channels side by side.

What it does: stores the convolution weights of denoiser and VAE in the order N, H, W, C; the
activations follow. Values stay the same, sums run in another order, so pictures agree up to
rounding.

When it pays: half precision on GPUs with tensor cores, and CPUs whose convolution library
(oneDNN) would reorder each tensor otherwise. In fp32 on a GPU it can cost a little.

Genes: none.

How it fails: layers that want the usual order force copies back and forth; then it is slower and
the search drops it. Only four-dimensional weights are converted: the layout is not defined for
the three-dimensional convolutions of video models.

Published: PyTorch's tutorial on channels last; diffusers' page on speeding up inference. Part of
the native stack with which PyTorch reports up to 3x for SDXL on an A100, not measured alone.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from engine.strategy import KnownGood, Needs, strategy


@strategy(
    slot="layout",
    order=40,
    exact=True,
    timed_only=True,
    needs=Needs(modules=("Conv2d",)),
    known_good=(KnownGood({}, "diffusers documentation, speed up inference: channels last"),),
)
@dataclass(frozen=True)
class ChannelsLast:
    """No genes: the layout is on or off."""


def convolutional_parts(pipe: Any) -> list[Any]:
    """Denoiser and VAE, as far as the pipeline has them."""
    parts = [getattr(pipe, name, None) for name in ("unet", "transformer", "vae")]
    return [part for part in parts if part is not None]


def apply(pipe: Any, ctx: Any) -> None:
    import torch

    for part in convolutional_parts(pipe):
        for parameter in part.parameters():
            if parameter.dim() == 4:
                parameter.data = parameter.data.contiguous(memory_format=torch.channels_last)


def active(pipe: Any) -> str | None:
    """Whether a weight lies in the new order that differs from its usual order."""
    import torch

    for part in convolutional_parts(pipe):
        for parameter in part.parameters():
            if (
                parameter.dim() == 4
                and parameter.is_contiguous(memory_format=torch.channels_last)
                and not parameter.is_contiguous()
            ):
                return None
    return "no convolution weight lies in channels-last order"
