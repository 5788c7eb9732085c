"""Networks of the miniatures beside sd-mini: one small plain library class for each family.

They share sd-mini's autoencoder and its CLIP, so a latent is 4 x 16 x 16 and a CLIP token has 128
numbers. All together stay within 30 MB in fp16; a network's widths are what that leaves it.
"""

from __future__ import annotations

import string
from typing import TYPE_CHECKING, Any

from engine.minis import scenes
from engine.minis.networks import LATENT, TOKENS, WIDTH

if TYPE_CHECKING:
    from diffusers import (
        ControlNetModel,
        DiTTransformer2DModel,
        FluxTransformer2DModel,
        PixArtTransformer2DModel,
        SD3Transformer2DModel,
        UNet2DConditionModel,
    )
    from transformers import CLIPTokenizer, T5EncoderModel, T5Tokenizer

CHANNELS = 4
"""Latent channels of the shared autoencoder."""
T5_WIDTH = 2 * WIDTH
"""Width of the T5's tokens. Stable Diffusion 3 puts the tokens of both CLIPs side by side and pads
them to the T5's width, which therefore must not be smaller."""
NULL_CLASS = 1000
"""The class without a meaning: the published class-to-image pipeline has this number built in, so
the table must reach so far although there are only 72 captions with one object."""
TIME_IDS = 6
"""Numbers that SDXL's time embedding takes beside the text: two sizes and a corner."""
TIME_ID_WIDTH = 8


def build_t5_tokenizer() -> T5Tokenizer:
    """A T5 tokenizer for which every word of the captions is one token, and every other ASCII
    word is spelled."""
    from transformers import T5Tokenizer

    words = [*scenes.COLOURS, *scenes.BACKGROUNDS, *scenes.SHAPES, "a", "on", "background"]
    words += [word for relation in scenes.RELATIONS for word in relation.split()]
    vocabulary = [("<pad>", 0.0), ("</s>", 0.0), ("<unk>", 0.0)]
    # A Unigram model takes the pieces with the highest sum: a whole word must beat its letters.
    vocabulary += [(f"▁{word}", -1.0) for word in sorted(set(words))]
    letters = string.ascii_lowercase + string.digits + string.punctuation
    vocabulary += [(piece, -10.0) for piece in ("▁", *letters)]
    return T5Tokenizer(vocab=vocabulary, extra_ids=0, model_max_length=TOKENS)


def build_t5(tokenizer: T5Tokenizer) -> T5EncoderModel:
    """Text encoder of two narrow layers, about 0.2 M parameters."""
    from transformers import T5Config, T5EncoderModel

    config = T5Config(
        vocab_size=len(tokenizer),
        d_model=T5_WIDTH,
        d_kv=16,
        d_ff=64,
        num_layers=2,
        num_heads=3,
        feed_forward_proj="gated-gelu",
        dropout_rate=0.0,
        pad_token_id=tokenizer.pad_token_id,
        eos_token_id=tokenizer.eos_token_id,
        is_encoder_decoder=False,
        use_cache=False,
    )
    return T5EncoderModel(config)


def build_sdxl_unet() -> UNet2DConditionModel:
    """SDXL's U-Net: no attention at its top level, two text encoders side by side, sizes in its
    time embedding; about 1.1 M parameters."""
    from diffusers import UNet2DConditionModel

    return UNet2DConditionModel(
        sample_size=LATENT,
        block_out_channels=(32, 40, 48),
        layers_per_block=1,
        down_block_types=("DownBlock2D", "CrossAttnDownBlock2D", "CrossAttnDownBlock2D"),
        up_block_types=("CrossAttnUpBlock2D", "CrossAttnUpBlock2D", "UpBlock2D"),
        transformer_layers_per_block=1,
        cross_attention_dim=2 * WIDTH,
        attention_head_dim=(4, 5, 6),
        norm_num_groups=8,
        use_linear_projection=True,
        addition_embed_type="text_time",
        addition_time_embed_dim=TIME_ID_WIDTH,
        projection_class_embeddings_input_dim=WIDTH + TIME_IDS * TIME_ID_WIDTH,
    )


