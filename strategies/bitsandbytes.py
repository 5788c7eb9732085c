"""bitsandbytes: weights are loaded in 8 or 4 bits, on a GPU.

What it does: linear layers of the denoiser, and on demand of the text encoders, are quantized while
they are loaded. ``int8`` multiplies in 8 bits and keeps the few columns with large values in 16
(LLM.int8); ``nf4`` stores 4 bits on the quantiles of a normal law and widens blocks for each
product.

When it pays: memory: models that do not fit otherwise. Time is about the same or longer.

Genes: ``kind`` as above. ``parts``: the denoiser alone, or ``all``, which adds the text encoders;
the T5 of Stable Diffusion 3, PixArt and FLUX weighs about as much as their denoisers or more.

How it fails: diffusers refuses it without a GPU, so there is nothing to search on a CPU. Joined
projections must be joined before quantization, which happens at loading: hence the conflict.
Offloading layer by layer does not take quantized layers. ``int8`` breaks a compiler's graph at its
outliers. The file is named like the package; it imports nothing by that name.

Published: Hugging Face, Exploring quantization backends in diffusers: FLUX.1-dev from 31.4 to
12.6 GB with nf4 in denoiser and T5, time about equal or longer. Papers: LLM.int8, arXiv 2208.07339;
QLoRA, arXiv 2305.14314.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from engine.strategy import KnownGood, Needs, gene, strategy

ENCODERS = ("text_encoder", "text_encoder_2", "text_encoder_3")


@strategy(
    slot="quantization",
    order=6,
    exact=False,
    timed_only=True,
    for_memory=True,
    needs=Needs(modules=("Linear",), devices=("cuda",), libraries=("bitsandbytes",)),
    # It would join layers that are quantized already.
    conflicts=("qkv_fusion",),
    known_good=(
        KnownGood(
            {"kind": "nf4", "parts": "all"},
            "Hugging Face, quantization backends: FLUX.1-dev from 31.4 to 12.6 GB",
        ),
    ),
)
@dataclass(frozen=True)
class BitsAndBytes:
    """Genes of bitsandbytes."""

    kind: str = gene("nf4", "number format of the weights", choices=("int8", "nf4"))
    parts: str = gene("denoiser", "what is quantized", choices=("denoiser", "all"))


def load(ctx: Any, *, kind: str, parts: str) -> dict[str, Any]:
    import diffusers
    import torch
    import transformers
    from diffusers.quantizers import PipelineQuantizationConfig

    if kind == "int8":
        options: dict[str, Any] = {"load_in_8bit": True}
    else:
        options = {
            "load_in_4bit": True,
            "bnb_4bit_quant_type": "nf4",
            "bnb_4bit_compute_dtype": getattr(torch, ctx.dtype),
        }
    # A name that a pipeline does not have is passed over. One backend for all of them would need
    # both libraries to take the same keywords.
    mapping = dict.fromkeys(("unet", "transformer"), diffusers.BitsAndBytesConfig(**options))
    if parts == "all":
        mapping |= dict.fromkeys(ENCODERS, transformers.BitsAndBytesConfig(**options))
    return {"quantization_config": PipelineQuantizationConfig(quant_mapping=mapping)}


def active(pipe: Any) -> str | None:
    """Whether the denoiser has quantized layers."""
    denoiser = getattr(pipe, "unet", None) or pipe.transformer
    kinds = {type(module).__name__ for module in denoiser.modules()}
    if not kinds & {"Linear8bitLt", "Linear4bit"}:
        return "no linear layer of the denoiser is quantized"
    return None
