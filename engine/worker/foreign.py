"""Trusted mapping of a program for published models and GPUs to the miniatures and processors here.

A program written by a stranger says the published id, half precision, a GPU and the published size.
Under ``weights=mini`` each of these is mapped as the program runs, and what was mapped is noted: it
goes into the evidence. The static reader sees the program's own values.
"""

from __future__ import annotations

import functools
import inspect
import math
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

SMALL = {"use_resolution_binning": False, "clean_caption": False, "max_sequence_length": 16}
"""Keywords of pipelines that miniatures need: sizes are not those that binning knows, their T5
knows 16 tokens, and cleaning needs libraries that are not there."""
CREATE = (
    "randn", "rand", "zeros", "ones", "empty", "full", "tensor", "arange", "linspace", "randint",
)  # fmt: skip
HALF = ("float16", "bfloat16")
CUDA_CALLS = ("synchronize", "reset_peak_memory_stats", "empty_cache", "ipc_collect")
OFFLOADS = ("enable_model_cpu_offload", "enable_sequential_cpu_offload")
XFORMERS = "enable_xformers_memory_efficient_attention"


class Foreign:
    """What is mapped in this process; ``notes`` are its sentences, each once."""

    def __init__(self, sides: Mapping[str, int], notes: list[str]) -> None:
        self.sides = {normal(name): side for name, side in sides.items()}
        self.notes = notes

    def note(self, text: str) -> None:
        if text not in self.notes:
            self.notes.append(text)

    def load(
        self,
        original: Callable[..., Any],
        cls: Any,
        name: Any,
        arguments: Any,
        options: dict[str, Any],
        models: Mapping[str, str],
        device: str,
    ) -> Any:
        """``from_pretrained`` of a class by an id or a folder, with what fits here."""
        folder = folder_of(models, name)
        if folder is None and cls.__name__ == "ControlNetModel" and not Path(str(name)).exists():
            folder = controlnet_of(models)
        if folder is None:
            return original(cls, name, *arguments, **options)
        if str(name) != Path(folder).name:
            self.note(f"{name} is the miniature {Path(folder).name} here")
        options = options_of(options, device, self)
        if _has_weights(cls) and not {"torch_dtype", "dtype"} & set(options):
            # Miniatures are stored in half precision; published weights are float32 unless a
            # variant is asked for, and that is what some classes take as their default.
            options["dtype"] = _float32()
        found = original(cls, folder, *arguments, **options)
        pipe = found[0] if isinstance(found, tuple) else found
        if hasattr(pipe, "components"):
            self.scaled(pipe, str(name))
        if hasattr(pipe, "get_label_ids"):
            self.named(pipe)
        return found

    def named(self, pipe: Any) -> None:
        """Let a loaded DiT take the names of classes that only the published one knows."""
        own = pipe.get_label_ids

        def get_label_ids(label: Any) -> Any:
            if isinstance(label, list) and (strange := [n for n in label if n not in pipe.labels]):
                self.note(f"the class {strange[0]} is the miniature's first here")
                label = [next(iter(pipe.labels)) if n in strange else n for n in label]
            return own(label)

        pipe.get_label_ids = get_label_ids

    def scaled(self, pipe: Any, name: str) -> None:
        """Let a loaded pipeline take published pixels: they are scaled to the miniature's."""
        own = side_of(pipe)
        published = self.sides.get(normal(name))
        factor = own / published if own and published else 1.0
        wrap_call(type(pipe))
        # Whoever measures a program may hand in pictures that are the miniature's already.
        large = math.sqrt(own * published) if own and published else 0.0
        pipe._foreign = (factor, large, self)


def _has_weights(cls: Any) -> bool:
    return not cls.__name__.endswith(("Scheduler", "SchedulerMixin", "Tokenizer", "TokenizerFast"))


def _float32() -> Any:
    import torch

    return torch.float32


def normal(name: str) -> str:
    """A hub id in the form that is compared."""
    return str(name).strip().rstrip("/").removeprefix("https://huggingface.co/").lower()


