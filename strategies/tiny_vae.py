"""A tiny autoencoder (TAESD) decodes in place of the model's own.

What it does: replaces the autoencoder by a distilled one of 2.4 M parameters that speaks the same
latents. Decoding is then a few convolutions without attention or normalisation.

When it pays: few denoising steps, where decoding is a good part of an image; large images and
batches; float16, as it does not overflow.

Genes: none. Which weights fit follows from the model's own autoencoder: ``madebyollin/taesd`` for
the latents of Stable Diffusion 1 and 2, PixArt-alpha and DiT, ``madebyollin/taesdxl`` for those of
SDXL and PixArt-sigma, ``madebyollin/taesd3`` and ``madebyollin/taef1`` for Stable Diffusion 3 and
FLUX.

How it fails: fine texture and small faces are lost and colours shift a little. Latents of another
kind give garbage, so anything but these four is refused. The original autoencoder is loaded first
and then dropped, so loading takes longer, not less. An initial image is encoded by it as well,
which costs more quality than decoding. The weights must be in the hub's local cache to be used in
a search; the finished program downloads them when they are not.

Published: TAESD (github.com/madebyollin/taesd), diffusers' documentation, Tiny AutoEncoder:
decodes almost instantly. No figures of quality.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from engine.strategy import KnownGood, Needs, strategy

# By channels and the factor that scales latents to unit variance: a fingerprint of their kind.
WEIGHTS = {
    (4, 0.18215): "madebyollin/taesd",
    (4, 0.13025): "madebyollin/taesdxl",
    (16, 1.5305): "madebyollin/taesd3",
    (16, 0.3611): "madebyollin/taef1",
}


@strategy(
    slot="vae",
    # Before fusion and layout, which are to act on the new autoencoder.
    order=20,
    exact=False,
    needs=Needs(parts=("vae",)),
    known_good=(KnownGood({}, "diffusers documentation, Tiny AutoEncoder"),),
)
@dataclass(frozen=True)
class TinyVae:
    """No genes: the tiny autoencoder is in place or not."""


def fitting_weights(autoencoder: Any) -> str:
    """The hub id of the tiny autoencoder for these latents; raises ValueError if there is none."""
    config = autoencoder.config
    shrinks = 2 ** (len(config.block_out_channels) - 1)
    name = WEIGHTS.get((config.latent_channels, round(config.scaling_factor, 5)))
    if type(autoencoder).__name__ != "AutoencoderKL" or not name:
        raise ValueError("no tiny autoencoder is known for this model's latents")
    if shrinks != 8:
        raise ValueError(
            f"the tiny autoencoder enlarges 8 times, this model's own {shrinks} times: "
            "other latents, although they have the same number of channels"
        )
    return name


def apply(pipe: Any, ctx: Any) -> None:
    from diffusers import AutoencoderTiny

    denoiser = getattr(pipe, "unet", None) or pipe.transformer
    tiny = AutoencoderTiny.from_pretrained(
        # Whatever the precision keeps the other autoencoder in: this one does not overflow.
        fitting_weights(pipe.vae),
        dtype=denoiser.dtype,
        use_safetensors=True,
    )
    pipe.vae = tiny.eval()
    pipe._tiny_vae_state = {"decoded": 0}
    tiny.decoder.register_forward_pre_hook(lambda module, inputs: counted(pipe))


def counted(pipe: Any) -> None:
    pipe._tiny_vae_state["decoded"] += 1


def reset(pipe: Any) -> None:
    pipe._tiny_vae_state["decoded"] = 0


def active(pipe: Any) -> str | None:
    """Whether the last image came out of the tiny autoencoder."""
    if pipe._tiny_vae_state["decoded"] == 0:
        return "the tiny autoencoder decoded nothing"
    return None


def unfit(pipe: Any) -> str | None:
    """Why no tiny autoencoder fits, or None."""
    try:
        fitting_weights(pipe.vae)
    except ValueError as error:
        return str(error)
    return None


def further_weights(pipe: Any) -> str:
    """The hub id of the weights that the program loads beside the model's."""
    return fitting_weights(pipe.vae)
