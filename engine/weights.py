"""Files of weights on disk: what a folder lacks, what is damaged, what a file's header says.

Only headers are read; every error is a UsageError of one line.
"""

from __future__ import annotations

import json
import re
import struct
from pathlib import Path
from typing import Any

from engine.errors import UsageError

LIGHT = ("Scheduler", "Tokenizer", "TokenizerFast", "Processor", "FeatureExtractor")
"""Ends of the names of classes that have no weights."""
SHARD = re.compile(r"-\d{5}-of-\d{5}\.safetensors$")
"""End of the name of a file that holds a part of a network."""
MAX_HEADER = 100 * 2**20
"""No header is longer; a longer one is not what it says."""


def read_json(path: Path) -> dict[str, Any]:
    """A JSON object from a model's folder."""
    try:
        data = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise UsageError(f"{path.parent} has no {path.name}; copy or download it again") from None
    except (OSError, ValueError) as error:
        raise UsageError(
            f"{path} is damaged ({type(error).__name__}); copy or download it again"
        ) from None
    if not isinstance(data, dict):
        raise UsageError(f"{path} is damaged (no JSON object); copy or download it again")
    return data


def components(folder: Path) -> dict[str, str]:
    """The parts of a pipeline's folder that must have weights: name to class."""
    index = read_json(folder / "model_index.json")
    return {
        name: value[1]
        for name, value in index.items()
        if isinstance(value, list) and len(value) == 2 and value[0] is not None
        if not str(value[1]).endswith(LIGHT)
    }


def missing(folder: Path) -> list[str]:
    """Files that a pipeline's folder must have and lacks: of each part its safetensors, and of one
    that is stored in shards their index and every shard."""
    lacking = []
    for name in components(folder):
        # A link of the hub's cache may lead nowhere.
        files = [file for file in (folder / name).glob("*.safetensors") if file.is_file()]
        indexes = list((folder / name).glob("*.safetensors.index.json"))
        if not files and not indexes:
            lacking.append(f"{name}/*.safetensors")
        if not indexes and any(SHARD.search(file.name) for file in files):
            lacking.append(f"{name}/*.safetensors.index.json")
        for index in indexes:
            shards = sorted(set(read_json(index).get("weight_map", {}).values()))
            lacking += [f"{name}/{one}" for one in shards if not (folder / name / one).is_file()]
    return lacking


def require_whole(folder: Path, asked: str) -> None:
    """Refuse a pipeline's folder whose weights are missing or damaged; ``asked`` is what was
    typed."""
    lacking = missing(folder)
    if lacking:
        others = sorted({p.suffix for p in folder.glob("*/*") if p.suffix in (".bin", ".ckpt")})
        only = f" (it has {', '.join(others)} files)" if others else ""
        raise UsageError(
            f"{asked} lacks {', '.join(lacking)}; only safetensors are read{only}; copy or "
            "download it again, or convert it with save_pretrained(FOLDER)"
        )
    for name in components(folder):
        read_json(folder / name / "config.json")
        for file in sorted((folder / name).glob("*.safetensors")):
            if file.is_file():
                header(file)


def header(file: Path) -> dict[str, Any]:
    """Tensor names to dtype and shape, from the header of a safetensors file that is whole."""
    size = file.stat().st_size
    with file.open("rb") as opened:
        start = opened.read(8)
        if start == b"version ":
            raise UsageError(f"{file} is only a pointer of Git LFS; run git lfs pull in its folder")
        length = struct.unpack("<Q", start)[0] if len(start) == 8 else MAX_HEADER + 1
        text = opened.read(length) if length <= MAX_HEADER else b""
    try:
        found: dict[str, Any] = json.loads(text)
        found.pop("__metadata__", None)
        end = 8 + length + max((entry["data_offsets"][1] for entry in found.values()), default=0)
    except (ValueError, TypeError, KeyError, AttributeError):
        raise UsageError(
            f"{file} is damaged: it has no header of safetensors; copy or download it again"
        ) from None
    if size != end:
        raise UsageError(
            f"{file} is damaged: it has {size} bytes instead of {end}; copy or download it again"
        )
    return found


def snapshot(folder: Path) -> Path:
    """The folder itself, or the snapshot inside it if it has the layout of the hub's cache
    (``models--ORG--NAME/snapshots/REVISION``): that of ``refs/main``, else the newest."""
    snapshots = [p.parent for p in folder.glob("snapshots/*/model_index.json")]
    if (folder / "model_index.json").is_file() or not snapshots:
        return folder
    main = folder / "refs" / "main"
    named = folder / "snapshots" / main.read_text().strip() if main.is_file() else None
    return named if named in snapshots else max(snapshots, key=lambda p: p.stat().st_mtime)
