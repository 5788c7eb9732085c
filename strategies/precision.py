"""Half precision: weights and activations of 16 bits instead of 32.

What it does: text encoder and denoiser compute in ``dtype``. Half the bytes move, and matrix units
that only know 16 bits can be used. The starting noise is the same up to its rounding.

When it pays: GPUs with tensor cores, most of all, and CPUs with instructions for bfloat16 or
float16. Other CPUs emulate both, about a hundred times slower; a search leaves out the dtypes in
which the machine is slow.

Genes: ``dtype``: float16 keeps three more bits of each number and overflows at 65504; bfloat16
has the range of float32 and coarser steps. float32 is not among them: it is what runs without this
technique. ``vae`` is the autoencoder's dtype: ``float32`` is safe with any weights, ``same``
spares one slow decode an image and is right with bfloat16 and with weights made for it.

How it fails: the autoencoder of SDXL overflows in float16, which gives black images; its pipeline
therefore computes it in float32 whatever ``vae`` says, as its ``force_upcast`` demands, but casts
it there and back in each image. That entry says nothing about other models: the library adds it to
every autoencoder whose file lacks it. Here a float32 autoencoder gets hooks that cast what comes
in, because pipelines hand it half-precision latents. Its weights have been rounded to ``dtype`` by
then, as in the half-precision files that publishers offer. Rounding differs with each change of
kernels, so equal pictures on two machines are not to be expected.

Published: diffusers' documentation, speed up inference (edition of 2023): SD 1.5 on a TITAN RTX,
50 DDIM steps at 512 pixels, 9.50 s in float32, 3.61 s in float16. The same documentation, PyTorch
2 for text-to-image: SDXL on an A100, 30 steps, 7.36 s in float32, 4.63 s in bfloat16.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from engine.strategy import KnownGood, gene, strategy


@strategy(
    slot="precision",
    order=5,
    exact=False,
    timed_only=True,
    known_good=(
        KnownGood(
            {"dtype": "bfloat16", "vae": "same"},
            "diffusers, PyTorch 2 for text-to-image: SDXL on an A100 7.36 to 4.63 s",
        ),
        KnownGood(
            {"dtype": "float16", "vae": "float32"},
            "diffusers, speed up inference: SD 1.5 in float16, 9.50 to 3.61 s on a TITAN RTX",
        ),
    ),
)
@dataclass(frozen=True)
class Precision:
    """Genes of the precision."""

    dtype: str = gene(
        "bfloat16",
        "number format of denoiser and text encoder",
        choices=("float16", "bfloat16"),
        sets="dtype",
    )
    vae: str = gene(
        "float32",
        "number format of the autoencoder",
        choices=("same", "float32"),
    )


def enter_in_own_dtype(module: Any, inputs: tuple[Any, ...]) -> tuple[Any, ...]:
    """Hook: floating inputs in the dtype of the module's weights."""
    own = next(module.parameters()).dtype
    return tuple(
        value.to(own)
        if hasattr(value, "is_floating_point") and value.is_floating_point()
        else value
        for value in inputs
    )


def first_modules(autoencoder: Any) -> list[Any]:
    """The modules in which tensors from outside arrive: of the encoder and of the decoder."""
    decoder = getattr(autoencoder, "post_quant_conv", None)
    return [autoencoder.encoder, autoencoder.decoder if decoder is None else decoder]


def last_of_encoder(autoencoder: Any) -> Any:
    convolution = getattr(autoencoder, "quant_conv", None)
    return autoencoder.encoder if convolution is None else convolution


def apply(pipe: Any, ctx: Any, *, dtype: str, vae: str) -> None:
    import torch

    wanted = getattr(torch, dtype)
    for name, part in pipe.components.items():
        # A program has loaded them so; a pipeline from elsewhere may be in float32 still.
        if name != "vae" and isinstance(part, torch.nn.Module) and part.dtype != wanted:
            part.to(wanted)
    autoencoder = getattr(pipe, "vae", None)
    if autoencoder is None:
        return
    autoencoder.to(wanted if vae == "same" else torch.float32)
    if vae == "float32":
        for module in first_modules(autoencoder):
            module.register_forward_pre_hook(enter_in_own_dtype)
        # The latents of a given image go on into the denoiser.
        last_of_encoder(autoencoder).register_forward_hook(
            lambda module, inputs, output: output.to(wanted)
        )
    pipe._precision_state = {"dtype": wanted, "vae": autoencoder.dtype}


def active(pipe: Any) -> str | None:
    """Whether the weights of denoiser and autoencoder are still in the dtypes asked for."""
    state = pipe._precision_state
    denoiser = getattr(pipe, "unet", None) or pipe.transformer
    # Eight bits are how another technique stores weights; they compute in the denoiser's dtype.
    found = {p.dtype for p in denoiser.parameters() if p.is_floating_point() and p.itemsize > 1}
    if found | {denoiser.dtype} != {state["dtype"]}:
        names = ", ".join(sorted(str(dtype).removeprefix("torch.") for dtype in found))
        return f"the denoiser computes in {names}"
    return None
