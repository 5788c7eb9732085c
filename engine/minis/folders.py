"""Folders of the miniatures: published layout, fp16, and what they share stored once.

Files that two miniatures have in common are written byte for byte alike, so that git keeps one
copy of them.
"""

from __future__ import annotations

import hashlib
import json
import shutil
from pathlib import Path
from typing import Any

SHARDS = ("model-00001-of-00002.safetensors", "model-00002-of-00002.safetensors")


def write(name: str, pipeline: Any, out: Path, checkpoints: Path) -> None:
    """Save a pipeline that was assembled from the parts in ``checkpoints``; its parts are moved
    to the CPU and to fp16."""
    import torch

    for part in pipeline.components.values():
        if isinstance(part, torch.nn.Module):
            part.to("cpu", torch.float16)
    pipeline.save_pretrained(out, safe_serialization=True)
    base = checkpoints / "sd-mini"
    _copy(base, out, "vae/diffusion_pytorch_model.safetensors")
    for part in ("text_encoder", "text_encoder_2"):
        kind = type(getattr(pipeline, part, None)).__name__
        if kind == "CLIPTextModel":
            _copy(base, out, f"{part}/model.safetensors")
        elif kind == "CLIPTextModelWithProjection":
            _write_in_two(base / "text_encoder" / "model.safetensors", out / part)
    control = name.removesuffix("-controlnet")
    if control != name:
        _copy(checkpoints / control, out, "unet/diffusion_pytorch_model.safetensors")
    for part in ("text_encoder_2", "text_encoder_3"):
        if type(getattr(pipeline, part, None)).__name__ == "T5EncoderModel":
            t5 = checkpoints / "pixart-mini" / "text_encoder" / "model.safetensors"
            shutil.copyfile(t5, out / part / "model.safetensors")
    _forget_places(out)


def _forget_places(out: Path) -> None:
    """Take out of the configurations where a part lay when it was loaded."""
    for file in out.rglob("*.json"):
        content = json.loads(file.read_text(encoding="utf-8"))
        if isinstance(content, dict) and content.pop("_name_or_path", None) is not None:
            file.write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")


def _copy(source: Path, out: Path, file: str) -> None:
    shutil.copyfile(source / file, out / file)


def _write_in_two(tower: Path, folder: Path) -> None:
    """Store a text tower with its projection as two shards: the tower's file as it is beside the
    other classes of text encoder, and the projection alone.

    The tower's file leaves out the name of the tower, which the library adds to each weight.
    """
    from safetensors import safe_open
    from safetensors.torch import load_file, save_file

    whole = load_file(folder / "model.safetensors")
    with safe_open(tower, "pt") as file:
        names = list(file.keys())
    rest = {name: value for name, value in whole.items() if not name.startswith("text_model.")}
    if {f"text_model.{name}" for name in names} | set(rest) != set(whole):
        raise RuntimeError(f"{tower} is not the tower of the text encoder in {folder}")
    shutil.copyfile(tower, folder / SHARDS[0])
    save_file(rest, folder / SHARDS[1], metadata={"format": "pt"})
    index = {
        "metadata": {"total_size": sum(v.numel() * v.element_size() for v in whole.values())},
        "weight_map": {**dict.fromkeys(names, SHARDS[0]), **dict.fromkeys(rest, SHARDS[1])},
    }
    text = json.dumps(index, indent=1, sort_keys=True) + "\n"
    (folder / "model.safetensors.index.json").write_text(text, encoding="utf-8")
    (folder / "model.safetensors").unlink()


def distinct(checkpoints: Path) -> dict[str, int]:
    """Bytes of each distinct file of weights under a folder, under the digest of its content."""
    return {
        hashlib.sha256(file.read_bytes()).hexdigest(): file.stat().st_size
        for file in checkpoints.rglob("*.safetensors")
    }