def side_of(pipe: Any) -> int | None:
    """Pixels of a side of what the pipeline draws by default."""
    network = getattr(pipe, "unet", None) or getattr(pipe, "transformer", None)
    size = getattr(getattr(network, "config", None), "sample_size", None)
    size = size[0] if isinstance(size, list | tuple) else size
    if size is None and hasattr(pipe, "default_sample_size"):
        size = pipe.default_sample_size
    factor = getattr(pipe, "vae_scale_factor", None)
    if factor is None and getattr(pipe, "vae", None) is not None:
        factor = 2 ** (len(pipe.vae.config.block_out_channels) - 1)
    return int(size) * int(factor) if size and factor else None


def wrap_call(cls: Any) -> None:
    """Scale sizes and images in calls of pipelines of a class that were loaded by a mapped id."""
    original = cls.__call__
    if getattr(original, "_foreign", False):
        return
    signature = inspect.signature(original)

    @functools.wraps(original)
    def call(pipe: Any, *arguments: Any, **options: Any) -> Any:
        held = getattr(pipe, "_foreign", None)
        if held is None:
            return original(pipe, *arguments, **options)
        bound = signature.bind_partial(pipe, *arguments, **options)
        factor, large, mapping = held
        given = bound.arguments
        for side in ("height", "width"):
            if isinstance(given.get(side), int) and factor != 1.0:
                small = max(16, round(given[side] * factor / 16) * 16)
                mapping.note(f"{side}: {given[side]} pixels are {small} here (x {factor:g})")
                given[side] = small
        for name in ("image", "control_image"):
            if given.get(name) is not None and factor != 1.0:
                given[name] = _resized(given[name], factor, large, mapping)
        for name, value in SMALL.items():
            if name in signature.parameters and given.get(name) != value:
                if name in given:
                    mapping.note(f"{name}: {given[name]} is {value} here")
                given[name] = value
        return original(*bound.args, **bound.kwargs)

    call._foreign = True  # type: ignore[attr-defined]
    cls.__call__ = call


def _resized(image: Any, factor: float, large: float, mapping: Foreign) -> Any:
    """A picture scaled, where its longer side has at least ``large`` pixels."""
    if isinstance(image, list | tuple):
        return [_resized(one, factor, large, mapping) for one in image]
    if not hasattr(image, "resize") or not hasattr(image, "size") or max(image.size) < large:
        return image
    width, height = (max(16, round(side * factor / 16) * 16) for side in image.size)
    mapping.note(f"image: {image.size[0]} x {image.size[1]} pixels are {width} x {height} here")
    return image.resize((width, height))


def options_of(options: dict[str, Any], device: str, mapping: Foreign) -> dict[str, Any]:
    """Keywords of ``from_pretrained`` as they can be here."""
    kept = dict(options)
    for name in ("revision", "variant", "use_auth_token", "token", "cache_dir", "device_map"):
        if kept.pop(name, None) is not None:
            mapping.note(f"{name} is left out: a miniature has one form")
    if not device.startswith("cuda"):
        for name in ("torch_dtype", "dtype"):
            if name in kept:
                kept[name] = whole(kept[name], mapping)
    return kept


def whole(dtype: Any, mapping: Foreign) -> Any:
    """A dtype as it is computed on a CPU: half precision is float32."""
    import torch

    short = str(dtype).removeprefix("torch.")
    if short in HALF:
        mapping.note(f"{short} is float32 here: there is no GPU")
        return torch.float32 if isinstance(dtype, torch.dtype) else "float32"
    return dtype


def install(sides: Mapping[str, int], device: str, notes: list[str]) -> Foreign:
    """Map what a program says from now on; ``sides`` are the published pixels by hub id."""
    mapping = Foreign(sides, notes)
    if not device.startswith("cuda"):
        _without_gpu(mapping)
    return mapping


