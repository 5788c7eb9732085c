"""Trusted mapping of what a program says to what is here: published ids to local folders."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from engine.worker.foreign import Foreign

RANDOM = "random:"
"""Before a folder of configs without weights: what is loaded from it gets random numbers."""


def map_models(models: dict[str, str], device: str, foreign: Foreign | None = None) -> None:
    """Let ``from_pretrained`` find each of these ids in a local folder, and never the network.

    Random numbers are made on the ``device``. The configs of a single-file checkpoint are found in
    the same way. With ``foreign`` an id may be spelt in any way, schedulers, tokenizers and single
    networks are found as well, and keywords are made to fit.
    """
    import diffusers
    from diffusers.loaders.single_file import FromSingleFileMixin

    if not models:
        return
    for cls, build in ((diffusers.DiffusionPipeline, _pipeline), (diffusers.ModelMixin, _network)):
        _patch(cls, build, models, device, foreign)
    if foreign is not None:
        for cls in _others():
            _patch(cls, _nothing, models, device, foreign)
    single = FromSingleFileMixin.from_single_file.__func__

    def from_single_file(cls: Any, name: Any, /, *, config: Any = None, **options: Any) -> Any:
        return single(cls, name, config=models.get(str(config), config), **options)

    FromSingleFileMixin.from_single_file = classmethod(from_single_file)


def _others() -> list[Any]:
    """Further classes that load a part of a model's folder."""
    import diffusers
    import transformers

    kinds = ("Text2Image", "Image2Image", "Inpainting")
    return [
        *(getattr(diffusers, f"AutoPipelineFor{kind}") for kind in kinds),
        diffusers.SchedulerMixin,
        transformers.PreTrainedModel,
        transformers.PreTrainedTokenizerBase,
        transformers.AutoTokenizer,
    ]


def _nothing(cls: Any, *_: Any) -> Any:
    raise ValueError(f"random numbers cannot make a {cls.__name__}")


def _patch(
    cls: Any, build: Any, models: dict[str, str], device: str, foreign: Foreign | None
) -> None:
    original = cls.from_pretrained.__func__

    def from_pretrained(cls: Any, name: Any, *arguments: Any, **options: Any) -> Any:
        if foreign is not None:
            return foreign.load(original, cls, name, arguments, options, models, device)
        folder = models.get(str(name))
        if folder is not None:
            # A folder holds one revision in one form.
            options = {k: v for k, v in options.items() if k not in ("revision", "variant")}
            if folder.startswith(RANDOM):
                return build(
                    cls, Path(folder.removeprefix(RANDOM)), _read(options), device, original
                )
            name = folder
        return original(cls, name, *arguments, **options)

    cls.from_pretrained = classmethod(from_pretrained)


def _pipeline(cls: Any, folder: Path, options: dict[str, Any], device: str, load: Any) -> Any:
    from engine.worker import randomised

    expected, optional = cls._get_signature_keys(cls)
    if set(options) - {"dtype", *expected, *optional}:
        return randomised.through_disk(cls, folder, options, device, load)
    return randomised.pipeline(cls, folder, options.pop("dtype"), device, options)


def _network(cls: Any, folder: Path, options: dict[str, Any], device: str, _load: Any) -> Any:
    from engine.worker import randomised

    dtype = options.pop("dtype")
    if options:
        raise ValueError(f"random numbers cannot take {', '.join(sorted(options))}")
    return randomised.component(folder, "diffusers", cls.__name__, dtype=dtype, device=device)


def _read(options: dict[str, Any]) -> dict[str, Any]:
    """The options without those that say how files are read, and with a dtype."""
    import torch

    files = ("use_safetensors", "local_files_only", "low_cpu_mem_usage", "dtype", "torch_dtype")
    dtype = options.get("dtype") or options.get("torch_dtype") or torch.float32
    return {k: v for k, v in options.items() if k not in files} | {"dtype": dtype}
