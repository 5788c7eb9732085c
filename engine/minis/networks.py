"""Architectures of the miniatures, all plain library classes."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

from engine.minis import scenes

if TYPE_CHECKING:
    from diffusers import AutoencoderKL, UNet2DConditionModel
    from transformers import CLIPModel, CLIPTokenizer

TOKENS = 16
"""Longest caption in tokens; the longest of the grammar has 14 with both ends."""
WIDTH = 128
"""Width of the text and image encoders, and of the cross-attention keys."""
LATENT = scenes.SIZE // 4


def build_tokenizer(folder: Path) -> CLIPTokenizer:
    """A CLIP tokenizer whose merges make every word of the captions one token."""
    from tokenizers import Tokenizer, models, pre_tokenizers, trainers
    from transformers import CLIPTokenizer

    words = [*scenes.COLOURS, *scenes.BACKGROUNDS, *scenes.SHAPES, "a", "on", "background"]
    words += [word for relation in scenes.RELATIONS for word in relation.split()]
    core = Tokenizer(models.BPE(end_of_word_suffix="</w>"))
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    core.train_from_iterator(
        sorted(set(words)) * 2,
        trainers.BpeTrainer(
            vocab_size=2000,
            min_frequency=1,
            initial_alphabet=alphabet,
            end_of_word_suffix="</w>",
            show_progress=False,
        ),
    )
    # The byte alphabet comes twice (inside and at the end of a word), as in the published file.
    trained = json.loads(core.to_str())["model"]
    tokens = sorted(alphabet) + [letter + "</w>" for letter in sorted(alphabet)]
    tokens += [t for t in trained["vocab"] if t not in set(tokens)]
    tokens += ["<|startoftext|>", "<|endoftext|>"]
    merges = [m if isinstance(m, str) else " ".join(m) for m in trained["merges"]]
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "vocab.json").write_text(json.dumps({t: i for i, t in enumerate(tokens)}))
    (folder / "merges.txt").write_text("#version: 0.2\n" + "\n".join(merges) + "\n")
    return CLIPTokenizer.from_pretrained(folder, model_max_length=TOKENS)


def build_clip(tokenizer: CLIPTokenizer) -> CLIPModel:
    """Text and image encoder, 4 layers of width 128 each, about 1.8 M parameters."""
    from transformers import CLIPConfig, CLIPModel

    ends = {
        "bos_token_id": tokenizer.bos_token_id,
        "eos_token_id": tokenizer.eos_token_id,
        "pad_token_id": tokenizer.pad_token_id,
    }
    shared: dict[str, Any] = {
        "hidden_size": WIDTH,
        "intermediate_size": 4 * WIDTH,
        "num_hidden_layers": 4,
        "num_attention_heads": 4,
        "projection_dim": WIDTH,
    }
    text = {"vocab_size": len(tokenizer), "max_position_embeddings": TOKENS, **shared, **ends}
    vision = {"image_size": scenes.SIZE, "patch_size": 8, **shared}
    return CLIPModel(CLIPConfig(text_config=text, vision_config=vision, projection_dim=WIDTH))


def build_vae() -> AutoencoderKL:
    """KL autoencoder, 64 x 64 x 3 to 16 x 16 x 4, about 0.7 M parameters."""
    from diffusers import AutoencoderKL

    return AutoencoderKL(
        down_block_types=("DownEncoderBlock2D",) * 3,
        up_block_types=("UpDecoderBlock2D",) * 3,
        block_out_channels=(16, 32, 64),
        layers_per_block=1,
        latent_channels=4,
        norm_num_groups=8,
        sample_size=scenes.SIZE,
    )


def build_unet() -> UNet2DConditionModel:
    """Text-conditioned U-Net; attention at the top level gives token merging its tokens."""
    from diffusers import UNet2DConditionModel

    return UNet2DConditionModel(
        sample_size=LATENT,
        block_out_channels=(64, 96, 160),
        layers_per_block=1,
        down_block_types=("CrossAttnDownBlock2D", "CrossAttnDownBlock2D", "DownBlock2D"),
        up_block_types=("UpBlock2D", "CrossAttnUpBlock2D", "CrossAttnUpBlock2D"),
        cross_attention_dim=WIDTH,
        attention_head_dim=4,
        norm_num_groups=16,
    )
