"""LoRAs of a model: what ``model.lora`` says, and where their files are.

Only safetensors are read. A LoRA changes the weights that every technique then works on, so it
belongs to the model, not to the techniques.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from engine.errors import UsageError
from engine.strategy import Value, nearest

EXAMPLE = "'model.lora=[{id: ORG/NAME, scale: 0.8}]'"
SCALES = (-10.0, 10.0)
USUAL = "pytorch_lora_weights.safetensors"
"""The name that diffusers gives a LoRA's file."""
_NOT_WEIGHTS = ("scheduler", "optimizer", "checkpoint")
"""Words in the names of files that lie beside a LoRA and are none."""


@dataclass(frozen=True)
class Lora:
    """One LoRA: ``id`` is a file, a folder or a hub id, ``file`` the file in the latter two.

    ``scale`` multiplies its change. ``fuse`` adds the change to the weights once, which costs
    nothing afterwards; otherwise it stays a layer beside each one that it changes.
    """

    id: str
    scale: float = 1.0
    fuse: bool = True
    file: str | None = None
    revision: str | None = None

    def fields(self) -> dict[str, Value | None]:
        """What a program must know of it."""
        return {
            "id": self.id,
            "file": self.file,
            "revision": self.revision,
            "scale": self.scale,
            "fuse": self.fuse,
        }


def loras_of(rows: Sequence[Any]) -> tuple[Lora, ...]:
    """The rows of ``model.lora``, checked; raises UsageError that names the row and the key."""
    kinds: dict[str, tuple[type, ...]] = {
        "id": (str,),
        "scale": (int, float),
        "fuse": (bool,),
        "file": (str,),
        "revision": (str,),
    }
    words = {"scale": "a number", "fuse": "true or false"}
    found = []
    for number, row in enumerate(rows):
        where = f"model.lora[{number}]"
        row = {"id": row} if isinstance(row, str) else row
        if not isinstance(row, dict) or not row.get("id"):
            raise UsageError(f"{where} is {row!r} and names no id; type {EXAMPLE}")
        for name, value in row.items():
            if name not in kinds:
                raise UsageError(f"{where} has a key {name!r}{nearest(str(name), kinds)}")
            optional = value is None and name in ("file", "revision")
            wrong = isinstance(value, bool) and bool not in kinds[name]
            if not optional and (wrong or not isinstance(value, kinds[name])):
                takes = words.get(name, "a text")
                raise UsageError(f"{where}.{name} is {value!r}; it takes {takes}")
        scale = float(row.get("scale", 1.0))
        if not SCALES[0] <= scale <= SCALES[1]:
            raise UsageError(f"{where}.scale is {scale:g}; it takes {SCALES[0]:g} to {SCALES[1]:g}")
        found.append(Lora(**{**row, "scale": scale}))
    return tuple(found)


def located(loras: Sequence[Lora], cache: str | None = None) -> tuple[Lora, ...]:
    """The same LoRAs with the folder or hub id, the file and the revision that hold each.

    Those of the hub are downloaded to ``cache`` (None takes the hub library's own), so that a
    worker without a network finds them. Raises UsageError in one line.
    """
    return tuple(_local(lora) or _from_hub(lora, cache) for lora in loras)


def _local(lora: Lora) -> Lora | None:
    """A file or folder of this machine; None where the id is neither and may be a hub id."""
    path = Path(lora.id).expanduser()
    if path.is_file():
        path, file = path.parent, path.name
    elif path.is_dir():
        file = lora.file or _only([found.name for found in path.iterdir()], lora.id)
    elif lora.id.startswith((".", "/", "~")) or lora.id.count("/") != 1 or _is_file(path):
        raise UsageError(
            f"model.lora: there is no file or folder {lora.id}, and it is no hub id such as "
            "ORG/NAME"
        )
    else:
        return None
    if not file.endswith(".safetensors") or not (path / file).is_file():
        raise UsageError(
            f"model.lora: {path / file} is no .safetensors file; only safetensors are read"
        )
    return replace(lora, id=str(path.resolve()), file=file, revision=None)


def _is_file(path: Path) -> bool:
    return path.suffix in (".safetensors", ".bin", ".pt", ".ckpt")


def _only(names: Sequence[str], where: str) -> str:
    """The one file among them that can be meant."""
    files = sorted(
        name
        for name in names
        if name.endswith(".safetensors") and not any(word in name for word in _NOT_WEIGHTS)
    )
    if USUAL in files:
        return USUAL
    if not files:
        raise UsageError(f"model.lora: {where} has no .safetensors file; only those are read")
    if len(files) > 1:
        raise UsageError(
            f"model.lora: {where} has several files ({', '.join(files)}); name one, as in "
            f"{{id: {where}, file: {files[0]}}}"
        )
    return files[0]


def _from_hub(lora: Lora, cache: str | None) -> Lora:
    from huggingface_hub import HfApi, hf_hub_download, try_to_load_from_cache

    folder = None if cache is None else str(Path(cache).expanduser().resolve())
    if lora.file is not None:
        known = try_to_load_from_cache(lora.id, lora.file, cache_dir=folder, revision=lora.revision)
        if isinstance(known, str):
            return replace(lora, revision=_commit(known, lora.file))
    try:
        file = lora.file or _only(HfApi().list_repo_files(lora.id, revision=lora.revision), lora.id)
        path = hf_hub_download(lora.id, file, cache_dir=folder, revision=lora.revision)
    except UsageError:
        raise
    except Exception as error:  # each network library has its own errors; all mean the same here
        raise UsageError(
            f"cannot download the LoRA {lora.id}: {type(error).__name__}; check its name and the "
            "network, or give a file: 'model.lora=[{id: FILE.safetensors}]'"
        ) from error
    return replace(lora, file=file, revision=_commit(path, file))


def _commit(path: str, file: str) -> str:
    """The commit in the path of a cached file: .../snapshots/COMMIT/FILE."""
    return Path(path.removesuffix(file)).name
