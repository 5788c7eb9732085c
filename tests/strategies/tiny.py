"""Tiny pipelines of every architecture: real classes, random weights, no text encoders.

``pipe.embeddings`` are keywords of the call that stand for one prompt and fix the size.
"""

from __future__ import annotations

from collections.abc import Callable
from importlib import import_module
from typing import Any

import torch

# Imported by name: the library has no types.
diffusers: Any = import_module("diffusers")

TEXT = 32
"""Width of all text embeddings."""
WORDS = 7
SIZE = 64


def autoencoder() -> Any:
    """64 x 64 pixels to 16 x 16 latents of four channels."""
    return diffusers.AutoencoderKL(
        down_block_types=("DownEncoderBlock2D",) * 3,
        up_block_types=("UpDecoderBlock2D",) * 3,
        block_out_channels=(8, 8, 8),
        norm_num_groups=4,
        sample_size=SIZE,
        shift_factor=0.0,
    ).eval()


def embedded(pipe: Any, **shapes: tuple[int, ...]) -> Any:
    """The pipeline with random embeddings of those names and shapes for both halves."""
    drawn = torch.Generator().manual_seed(7)
    pipe.embeddings = {
        prefix + name: torch.randn(shape, generator=drawn)
        for name, shape in shapes.items()
        for prefix in ("", "negative_")
    } | {"height": SIZE, "width": SIZE}
    pipe.set_progress_bar_config(disable=True)
    return pipe


def tiny_sdxl() -> Any:
    """Attention stands only below the top level, as in SDXL."""
    torch.manual_seed(0)
    unet = diffusers.UNet2DConditionModel(
        sample_size=16,
        block_out_channels=(32, 64),
        layers_per_block=2,
        down_block_types=("DownBlock2D", "CrossAttnDownBlock2D"),
        up_block_types=("CrossAttnUpBlock2D", "UpBlock2D"),
        transformer_layers_per_block=(1, 2),
        attention_head_dim=(2, 4),
        use_linear_projection=True,
        addition_embed_type="text_time",
        addition_time_embed_dim=8,
        projection_class_embeddings_input_dim=TEXT + 6 * 8,
        cross_attention_dim=TEXT,
        norm_num_groups=8,
    ).eval()
    pipe = diffusers.StableDiffusionXLPipeline(
        vae=autoencoder(),
        text_encoder=None,
        text_encoder_2=None,
        tokenizer=None,
        tokenizer_2=None,
        unet=unet,
        scheduler=diffusers.EulerDiscreteScheduler(
            beta_schedule="scaled_linear", beta_start=0.00085, beta_end=0.012, steps_offset=1
        ),
        add_watermarker=False,
    )
    return embedded(pipe, prompt_embeds=(1, WORDS, TEXT), pooled_prompt_embeds=(1, TEXT))


def tiny_pixart() -> Any:
    """Learned variance, cross-attention with a mask, no step callback of the newer kind."""
    torch.manual_seed(0)
    transformer = diffusers.PixArtTransformer2DModel(
        num_attention_heads=2,
        attention_head_dim=16,
        in_channels=4,
        out_channels=8,
        num_layers=4,
        cross_attention_dim=32,
        sample_size=16,
        patch_size=2,
        caption_channels=TEXT,
        use_additional_conditions=False,
    ).eval()
    pipe = diffusers.PixArtAlphaPipeline(
        tokenizer=None,
        text_encoder=None,
        vae=autoencoder(),
        transformer=transformer,
        scheduler=diffusers.DPMSolverMultistepScheduler(),
    )
    embedded(pipe, prompt_embeds=(1, WORDS, TEXT))
    words = torch.arange(WORDS)[None]
    pipe.embeddings |= {
        "prompt_attention_mask": (words < 5).long(),
        "negative_prompt_attention_mask": (words < 2).long(),
        "use_resolution_binning": False,
        "negative_prompt": None,
    }
    return pipe


