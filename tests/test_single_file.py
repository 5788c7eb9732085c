"""A single-file checkpoint in a real worker draws what the same weights in a folder draw."""

from __future__ import annotations

import json
import re
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from engine import adopt
from engine.program import generate
from engine.requests import Request
from engine.worker import randomised
from engine.worker.conversation import Load
from engine.worker.pool import Pool
from tests.test_architectures import shrunk
from tests.test_program import CHECKPOINT, SUBJECT

RESNET = {
    "norm1": "in_layers.0", "conv1": "in_layers.2", "norm2": "out_layers.0",
    "conv2": "out_layers.3", "time_emb_proj": "emb_layers.1", "conv_shortcut": "skip_connection",
}  # fmt: skip
"""Names of a residual block's layers: here and in the first releases of Stable Diffusion."""
ATTENTION = {
    "group_norm": "norm", "to_q": "q", "to_k": "k", "to_v": "v", "to_out.0": "proj_out",
}  # fmt: skip


def _unet(name: str) -> str:
    """A U-Net's tensor as the first releases called it; two residual blocks a level."""
    head, _, tail = name.partition(".")
    plain = {
        "conv_in": "input_blocks.0.0", "conv_norm_out": "out.0", "conv_out": "out.2",
    }  # fmt: skip
    if head in plain:
        return f"{plain[head]}.{tail}"
    if head == "time_embedding":
        return name.replace("time_embedding.linear_1", "time_embed.0").replace(
            "time_embedding.linear_2", "time_embed.2"
        )
    if head == "mid_block":
        kind, number, rest = tail.split(".", 2)
        place = 1 if kind == "attentions" else 2 * int(number)
        return f"middle_block.{place}.{_layer(kind, rest)}"
    level_text, kind, number, rest = tail.split(".", 3)
    level = int(level_text)
    if kind == "downsamplers":
        return f"input_blocks.{3 * (level + 1)}.0.{rest.replace('conv', 'op')}"
    if kind == "upsamplers":
        return f"output_blocks.{3 * level + 2}.{2 if level else 1}.{rest}"
    blocks, first = ("input_blocks", 1) if head == "down_blocks" else ("output_blocks", 0)
    place = 1 if kind == "attentions" else 0
    return f"{blocks}.{3 * level + int(number) + first}.{place}.{_layer(kind, rest)}"


def _layer(kind: str, rest: str) -> str:
    if kind == "attentions":
        return rest
    layer, _, leaf = rest.rpartition(".")
    return f"{RESNET[layer]}.{leaf}"


def _autoencoder(name: str) -> str:
    name = re.sub(r"up_blocks\.(\d)", lambda m: f"up.{3 - int(m[1])}", name)
    name = name.replace("down_blocks", "down").replace("resnets", "block")
    name = name.replace("mid_block.block.0", "mid.block_1").replace(
        "mid_block.block.1", "mid.block_2"
    )
    if "mid_block.attentions.0" in name:
        head, _, rest = name.partition("mid_block.attentions.0.")
        layer, _, leaf = rest.rpartition(".")
        return f"{head}mid.attn_1.{ATTENTION[layer]}.{leaf}"
    name = name.replace("downsamplers.0", "downsample").replace("upsamplers.0", "upsample")
    return name.replace("conv_norm_out", "norm_out").replace("conv_shortcut", "nin_shortcut")


def save_single_file(pipe: Any, path: Path) -> None:
    """The weights of a pipeline in one file, as the first releases stored them."""
    from safetensors.torch import save_file

    tensors: dict[str, Any] = {}
    for name, value in pipe.unet.state_dict().items():
        tensors[f"model.diffusion_model.{_unet(name)}"] = value
    for name, value in pipe.vae.state_dict().items():
        attention = "attentions" in name and value.ndim == 2
        shaped = value[:, :, None, None] if attention else value
        tensors[f"first_stage_model.{_autoencoder(name)}"] = shaped
    for name, value in pipe.text_encoder.state_dict().items():
        full = name if name.startswith("text_model.") else f"text_model.{name}"
        tensors[f"cond_stage_model.transformer.{full}"] = value
    save_file({name: value.contiguous().clone() for name, value in tensors.items()}, path)


def folder_of(root: Path) -> Path:
    """A small SD 1.5 in a folder, with the tokenizer of the miniature."""
    import torch
    from diffusers import StableDiffusionPipeline
    from transformers import CLIPTokenizer

    architecture = shrunk("sd15", root / "architecture")
    for part in ("unet", "vae"):
        path = architecture / part / "config.json"
        path.write_text(json.dumps(json.loads(path.read_text()) | {"layers_per_block": 2}))
    tokenizer = CLIPTokenizer.from_pretrained(CHECKPOINT / "tokenizer")
    path = architecture / "text_encoder" / "config.json"
    size = {"vocab_size": len(tokenizer), "max_position_embeddings": tokenizer.model_max_length}
    path.write_text(json.dumps(json.loads(path.read_text()) | size))
    given = {"tokenizer": tokenizer}
    pipe = randomised.pipeline(StableDiffusionPipeline, architecture, torch.float32, "cpu", given)
    pipe.save_pretrained(root / "folder")
    save_single_file(pipe, root / "mine.safetensors")
    return root / "folder"


def test_a_single_file_draws_what_its_folder_draws(tmp_path: Path) -> None:
    folder, file = folder_of(tmp_path), tmp_path / "mine.safetensors"
    assert adopt.kind(file) == "sd15"
    configs = tmp_path / "configs"
    shutil.copytree(folder, configs, ignore=shutil.ignore_patterns("*.safetensors"))
    subject = replace(SUBJECT, id=str(folder), height=32, width=32, miniature=False)
    single = replace(subject, id=str(file), config="ORG/NAME")
    images = []
    pool = Pool("cpu", tmp_path / "logs")
    try:
        for one in (subject, single):
            worker = pool.spawn()
            text = generate(one, {}, "test")
            assert ("from_single_file" in text) is (one is single)
            found = {"ORG/NAME": str(configs)}
            worker.load(Load(text, (), found, "unet", "cpu", 1, 120.0))
            images.append(worker.generate(Request.of("a red circle", 1)).images.astype(int))
            worker.close()
    finally:
        pool.close()
    assert images[0].std() > 1
    assert np.abs(images[0] - images[1]).max() <= 1