def build_controlnet(unet: UNet2DConditionModel) -> ControlNetModel:
    """A ControlNet for that U-Net on images of edges, without attention: what is where needs
    none, and the words reach the picture through the U-Net.

    Its encoder has the U-Net's widths; :func:`copy_encoder` gives it what fits.
    """
    from diffusers import ControlNetModel

    given: dict[str, Any] = dict(unet.config)
    kept = (
        "block_out_channels",
        "layers_per_block",
        "norm_num_groups",
        "cross_attention_dim",
        "attention_head_dim",
        "addition_embed_type",
        "addition_time_embed_dim",
        "projection_class_embeddings_input_dim",
    )
    return ControlNetModel(
        **{name: given[name] for name in kept},
        down_block_types=("DownBlock2D",) * len(given["block_out_channels"]),
        mid_block_type="UNetMidBlock2D",
        # One stride of two for each between the image and the latents: 64 to 16.
        conditioning_embedding_out_channels=(8, 16, 32),
    )


def copy_encoder(controlnet: ControlNetModel, unet: UNet2DConditionModel) -> list[str]:
    """Start a ControlNet from the U-Net's weights of the same name and shape; returns the names
    that were copied."""
    own, other = controlnet.state_dict(), unet.state_dict()
    names = [n for n, value in own.items() if n in other and other[n].shape == value.shape]
    controlnet.load_state_dict(own | {name: other[name] for name in names})
    return names


def build_pixart() -> PixArtTransformer2DModel:
    """PixArt's transformer on 64 tokens of 2 x 2 latents, about 1.0 M parameters; its second four
    output channels are the learned variance."""
    from diffusers import PixArtTransformer2DModel

    return PixArtTransformer2DModel(
        sample_size=LATENT,
        in_channels=CHANNELS,
        out_channels=2 * CHANNELS,
        num_layers=6,
        num_attention_heads=6,
        attention_head_dim=16,
        cross_attention_dim=96,
        caption_channels=T5_WIDTH,
        norm_num_groups=8,
    )


def build_dit() -> DiTTransformer2DModel:
    """A class-to-image transformer, about 0.8 M parameters, of which the four blocks' tables of
    classes are a third (see NULL_CLASS)."""
    from diffusers import DiTTransformer2DModel

    return DiTTransformer2DModel(
        sample_size=LATENT,
        in_channels=CHANNELS,
        out_channels=2 * CHANNELS,
        num_layers=4,
        num_attention_heads=3,
        attention_head_dim=24,
        num_embeds_ada_norm=NULL_CLASS,
        norm_num_groups=8,
    )


def build_sd3() -> SD3Transformer2DModel:
    """Joint-attention transformer as in Stable Diffusion 3.5: normalised queries and keys, a
    second attention in the first block; about 0.2 M parameters."""
    from diffusers import SD3Transformer2DModel

    return SD3Transformer2DModel(
        sample_size=LATENT,
        patch_size=2,
        in_channels=CHANNELS,
        out_channels=CHANNELS,
        num_layers=3,
        num_attention_heads=2,
        attention_head_dim=16,
        joint_attention_dim=T5_WIDTH,
        caption_projection_dim=32,
        pooled_projection_dim=2 * WIDTH,
        pos_embed_max_size=LATENT,
        dual_attention_layers=(0,),
        qk_norm="rms_norm",
    )


def build_flux(guidance_embeds: bool = True) -> FluxTransformer2DModel:
    """FLUX's transformer, two double and four single blocks, about 0.2 M parameters; each token
    is a packed square of 2 x 2 latents."""
    from diffusers import FluxTransformer2DModel

    return FluxTransformer2DModel(
        patch_size=1,
        in_channels=4 * CHANNELS,
        num_layers=2,
        num_single_layers=4,
        num_attention_heads=2,
        attention_head_dim=16,
        joint_attention_dim=T5_WIDTH,
        pooled_projection_dim=WIDTH,
        guidance_embeds=guidance_embeds,
        axes_dims_rope=(4, 6, 6),
    )


def class_names() -> dict[int, str]:
    """Caption of each class of the class-to-image miniature: every scene with one object."""
    return dict(enumerate(scenes.captions(1)))


def build_clip_tokenizer() -> CLIPTokenizer:
    """The captions' CLIP tokenizer, without a folder to keep."""
    import tempfile
    from pathlib import Path

    from engine.minis.networks import build_tokenizer

    with tempfile.TemporaryDirectory() as folder:
        return build_tokenizer(Path(folder))