def tiny_dit() -> Any:
    """Class to image; the conditional half stands first, and only pictures come out."""
    torch.manual_seed(0)
    transformer = diffusers.DiTTransformer2DModel(
        num_attention_heads=2,
        attention_head_dim=16,
        in_channels=4,
        out_channels=8,
        num_layers=4,
        sample_size=16,
        patch_size=2,
    ).eval()
    pipe = diffusers.DiTPipeline(
        transformer=transformer,
        vae=autoencoder(),
        scheduler=diffusers.DDIMScheduler(clip_sample=False),
    )
    pipe.set_progress_bar_config(disable=True)
    pipe.embeddings = {"class_labels": [3]}
    return pipe


def tiny_sd3() -> Any:
    """Joint attention; the last block gives no text; a static shift of the noise levels."""
    torch.manual_seed(0)
    transformer = diffusers.SD3Transformer2DModel(
        sample_size=16,
        patch_size=2,
        in_channels=4,
        out_channels=4,
        num_layers=4,
        attention_head_dim=16,
        num_attention_heads=2,
        joint_attention_dim=TEXT,
        caption_projection_dim=32,
        pooled_projection_dim=TEXT,
        pos_embed_max_size=24,
        qk_norm="rms_norm",
        dual_attention_layers=(0,),
    ).eval()
    pipe = diffusers.StableDiffusion3Pipeline(
        transformer=transformer,
        scheduler=diffusers.FlowMatchEulerDiscreteScheduler(shift=3.0),
        vae=autoencoder(),
        text_encoder=None,
        tokenizer=None,
        text_encoder_2=None,
        tokenizer_2=None,
        text_encoder_3=None,
        tokenizer_3=None,
    )
    return embedded(pipe, prompt_embeds=(1, WORDS, TEXT), pooled_prompt_embeds=(1, TEXT))


def tiny_flux(guided: bool = True) -> Any:
    """Two kinds of blocks, distilled guidance and a dynamic shift; ``guided=False`` is schnell."""
    torch.manual_seed(0)
    transformer = diffusers.FluxTransformer2DModel(
        patch_size=1,
        in_channels=16,
        num_layers=2,
        num_single_layers=3,
        attention_head_dim=16,
        num_attention_heads=2,
        joint_attention_dim=TEXT,
        pooled_projection_dim=TEXT,
        guidance_embeds=guided,
        axes_dims_rope=(4, 4, 8),
    ).eval()
    pipe = diffusers.FluxPipeline(
        transformer=transformer,
        scheduler=diffusers.FlowMatchEulerDiscreteScheduler(
            shift=3.0 if guided else 1.0, use_dynamic_shifting=guided
        ),
        vae=autoencoder(),
        text_encoder=None,
        tokenizer=None,
        text_encoder_2=None,
        tokenizer_2=None,
    )
    embedded(pipe, prompt_embeds=(1, WORDS, TEXT), pooled_prompt_embeds=(1, TEXT))
    # Negative ones would switch on a second call for each step.
    pipe.embeddings = {k: v for k, v in pipe.embeddings.items() if not k.startswith("negative")}
    return pipe


ARCHITECTURES: dict[str, Callable[[], Any]] = {
    "sdxl": tiny_sdxl,
    "pixart": tiny_pixart,
    "dit": tiny_dit,
    "sd3": tiny_sd3,
    "flux": tiny_flux,
}


def wanted(pipe: Any, prompt: str | list[str]) -> dict[str, Any]:
    """The keywords by which this pipeline is asked for a prompt, or for one image of each."""
    if not hasattr(pipe, "embeddings"):
        return {"prompt": prompt}
    count = 1 if isinstance(prompt, str) else len(prompt)
    found: dict[str, Any] = {}
    for index, (name, value) in enumerate(pipe.embeddings.items()):
        if isinstance(value, torch.Tensor) and value.is_floating_point():
            value = value.to(denoiser(pipe).dtype)
        if isinstance(value, torch.Tensor) and count > 1:
            # Each prompt its own embeddings, the first the same as alone.
            drawn = torch.Generator().manual_seed(index)
            others = torch.randn((count - 1, *value.shape[1:]), generator=drawn).to(value.dtype)
            mask = not value.is_floating_point()
            value = torch.cat([value, value.expand(count - 1, -1) if mask else others])
        elif isinstance(value, list):
            value = [value[0] + i for i in range(count)]
        found[name] = value
    return found


def denoiser(pipe: Any) -> Any:
    """The network that runs once a step."""
    found = getattr(pipe, "unet", None)
    return pipe.transformer if found is None else found
