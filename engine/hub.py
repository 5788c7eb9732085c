"""Models from the hub: what the cache holds, and downloads that say first how much they fetch.

Only safetensors, configs and vocabularies are fetched, and code that comes with a model is never
run. Every error is a UsageError of one line with what to type.
"""

from __future__ import annotations

import contextlib
import os
import re
import shutil
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from engine import weights
from engine.errors import UsageError

if TYPE_CHECKING:
    from engine.schema import ModelConfig

OFFLINE = "model=sd-mini runs offline"
CONFIGS = ["*.json", "*.txt", "*.model"]
"""Small files that say what a model is and how it splits text."""
LOADED = re.compile(r"[^/]+/(diffusion_pytorch_model|model)(-\d{5}-of-\d{5})?\.safetensors")
"""Paths of the weights of a pipeline's parts; variants such as fp16 have another ending."""


def pipeline(model: ModelConfig, cache: str | None) -> Path:
    """The snapshot of a pipeline, downloaded unless the cache has it whole."""
    found = _snapshot(model.id, model.revision, cache)
    if found is not None and not weights.missing(found):
        return found
    return _downloaded(model, cache)


def configs(name: str, revision: str | None, cache: str | None) -> Path:
    """The snapshot of a pipeline with at least its configs and vocabularies."""
    from huggingface_hub import snapshot_download

    found = _snapshot(name, revision, cache)
    if found is not None:
        return found
    fetch = partial(snapshot_download, name, revision=revision, cache_dir=cache)
    with _told(name, revision, "its configs", cache):
        folder = Path(fetch(allow_patterns=CONFIGS))
    if not (folder / "model_index.json").is_file():
        raise UsageError(
            f"{name} is no diffusers pipeline: it has no model_index.json; download its "
            "single-file checkpoint and type model.weights=FILE.safetensors"
        )
    return folder


def scorer(name: str, cache: str | None) -> Path:
    """The snapshot of a CLIP model."""
    from huggingface_hub import snapshot_download

    fetch = partial(
        snapshot_download,
        name,
        allow_patterns=["*.json", "*.txt", "*.safetensors"],
        cache_dir=cache,
    )
    found = _local(fetch)
    if found is not None:
        return found
    try:
        return Path(fetch())
    except Exception as error:  # each network library has its own errors; all mean the same here
        raise UsageError(
            f"cannot download the scorer {name}: {type(error).__name__}; type "
            "model.scorer=FOLDER with a CLIP model, or model.scorer=null to measure no quality"
        ) from error


def _local(fetch: Any) -> Path | None:
    from huggingface_hub.errors import LocalEntryNotFoundError

    try:
        return Path(fetch(local_files_only=True))
    except LocalEntryNotFoundError:
        return None


def _snapshot(name: str, revision: str | None, cache: str | None) -> Path | None:
    """The folder of a pipeline in the cache, whole or not."""
    from huggingface_hub import try_to_load_from_cache
    from huggingface_hub.errors import HFValidationError

    try:
        index = try_to_load_from_cache(name, "model_index.json", cache_dir=cache, revision=revision)
    except HFValidationError:
        raise UsageError(f"{name!r} is no id of the hub; type model.id=ORG/NAME") from None
    return Path(index).parent if isinstance(index, str) else None


def _downloaded(model: ModelConfig, cache: str | None) -> Path:
    """Fetch the model; says first how much it is and refuses what cannot end well."""
    from huggingface_hub import HfApi, constants, get_token

    size = f"{model.download_gib:g} GiB" if model.download_gib else "its weights"
    if model.gated and get_token() is None and not constants.HF_HUB_OFFLINE:
        raise UsageError(_gate(model.id))
    with _told(model.id, model.revision, size, cache):
        about = HfApi().model_info(
            model.id, revision=model.revision, timeout=10, files_metadata=True
        )
        # What conf/model does not know, the hub does.
        gib = model.download_gib or listed_gib(about)
        _check_disk(Path(cache or constants.HF_HUB_CACHE), model.id, gib)
        size = f"about {gib:.3g} GiB" if gib else "its weights"
        print(f"downloading {model.id}: {size}, once", flush=True)
        return _fetch(model, cache)


def listed_gib(about: Any) -> float:
    """GiB of the safetensors that a pipeline loads, by the hub's list of a repository's files:
    those in folders, in the default variant; 0 where it tells no sizes."""
    sizes = [
        file.size or 0
        for file in getattr(about, "siblings", None) or ()
        if LOADED.fullmatch(file.rfilename)
    ]
    return sum(sizes) / 2**30


def _gate(name: str) -> str:
    from huggingface_hub import constants

    return (
        f"{name} is gated: accept its terms at {constants.ENDPOINT}/{name} and run "
        f"`hf auth login`; {OFFLINE}"
    )


@contextlib.contextmanager
def _told(name: str, revision: str | None, size: str, cache: str | None) -> Iterator[None]:
    """Errors of the network as one line about the model ``name``."""
    from huggingface_hub import constants, errors

    if constants.HF_HUB_OFFLINE:
        raise UsageError(
            f"{name} is not in {cache or 'the local cache'} and HF_HUB_OFFLINE is set; unset "
            f"it to download {size}, or type model.weights=FOLDER; {OFFLINE}"
        )
    try:
        yield
    except UsageError:
        raise
    except errors.GatedRepoError as error:
        raise UsageError(_gate(name)) from error
    except (errors.RepositoryNotFoundError, errors.RevisionNotFoundError) as error:
        raise UsageError(
            f"the hub has no {name} at revision {revision or 'main'}; check model.id "
            f"and model.revision; {OFFLINE}"
        ) from error
    except Exception as error:  # each network library has its own errors; all mean the same here
        raise UsageError(
            f"cannot download {name} ({size}): {type(error).__name__}; check the network, or "
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


def _check_disk(cache: Path, name: str, gib: float) -> None:
    place = cache
    while not place.exists():
        place = place.parent
    free = shutil.disk_usage(place).free / 2**30
    if free < gib * 1.05 or not os.access(place, os.W_OK):
        raise UsageError(
            f"{name} needs {gib:.3g} GiB in {cache}, which has {free:.1f} GiB "
            f"that can be written; type paths.models=FOLDER on another disk; {OFFLINE}"
        )
