"""What a task asks beyond what the totals count: model, size, steps, settings of the methods.

Everything hangs on the slot's id and :data:`VERSION`, so the same slot always asks the same.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence

from engine import catalogue
from engine.diffbench import baselines
from engine.diffbench.allocation import FP16, STABLE, Slot
from engine.diffbench.chance import once_in, pick
from engine.reading import Value
from engine.specification import Specification

VERSION = "1"
"""Of the tasks; a change of any request, specification or baseline changes it."""
MAX_LOSS = 0.05
"""Relative loss of CLIP score that L4 and L5 allow (the paper's sigma)."""

SCHEDULERS = {
    "ddim": "DDIMScheduler",
    "dpmpp_2m": "DPMSolverMultistepScheduler",
    "unipc": "UniPCMultistepScheduler",
}
"""Our name of a sampler to its class in diffusers."""
IMAGE_TO_IMAGE = 6
"""One in so many tasks on Stable Diffusion starts from an image."""
PREPROCESSOR = "canny"
"""What both ControlNets of ``conf/model`` were made for."""
_MODELS = {
    "SD1.5": "sd15",
    "SD2.1": "sd21",
    "SDXL": "sdxl",
    "PixArt-alpha": "pixart-alpha",
    "PixArt-Sigma": "pixart-sigma",
    "DiT": "dit",
}
_CONTROLLED = ("sd15-controlnet", "sd15-controlnet", "sdxl-controlnet")

_Sizes = tuple[tuple[int, int], ...]
_SIZES: dict[str, _Sizes] = {
    "sd15": ((512, 512),) * 5 + ((256, 256), (384, 384), (640, 640), (768, 512), (512, 768)),
    "sd21": ((768, 768),) * 5 + ((512, 512), (576, 576), (640, 640), (768, 576), (576, 768)),
    "sdxl": ((1024, 1024),) * 5 + ((512, 512), (768, 768), (896, 896), (768, 1024), (1024, 768)),
    "pixart": ((1024, 1024),) * 4 + ((512, 512), (768, 768)),
    "dit": ((256, 256),),
}
"""Height and width in pixels by the beginning of the model's name; the published size first."""
_STEPS: dict[str | None, tuple[int, ...]] = {
    None: (20, 25, 30, 40, 50),
    "ddim": (25, 30, 35, 40, 50),
    "dpmpp_2m": (20, 24, 25, 28, 30),
    "unipc": (15, 18, 20, 25, 30),
}
_GUIDANCE = {
    "sd15": (6.0, 7.0, 7.5, 8.0, 9.0),
    "sd21": (6.0, 7.0, 7.5, 8.0, 9.0),
    "sdxl": (5.0, 5.5, 6.0, 7.0),
    "pixart": (4.0, 4.5, 5.0),
    "dit": (3.0, 4.0),
}
_INTERVALS = (2, 3, 3, 4, 5)
_RATIOS = (0.2, 0.3, 0.4, 0.5, 0.5, 0.6)
_GATES = (0.4, 0.5, 0.6)


def specification(slot: Slot, attempt: int = 0) -> Specification:
    """What the slot's task asks, with an empty request; another ``attempt`` asks something else.

    L4 and L5 have no target here: it comes from labels.
    """
    if slot.baseline is not None:
        return _of_baseline(baselines.of(slot.pipeline, slot.baseline))
    words = (VERSION, slot.id, attempt)
    blank = _blank(_model(slot, words))
    family = _family(blank.model)
    asked = dataclasses.replace(
        blank,
        scheduler=SCHEDULERS[slot.sampler] if slot.sampler else None,
        steps=_steps(slot, blank.model, words),
        dtype="float16" if FP16 in slot.methods else None,
        guidance_scale=pick(_GUIDANCE[family], *words, "g") if once_in(5, *words, "cfg") else None,
    )
    silent = slot.level > 1 and asked.steps is not None and once_in(8, *words, "size")
    # An image to start from keeps its size, whatever the program says.
    if not silent and not _from_image(blank.model):
        height, width = pick(_SIZES[family], *words, "pixels")
        asked = dataclasses.replace(asked, height=height, width=width)
    return dataclasses.replace(asked, methods=_methods(slot, asked, words))


def _from_image(model: str) -> bool:
    return bool(catalogue.entry(model)["task"] == "image")


def _family(model: str) -> str:
    """The key of the tables of this module."""
    return next(name for name in _SIZES if model.startswith(name))


def _blank(model: str) -> Specification:
    entry = catalogue.entry(model)
    return Specification(
        request="",
        model=model,
        pipeline=entry["pipeline"],
        model_id=entry["id"],
        controlnet=entry["controlnet"],
        preprocessor=PREPROCESSOR if entry["task"] == "control" else None,
    )


def _of_baseline(baseline: baselines.Baseline) -> Specification:
    sized = not _from_image(baseline.model)
    return dataclasses.replace(
        _blank(baseline.model),
        height=baseline.height if sized else None,
        width=baseline.width if sized else None,
        steps=baseline.keep,
        keep_steps=baseline.keep is not None,
        max_loss=MAX_LOSS,
    )


def _model(slot: Slot, words: Sequence[object]) -> str:
    if slot.pipeline == "ControlNet":
        return pick(_CONTROLLED, *words, "model")
    model = _MODELS[slot.pipeline]
    starts = slot.pipeline in STABLE and once_in(IMAGE_TO_IMAGE, *words, "image")
    return f"{model}-img2img" if starts else model


def _steps(slot: Slot, model: str, words: Sequence[object]) -> int | None:
    """Stated on L1 always, on L2 and L3 in nine of ten, and where an image is started from: of its
    steps only a share runs, so that caches and gates need more of them."""
    if _from_image(model):
        return pick((40, 45, 50), *words, "number of steps")
    if slot.level > 1 and once_in(10, *words, "steps"):
        return None
    return pick(_STEPS[slot.sampler], *words, "number of steps")


def _methods(
    slot: Slot, asked: Specification, words: Sequence[object]
) -> Mapping[str, Mapping[str, Value]]:
    """The named techniques but for FP16, which is the dtype. A quarter states no settings."""
    found: dict[str, dict[str, Value]] = {}
    for name in slot.methods:
        if name == FP16:
            continue
        silent = once_in(4, *words, name)
        found[name] = {} if silent else _settings(name, asked, (*words, name))
    return found


def _settings(name: str, asked: Specification, words: Sequence[object]) -> dict[str, Value]:
    if name == "deepcache":
        found: dict[str, Value] = {"interval": pick(_INTERVALS, *words, "interval")}
        return found | ({"branch": pick((0, 1, 2), *words)} if once_in(4, *words, "b") else {})
    if name == "tome":
        found = {"ratio": pick(_RATIOS, *words, "ratio")}
        # SDXL has no attention at full resolution, so that 1 would merge nothing there.
        levels = (2, 4) if asked.model.startswith("sdxl") else (1, 2)
        return found | ({"max_downsample": pick(levels, *words)} if once_in(4, *words, "d") else {})
    gate = pick(_GATES, *words, "gate")
    # Of an image to start from not all steps run: a step by number would be ambiguous.
    if asked.steps is None or _from_image(asked.model) or once_in(3, *words, "share"):
        return {"gate": gate}
    return {"gate_step": round(gate * asked.steps)}
