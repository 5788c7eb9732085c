"""Files of weights: what is missing or damaged is named, with what to do."""

from __future__ import annotations

import json
import struct
from collections.abc import Callable
from pathlib import Path

import pytest

from engine.errors import UsageError
from engine.models import locate
from engine.schema import Config

Composed = Callable[..., Config]
EMPTY = struct.pack("<Q", 2) + b"{}"
"""A safetensors file that holds no tensor."""


def pipeline_folder(folder: Path, *, weights: bool = True) -> Path:
    """A folder that looks like a stored pipeline."""
    index = {
        "_class_name": "StableDiffusionPipeline",
        "unet": ["diffusers", "UNet2DConditionModel"],
        "scheduler": ["diffusers", "DDIMScheduler"],
        "tokenizer": ["transformers", "CLIPTokenizer"],
        "safety_checker": [None, None],
        "feature_extractor": ["transformers", "CLIPImageProcessor"],
    }
    (folder / "unet").mkdir(parents=True)
    (folder / "model_index.json").write_text(json.dumps(index))
    (folder / "unet" / "config.json").write_text("{}")
    suffix = "safetensors" if weights else "bin"
    (folder / "unet" / f"diffusion_pytorch_model.{suffix}").write_bytes(EMPTY)
    return folder


def truncate(folder: Path) -> None:
    file = folder / "unet" / "diffusion_pytorch_model.safetensors"
    header = json.dumps({"a": {"dtype": "F32", "shape": [4], "data_offsets": [0, 16]}}).encode()
    file.write_bytes(struct.pack("<Q", len(header)) + header + bytes(3))


def _no_header(folder: Path) -> None:
    (folder / "unet" / "diffusion_pytorch_model.safetensors").write_bytes(b"nothing of the kind")


def _pointer(folder: Path) -> None:
    text = b"version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 1\n"
    (folder / "unet" / "diffusion_pytorch_model.safetensors").write_bytes(text)


def lose_a_shard(folder: Path) -> None:
    unet = folder / "unet"
    (unet / "diffusion_pytorch_model.safetensors").unlink()
    names = [f"diffusion_pytorch_model-0000{n}-of-00002.safetensors" for n in (1, 2)]
    (unet / names[0]).write_bytes(EMPTY)
    index = {"weight_map": {"a": names[0], "b": names[1]}}
    (unet / "diffusion_pytorch_model.safetensors.index.json").write_text(json.dumps(index))


def _lose_the_list_of_shards(folder: Path) -> None:
    lose_a_shard(folder)
    (folder / "unet" / "diffusion_pytorch_model.safetensors.index.json").unlink()


def _break_a_link(folder: Path) -> None:
    file = folder / "unet" / "diffusion_pytorch_model.safetensors"
    file.unlink()
    file.symlink_to(folder / "gone")


def _break_index(folder: Path) -> None:
    (folder / "model_index.json").write_text('{"_class_name": ')


def _break_config(folder: Path) -> None:
    (folder / "unet" / "config.json").write_text("<html>")


def _lose_config(folder: Path) -> None:
    (folder / "unet" / "config.json").unlink()


def _only_bin(folder: Path) -> None:
    file = folder / "unet" / "diffusion_pytorch_model.safetensors"
    file.rename(file.with_suffix(".bin"))


@pytest.mark.parametrize(
    ("damage", "words"),
    [
        (truncate, r"safetensors is damaged: it has \d+ bytes instead of \d+; copy or download"),
        (_no_header, "safetensors is damaged: it has no header"),
        (_pointer, "only a pointer of Git LFS; run git lfs pull"),
        (lose_a_shard, "lacks unet/diffusion_pytorch_model-00002-of-00002.safetensors"),
        (_lose_the_list_of_shards, r"lacks unet/\*\.safetensors\.index\.json"),
        (_break_a_link, r"lacks unet/\*\.safetensors"),
        (_break_index, r"model_index.json is damaged \(JSONDecodeError\); copy or download"),
        (_break_config, r"unet/config.json is damaged"),
        (_lose_config, r"unet has no config.json; copy or download"),
        (_only_bin, r"only safetensors are read \(it has .bin files\).*save_pretrained"),
    ],
)
def test_damage_is_named_in_one_line_that_says_what_to_do(
    composed: Composed, tmp_path: Path, damage: Callable[[Path], None], words: str
) -> None:
    folder = pipeline_folder(tmp_path / "copy")
    locate(composed("model=sd15", f"model.weights={folder}").model)
    damage(folder)
    with pytest.raises(UsageError, match=words) as caught:
        locate(composed("model=sd15", f"model.weights={folder}").model)
    assert "\n" not in str(caught.value)
