"""Watching a loaded pipeline while it draws: the observations that make up ``Evidence``.

Everything is looked for on the pipeline itself, so that it is found whoever wrote the program.
"""

from __future__ import annotations

import contextlib
import functools
import gc
import hashlib
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

from engine.worker import cost, methods, process
from engine.worker.evidence import Evidence
from engine.worker.probe import Counters, guides

SCORERS = (
    "CLIPModel", "AltCLIPModel", "ChineseCLIPModel", "SiglipModel", "Siglip2Model", "AlignModel",
    "BlipForImageTextRetrieval", "Blip2ForImageTextRetrieval", "CLIP", "CustomTextCLIP", "CoCa",
)  # fmt: skip
"""Classes that say how well a picture fits a text."""
BLOCK = 8
"""Side in pixels of the parts in which a picture is compared with what the decoder gave."""


class Watch:
    """What is seen from the start of a request to its end."""

    def __init__(self, pipe: Any, denoiser: str) -> None:
        self.pipe = pipe
        self.network = _original(getattr(pipe, denoiser))
        self.counters = Counters()
        self.units = methods.Units(self.network)
        self.decoded: list[tuple[int, ...]] = []
        self.pictures: list[Any] = []
        self.guidance: list[float] = []
        self.autocast: str | None = None
        self.calls = 0
        self.loads = 0
        self.threads = (0, 0)
        self.background: tuple[str, ...] = ()
        self.processes = 0
        self._ours = 0

    def _forward(self, module: Any, arguments: Any, options: Any) -> None:
        import torch

        self.counters.note(module, arguments, options)
        self.units.forward()
        kind = next(module.parameters()).device.type
        if torch.is_autocast_enabled(kind):
            self.autocast = process.short(torch.get_autocast_dtype(kind))
        scale = getattr(self.pipe, "_guidance_scale", None)
        if isinstance(scale, int | float) and (not self.guidance or self.guidance[-1] != scale):
            self.guidance.append(float(scale))

    @contextlib.contextmanager
    def watching(self) -> Iterator[None]:
        """Count inside the block; nothing of it stays behind."""
        with contextlib.ExitStack() as stack:
            handles = [self.network.register_forward_pre_hook(self._forward, with_kwargs=True)]
            handles += self.units.hooks()
            self._ours = len(handles)
            for handle in handles:
                stack.callback(handle.remove)
            stack.enter_context(self._decodes())
            stack.enter_context(self._calls())
            stack.enter_context(self._loads())
            before = process.threads()
            yield
            # A thread that was asked to end needs a moment.
            time.sleep(0.05)
            self.threads = (before, process.threads())
            self.background, self.processes = process.background(), process.processes()

    @contextlib.contextmanager
    def _decodes(self) -> Iterator[None]:
        coder = getattr(self.pipe, "vae", None)
        if coder is None or not hasattr(coder, "decode"):
            yield
            return
        original, own = coder.decode, "decode" in vars(coder)

        @functools.wraps(original)
        def decode(latents: Any, *rest: Any, **options: Any) -> Any:
            self.decoded.append(tuple(int(n) for n in latents.shape))
            result = original(latents, *rest, **options)
            self.pictures += list(result.sample if hasattr(result, "sample") else result[0])
            return result

        coder.decode = decode
        try:
            yield
        finally:
            if own:
                coder.decode = original
            else:
                del coder.decode

    @contextlib.contextmanager
    def _calls(self) -> Iterator[None]:
        """Count calls of the pipeline, or of another one of the same class made from it."""
        cls = type(self.pipe)
        original = cls.__call__

        @functools.wraps(original)
        def called(pipe: Any, *rest: Any, **options: Any) -> Any:
            self.calls += 1
            return original(pipe, *rest, **options)

        cls.__call__ = called
        try:
            yield
        finally:
            cls.__call__ = original

    @contextlib.contextmanager
    def _loads(self) -> Iterator[None]:
        """Count what is loaded inside of a call, where no limit of a load would see it."""
        import diffusers
        import transformers

        kept = []

        def counting(original: Any) -> Any:
            def from_pretrained(cls: Any, *rest: Any, **options: Any) -> Any:
                self.loads += 1
                return original.__func__(cls, *rest, **options)

            return classmethod(from_pretrained)

        kinds = (diffusers.DiffusionPipeline, diffusers.ModelMixin, transformers.PreTrainedModel)
        for cls in kinds:
            original = vars(cls)["from_pretrained"]
            kept.append((cls, original))
            cls.from_pretrained = counting(original)
        try:
            yield
        finally:
            for cls, original in kept:
                cls.from_pretrained = original

    def hooks(self) -> int:
        """Forward hooks in the denoiser that the program put there."""
        ours = self._ours + 1  # the counters that stay
        found = sum(
            len(m._forward_hooks) + len(m._forward_pre_hooks) for m in self.network.modules()
        )
        return max(0, found - ours)


