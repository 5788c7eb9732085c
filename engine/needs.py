"""Why a technique cannot be used, as far as no loaded pipeline is needed to say so: what the
machine lacks, weights that a technique brings, and what follows from the settings of a model alone.

What depends on the pipeline is asked in the worker (``engine.worker.probe``) and kept for listings
in ``engine.capabilities``. Nothing here imports torch.
"""

from __future__ import annotations

import shutil
from importlib.metadata import PackageNotFoundError, version
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from engine.strategy import Needs, Strategy


def unmet_by_machine(needs: Needs, device: str, dtype: str) -> str | None:
    """The first need that this machine does not meet, in words, or None.

    ``device`` is cpu or cuda, ``dtype`` that of the denoiser's weights.
    """
    if needs.devices and device not in needs.devices:
        return f"it needs {' or '.join(needs.devices)}, this runs on {device}"
    if needs.tools and device == "cpu" and not any(map(shutil.which, needs.tools)):
        return f"it needs one of these programs: {', '.join(needs.tools)}"
    if needs.dtypes and dtype not in needs.dtypes:
        return f"it needs {' or '.join(needs.dtypes)}, the denoiser is {dtype}"
    for library in needs.libraries:
        name = library.partition("=")[0].rstrip("><~!")
        try:
            version(name)
        except PackageNotFoundError:
            return f"{name} is not installed: pip install '{library}'"
    return None


def too_new(strategy: Strategy, gene: str, value: object, capability: float | None) -> str | None:
    """Why a gene cannot have a value on a CUDA device of that compute capability, or None; None of
    a capability, as on a CPU or a device that nobody has looked at, refuses nothing."""
    for name, beyond, least in strategy.needs.capability:
        if (name, beyond) == (gene, value) and capability is not None and capability < least:
            return f"it needs compute capability {least:g}, this device has {capability:g}"
    return None


def absent(repository: str, cache: str | None = None) -> str | None:
    """Why weights of a technique's own cannot be used here, or None: they are not in ``cache``, by
    default the hub library's. A worker downloads nothing."""
    from huggingface_hub import try_to_load_from_cache

    for file in ("config.json", "diffusion_pytorch_model.safetensors"):
        if not isinstance(try_to_load_from_cache(repository, file, cache_dir=cache), str):
            return f"{repository} is not in the hub's cache: hf download {repository}"
    return None


def idle(strategy: Strategy, steps: int, guidance_scale: float) -> str | None:
    """Why a technique has nothing to do for a model that its authors run with these ``steps`` and
    this ``guidance_scale``, or None.

    Pipelines guide only where the scale exceeds 1; a sampler that takes at least as many steps as
    the model itself only slows it down.
    """
    if strategy.needs.guidance and guidance_scale <= 1:
        return f"this model runs without guidance (model.guidance_scale={guidance_scale:g})"
    for gene in strategy.genes.values():
        fewest = min((v for v in gene.values() if isinstance(v, int | float)), default=None)
        if gene.sets == "steps" and fewest is not None and fewest > steps:
            return f"it takes at least {fewest} steps, this model {steps}"
    return None