def _without_gpu(mapping: Foreign) -> None:
    import diffusers
    import torch
    from torch.utils._device import _device_constructors

    def here(value: Any) -> Any:
        """An argument that names a device or a dtype, as it can be here."""
        if isinstance(value, torch.dtype):
            return whole(value, mapping)
        named = str(value) if isinstance(value, str | torch.device) else ""
        if named.startswith("cuda"):
            mapping.note("cuda is cpu here: there is no GPU")
            return torch.device("cpu")
        return value

    def mapped(function: Callable[..., Any]) -> Callable[..., Any]:
        @functools.wraps(function)
        def call(*arguments: Any, **options: Any) -> Any:
            first, rest = arguments[:1], arguments[1:]
            for name in ("device", "dtype", "torch_device", "torch_dtype"):
                if name in options:
                    options[name] = here(options[name])
            return function(*first, *map(here, rest), **options)

        return call

    def unchanged(name: str) -> Callable[..., Any]:
        def call(self: Any, *_: Any, **__: Any) -> Any:
            mapping.note(f"{name}() does nothing here: there is no GPU")
            return self

        return call

    for cls in (torch.nn.Module, torch.Tensor, diffusers.DiffusionPipeline):
        cls.to = mapped(cls.to)  # type: ignore[method-assign]
    for cls in (torch.nn.Module, torch.Tensor):
        for name in ("cuda", "half", "bfloat16"):
            setattr(cls, name, unchanged(name))
    for name in OFFLOADS:
        setattr(diffusers.DiffusionPipeline, name, unchanged(name))
    for cls in (diffusers.DiffusionPipeline, diffusers.ModelMixin):
        setattr(cls, XFORMERS, unchanged(XFORMERS))
    # The context of a default device knows these functions by identity, and keeps what it finds
    # when it is first asked: with other ones it would make weights where none should be.
    _device_constructors()
    for name in CREATE:
        setattr(torch, name, mapped(getattr(torch, name)))
    for name in CUDA_CALLS:
        setattr(torch.cuda, name, functools.partial(_nothing, name, mapping))
    torch.Generator = _generator(mapping)  # type: ignore[misc]
    torch.autocast = _autocast(mapping)  # type: ignore[misc]
    torch.amp.autocast = torch.autocast  # type: ignore[misc]


def _nothing(name: str, mapping: Foreign, *_: Any, **__: Any) -> None:
    mapping.note(f"torch.cuda.{name}() does nothing here: there is no GPU")


def _generator(mapping: Foreign) -> Any:
    """``torch.Generator`` that makes one on the CPU whatever device is named."""
    import torch

    original = torch.Generator

    class Kind(type):
        def __instancecheck__(cls, thing: Any) -> bool:
            return isinstance(thing, original)

        def __call__(cls, device: Any = "cpu") -> Any:
            if str(device).startswith("cuda"):
                mapping.note("the generator is on the cpu here: there is no GPU")
                device = "cpu"
            return original(device)

    return Kind("Generator", (), {})


def _autocast(mapping: Foreign) -> Any:
    """``torch.autocast`` that changes nothing for a GPU that is not there."""
    import torch

    original = torch.autocast

    class autocast(original):  # type: ignore[misc,valid-type]
        def __init__(self, device_type: str = "cuda", *rest: Any, **options: Any) -> None:
            if str(device_type).startswith("cuda"):
                mapping.note("autocast for cuda is off here: there is no GPU")
                super().__init__("cpu", enabled=False)
            else:
                super().__init__(device_type, *rest, **options)

    return autocast


def folder_of(models: Mapping[str, str], name: Any) -> str | None:
    """The folder for an id in any spelling; None for another id."""
    wanted = normal(str(name))
    return next((folder for known, folder in models.items() if normal(known) == wanted), None)


def controlnet_of(models: Mapping[str, str]) -> str | None:
    """The miniature ControlNet, which stands for whatever ControlNet a program names."""
    for folder in models.values():
        inside = Path(folder) / "controlnet"
        if (inside / "config.json").is_file():
            return str(inside)
    return None