def evidence(
    pipe: Any,
    denoiser: str,
    shapes: Mapping[str, str],
    mapped: Sequence[str],
    opened: list[str],
    draw: Callable[[], list[Any]],
    asked: int,
) -> Evidence:
    """Observe one request; ``draw`` answers it with PIL images, ``asked`` is their number.

    ``opened`` is filled from outside while the request runs (``process.note_files``).
    """
    watch = Watch(pipe, denoiser)
    opened.clear()
    # A compiled graph hides its modules, and the hooks on them.
    with cost.eagerly(), watch.watching():
        images = draw()
        hooks = watch.hooks()
    seen = tuple(sorted(set(opened)))
    found, dead = watch.units.found(pipe, watch.network, watch.counters)
    return Evidence(
        pipeline=type(pipe).__name__,
        scheduler=_class(getattr(pipe, "scheduler", None)),
        timesteps=timesteps(pipe),
        forwards=watch.counters.forwards,
        batches=tuple(watch.counters.batches),
        latent=tuple(watch.counters.sample),
        decoded=tuple(watch.decoded),
        delivered=tuple((int(image.height), int(image.width)) for image in images),
        images=len(images),
        dtypes=dtypes(pipe),
        computed=tuple(sorted(watch.counters.dtypes)),
        autocast=watch.autocast,
        shapes=dict(shapes),
        methods=found,
        dead=dead,
        guided=guided(pipe, watch.counters, asked),
        guidance=tuple(watch.guidance),
        hooks=hooks,
        threads=watch.threads,
        background=watch.background,
        processes=watch.processes,
        calls=watch.calls,
        loads=watch.loads,
        retouched=retouched(watch.pictures, images),
        scored=scorers(pipe),
        opened=seen,
        mapped=tuple(mapped),
        numerics=process.numerics(),
    )


def retouched(decoded: Sequence[Any], images: Sequence[Any]) -> float | None:
    """Root mean square distance, in grey levels, of the block of 8 by 8 pixels that differs most
    from what the decoder gave for it; None where sizes or numbers differ.

    Over a whole image a short word on a dark ground would be as little as a watermark everywhere.
    """
    import numpy as np

    worst = 0.0
    if len(decoded) < len(images):
        return None
    for tensor, image in zip(decoded[len(decoded) - len(images) :], images, strict=True):
        own = np.asarray(image.convert("RGB"), np.float64)
        values = tensor.detach().float().cpu().numpy()
        if values.ndim != 3 or values.shape[1:] != own.shape[:2] or len(values) != 3:
            return None
        given = 255 * np.clip(values.transpose(1, 2, 0) / 2 + 0.5, 0, 1)
        height, width = own.shape[:2]
        apart = np.pad((own - given) ** 2, ((0, -height % BLOCK), (0, -width % BLOCK), (0, 0)))
        blocks = apart.reshape(len(apart) // BLOCK, BLOCK, -1, BLOCK, 3).mean(axis=(1, 3, 4))
        worst = max(worst, float(np.sqrt(blocks.max())))
    return worst


def guided(pipe: Any, counters: Counters, asked: int) -> bool | None:
    """Whether the denoiser ever saw both halves of the guidance: in one batch, or one after the
    other; None where the pipeline has no such guidance."""
    if not guides(pipe):
        return None
    both = any(rows >= 2 * asked for rows in counters.batches)
    return both or counters.forwards >= 2 * max(1, len(timesteps(pipe)))


def timesteps(pipe: Any) -> tuple[float, ...]:
    """The timesteps that the last call ran: the end of the scheduler's list where the pipeline
    started from an image."""
    held = getattr(getattr(pipe, "scheduler", None), "timesteps", None)
    if held is None:
        return ()
    values = [float(t) for t in held]
    ran = getattr(pipe, "_num_timesteps", None)
    return tuple(values[-ran:] if isinstance(ran, int) and 0 < ran < len(values) else values)


def dtypes(pipe: Any) -> dict[str, tuple[str, ...]]:
    """Component to the dtypes of its parameters, the one of most values first."""
    found: dict[str, tuple[str, ...]] = {}
    for name, component in _components(pipe).items():
        counts: dict[str, int] = {}
        for tensor in component.parameters():
            kind = process.short(tensor.dtype)
            counts[kind] = counts.get(kind, 0) + tensor.numel()
        if counts:
            found[name] = tuple(sorted(counts, key=lambda kind: -counts[kind]))
    return found


def fingerprints(pipe: Any) -> dict[str, str]:
    """Component to the hash of the shapes of its weights, as a folder of it would hold them."""
    return {name: fingerprint(_shapes(one)) for name, one in _components(pipe).items()}


def fingerprint(shapes: Sequence[tuple[int, ...]]) -> str:
    """16 hexadecimal digits that name a collection of shapes, in any order."""
    text = ";".join(sorted(str(tuple(shape)) for shape in shapes))
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def _shapes(component: Any) -> list[tuple[int, ...]]:
    """Shapes of what is stored of a network: values that several names share count once."""
    seen: set[tuple[int, tuple[int, ...]]] = set()
    found = []
    for tensor in component.state_dict().values():
        if not hasattr(tensor, "is_floating_point") or not tensor.is_floating_point():
            continue
        shape = tuple(int(n) for n in tensor.shape)
        place = (tensor.data_ptr(), shape)
        if tensor.device.type == "meta" or place not in seen:
            found.append(shape)
        seen.add(place)
    return found


def _components(pipe: Any) -> dict[str, Any]:
    """The networks of a pipeline by name; empty for what is no pipeline."""
    import torch

    parts: Mapping[str, Any] = getattr(pipe, "components", {})
    return {k: _original(v) for k, v in parts.items() if isinstance(v, torch.nn.Module)}


def _original(network: Any) -> Any:
    """A network behind the wrapper of ``torch.compile``."""
    return getattr(network, "_orig_mod", network)


def scorers(pipe: Any) -> tuple[str, ...]:
    """Models of image-text similarity that are alive and do not belong to the pipeline."""
    import torch

    own = {id(m) for c in _components(pipe).values() for m in c.modules()}
    found = {
        type(thing).__name__
        for thing in gc.get_objects()
        if issubclass(type(thing), torch.nn.Module)
        and type(thing).__name__ in SCORERS
        and id(thing) not in own
    }
    return tuple(sorted(found))


def _class(thing: Any) -> str | None:
    return None if thing is None else type(thing).__name__
