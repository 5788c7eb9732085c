"""Where the ControlNet of a model is: in the pipeline's own folder, or beside it."""

from __future__ import annotations

import json
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from engine import architectures
from engine.errors import UsageError
from engine.worker.preamble import RANDOM

if TYPE_CHECKING:
    from engine.models import Location
    from engine.schema import ModelConfig

FILES = ["config.json", "diffusion_pytorch_model*.safetensors", "*.safetensors.index.json"]
"""What is downloaded of one; other forms of the weights are not."""


@dataclass(frozen=True)
class Beside:
    """A ControlNet that is loaded beside its pipeline: what programs call it, and its folder."""

    id: str
    revision: str | None
    folder: str


def beside(model: ModelConfig, location: Location, cache: str | None = None) -> Beside | None:
    """The ControlNet of a model whose folder lacks one; None for all others.

    Downloaded to ``cache`` if need be (None takes the hub library's own place). Raises UsageError
    in one line.
    """
    if model.task != "control" or _holds_one(Path(location.path_or_id)):
        return None
    if model.controlnet is None:
        raise UsageError(
            f"model={model.name} draws along a control image and its folder holds no ControlNet; "
            "type model.controlnet=ORG/NAME, or a folder"
        )
    if location.is_random:
        return Beside(model.controlnet, None, f"{RANDOM}{architectures.controlnet(model)}")
    folder = Path(model.controlnet).expanduser()
    if folder.is_dir():
        if not any(folder.glob("*.safetensors")):
            raise UsageError(f"model.controlnet={model.controlnet} has no .safetensors file")
        return Beside(str(folder.resolve()), None, str(folder.resolve()))
    found = _from_hub(model.controlnet, cache)
    return Beside(model.controlnet, found.name, str(found))


def _holds_one(folder: Path) -> bool:
    index = folder / "model_index.json"
    if not index.is_file():
        return False
    entry = json.loads(index.read_text(encoding="utf-8")).get("controlnet")
    return isinstance(entry, list) and entry[0] is not None


def _from_hub(name: str, cache: str | None) -> Path:
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import LocalEntryNotFoundError

    where = None if cache is None else str(Path(cache).expanduser().resolve())
    fetch = partial(snapshot_download, name, allow_patterns=FILES, cache_dir=where)
    try:
        found = Path(fetch(local_files_only=True))
        if any(found.glob("*.safetensors")):
            return found
    except LocalEntryNotFoundError:
        pass
    try:
        return Path(fetch())
    except Exception as error:  # each network library has its own errors; all mean the same here
        raise UsageError(
            f"cannot download the ControlNet {name}: {type(error).__name__}; check the network, or "
            "type model.controlnet=FOLDER with a copy"
        ) from error
