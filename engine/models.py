"""Where a model's weights are, and the prompts that belong to it.

Only safetensors are read, and code that comes with a model is never run.
"""

from __future__ import annotations

import json
import os
import shutil
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from engine.errors import UsageError
from engine.schema import ModelConfig

if TYPE_CHECKING:
    import numpy as np

ROOT = Path(__file__).resolve().parent
CHECKPOINTS = ROOT / "minis" / "checkpoints"
GENERAL = ROOT.parent / "prompts" / "sets" / "general.txt"
SEARCH_CAPTIONS = 24
"""Captions of the general set that a search may see; the rest is kept for acceptance."""
OFFLINE = "model=sd-mini runs offline"


@dataclass(frozen=True)
class Location:
    """A folder that ``from_pretrained`` opens, and the revision that it holds (a commit for a
    model from the hub)."""

    path_or_id: str
    revision: str | None
    is_mini: bool


def locate(model: ModelConfig, cache: str | None = None) -> Location:
    """The folder of the weights, downloaded first if need be; raises UsageError in one line.

    ``cache`` is ``paths.models``: the only place where models from the hub are looked for and
    kept; None takes the hub library's own.
    """
    cache = _folder(cache)
    if model.weights == "mini":
        folder = CHECKPOINTS / model.name
        if not (folder / "model_index.json").is_file():
            raise UsageError(
                f"no miniature weights for model={model.name}{_minis()}; "
                "type model.weights=hub or model.weights=FOLDER"
            )
        return Location(str(folder), None, is_mini=True)
    if model.weights == "hub":
        folder = _cached(model, cache) or _downloaded(model, cache)
        return Location(str(folder), folder.name, is_mini=False)
    folder = Path(model.weights).expanduser()
    if not (folder / "model_index.json").is_file():
        raise UsageError(
            f"model.weights={model.weights} is no folder with a model_index.json; "
            "type mini, hub or the folder of a diffusers pipeline"
        )
    lacking = missing_weights(folder)
    if lacking:
        raise UsageError(
            f"model.weights={model.weights} lacks {', '.join(lacking)}; only safetensors are read"
        )
    return Location(str(folder.resolve()), None, is_mini=False)


def locate_scorer(model: ModelConfig, cache: str | None = None) -> Path:
    """The folder of the CLIP model that scores this model's images; downloaded if need be, to
    ``cache`` as in :func:`locate`."""
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import LocalEntryNotFoundError

    if model.scorer is None:
        raise ValueError(f"model {model.name} names no scorer")
    if model.scorer == "mini":
        return CHECKPOINTS / "clip"
    if Path(model.scorer).expanduser().is_dir():
        return Path(model.scorer).expanduser()
    fetch = partial(
        snapshot_download,
        model.scorer,
        allow_patterns=["*.json", "*.txt", "*.safetensors"],
        cache_dir=_folder(cache),
    )
    try:
        return Path(fetch(local_files_only=True))
    except LocalEntryNotFoundError:
        pass
    try:
        return Path(fetch())
    except Exception as error:  # each network library has its own errors; all mean the same here
        raise UsageError(
            f"cannot download the scorer {model.scorer}: {type(error).__name__}; type "
            "model.scorer=FOLDER with a CLIP model, or model.scorer=null to measure no quality"
        ) from error


def _folder(cache: str | None) -> str | None:
    return None if cache is None else str(Path(cache).expanduser().resolve())


def _minis() -> str:
    names = sorted(path.parent.name for path in CHECKPOINTS.glob("*/model_index.json"))
    return f" (there are: {', '.join(names)})" if names else " in this checkout"


def missing_weights(folder: Path) -> list[str]:
    """Parts of a pipeline's folder that must have weights and have no safetensors."""
    index = json.loads((folder / "model_index.json").read_text(encoding="utf-8"))
    parts = [
        name
        for name, value in index.items()
        if isinstance(value, list) and value[0] is not None and _has_weights(value[1])
    ]
    return [f"{name}/*.safetensors" for name in parts if not any((folder / name).glob("*.safet*"))]


def _has_weights(kind: str) -> bool:
    light = ("Scheduler", "Tokenizer", "TokenizerFast", "Processor", "FeatureExtractor")
    return not kind.endswith(light)


def _cached(model: ModelConfig, cache: str | None) -> Path | None:
    """The snapshot in the local cache, if it is whole."""
    from huggingface_hub import try_to_load_from_cache

    index = try_to_load_from_cache(
        model.id, "model_index.json", cache_dir=cache, revision=model.revision
    )
    if not isinstance(index, str):
        return None
    folder = Path(index).parent
    return None if missing_weights(folder) else folder


def _downloaded(model: ModelConfig, cache: str | None) -> Path:
    """Fetch the model; says first how much it is and refuses what cannot end well."""
    from huggingface_hub import HfApi, constants, errors, get_token

    size = f"{model.download_gib:g} GiB"
    if constants.HF_HUB_OFFLINE:
        raise UsageError(
            f"{model.id} is not in {cache or 'the local cache'} and HF_HUB_OFFLINE is set; unset "
            f"it to download {size}, or type model.weights=FOLDER; {OFFLINE}"
        )
    gate = (
        f"{model.id} is gated: accept its terms at {constants.ENDPOINT}/{model.id} and run "
        f"`hf auth login`; {OFFLINE}"
    )
    if model.gated and get_token() is None:
        raise UsageError(gate)
    try:
        HfApi().model_info(model.id, revision=model.revision, timeout=10)
        _check_disk(Path(cache or constants.HF_HUB_CACHE), model)
        print(f"downloading {model.id}: about {size}, once", flush=True)
        return _fetch(model, cache)
    except errors.GatedRepoError as error:
        raise UsageError(gate) from error
    except (errors.RepositoryNotFoundError, errors.RevisionNotFoundError) as error:
        raise UsageError(
            f"the hub has no {model.id} at revision {model.revision or 'main'}; check model.id "
            f"and model.revision; {OFFLINE}"
        ) from error
    except UsageError:
        raise
    except Exception as error:  # each network library has its own errors; all mean the same here
        raise UsageError(
            f"cannot download {model.id} ({size}): {type(error).__name__}; check the network, or "
            f"type model.weights=FOLDER with a copy; {OFFLINE}"
        ) from error


def _fetch(model: ModelConfig, cache: str | None) -> Path:
    """Let diffusers choose the files that its pipeline needs."""
    from diffusers import DiffusionPipeline

    folder = DiffusionPipeline.download(
        model.id,
        cache_dir=cache,
        revision=model.revision,
        use_safetensors=True,
        trust_remote_code=False,
    )
    return Path(folder)


def _check_disk(cache: Path, model: ModelConfig) -> None:
    place = cache
    while not place.exists():
        place = place.parent
    free = shutil.disk_usage(place).free / 2**30
    if free < model.download_gib * 1.05 or not os.access(place, os.W_OK):
        raise UsageError(
            f"{model.id} needs {model.download_gib:g} GiB in {cache}, which has {free:.1f} GiB "
            f"that can be written; type paths.models=FOLDER on another disk; {OFFLINE}"
        )


def prompts(model: ModelConfig, count: int, seed: int, part: str) -> list[str]:
    """``count`` prompts for a ``part``: search or acceptance, which share none.

    Equal seeds give equal prompts, and a longer list begins with the shorter one. A list longer
    than the set repeats it.
    """
    import numpy as np

    if part not in ("search", "acceptance"):
        raise ValueError(f"part is {part!r}; allowed: search, acceptance")
    rng = np.random.default_rng(seed)
    if model.prompts == "scenes":
        return _scenes(count, rng, part)
    lines = [text.strip() for text in GENERAL.read_text(encoding="utf-8").splitlines()]
    captions = [text for text in lines if text]
    pool = captions[:SEARCH_CAPTIONS] if part == "search" else captions[SEARCH_CAPTIONS:]
    return _repeated([pool[i] for i in rng.permutation(len(pool))], count)


def _scenes(count: int, rng: np.random.Generator, part: str) -> list[str]:
    """Two in five captions have one object, as in the evaluation of the miniature, while there
    are any: few one-object captions are held out."""
    from engine.minis import scenes

    pools = []
    for objects in (1, 2):
        pool = [c for c in scenes.captions(objects) if scenes.held_out(c) == (part != "search")]
        pools.append([pool[i] for i in rng.permutation(len(pool))])
    ones, twos = pools
    mixed: list[str] = []
    while len(mixed) < count and (ones or twos):
        wanted = ones if len(mixed) % 5 in (0, 3) else twos
        mixed.append((wanted or ones or twos).pop())
    return _repeated(mixed, count)


def _repeated(pool: list[str], count: int) -> list[str]:
    return [pool[i % len(pool)] for i in range(count)]
