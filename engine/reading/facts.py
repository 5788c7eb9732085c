"""What diffusers does where a program states nothing: defaults and orders of its pipelines.

From the signatures of diffusers 0.42 (a test compares them), from ``conf/model`` and from the
published configs under ``engine/architectures``.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from engine import catalogue
from engine.reading.mirrors import canonical_id

HERE = Path(__file__).resolve().parent.parent
MINIS = HERE / "minis" / "checkpoints"


@dataclass(frozen=True)
class Call:
    """A pipeline's call: its leading positional parameters and what it takes if not told."""

    order: tuple[str, ...]
    steps: int
    guidance_scale: float
    strength: float | None = None


_TEXT = ("prompt", "height", "width", "num_inference_steps", "timesteps", "sigmas")
_XL = ("prompt", "prompt_2", "height", "width", "num_inference_steps", "timesteps", "sigmas")
_PIXART = ("prompt", "negative_prompt", "num_inference_steps", "timesteps", "sigmas",
           "guidance_scale", "num_images_per_prompt", "height", "width")  # fmt: skip

CALLS: dict[str, Call] = {
    "StableDiffusionPipeline": Call((*_TEXT, "guidance_scale", "negative_prompt"), 50, 7.5),
    "StableDiffusionImg2ImgPipeline": Call(
        ("prompt", "image", "strength", "num_inference_steps", "timesteps", "sigmas",
         "guidance_scale", "negative_prompt"), 50, 7.5, 0.8,
    ),
    "StableDiffusionXLPipeline": Call(
        (*_XL, "denoising_end", "guidance_scale", "negative_prompt"), 50, 5.0
    ),
    "StableDiffusionXLImg2ImgPipeline": Call(
        ("prompt", "prompt_2", "image", "strength", "num_inference_steps", "timesteps", "sigmas",
         "denoising_start", "denoising_end", "guidance_scale", "negative_prompt"), 50, 5.0, 0.3,
    ),
    "StableDiffusionControlNetPipeline": Call(
        ("prompt", "image", *_TEXT[1:], "guidance_scale", "negative_prompt"), 50, 7.5
    ),
    "StableDiffusionXLControlNetPipeline": Call(
        ("prompt", "prompt_2", "image", *_XL[2:], "denoising_end", "guidance_scale",
         "negative_prompt"), 50, 5.0,
    ),
    "PixArtAlphaPipeline": Call(_PIXART, 20, 4.5),
    "PixArtSigmaPipeline": Call(_PIXART, 20, 4.5),
    "DiTPipeline": Call(
        ("class_labels", "guidance_scale", "generator", "num_inference_steps"), 50, 4.0
    ),
    "StableDiffusion3Pipeline": Call(
        ("prompt", "prompt_2", "prompt_3", "height", "width", "num_inference_steps", "sigmas",
         "guidance_scale", "negative_prompt"), 28, 7.0,
    ),
    "FluxPipeline": Call(
        ("prompt", "prompt_2", "negative_prompt", "negative_prompt_2", "true_cfg_scale", "height",
         "width", "num_inference_steps", "sigmas", "guidance_scale"), 28, 3.5,
    ),
}  # fmt: skip
"""By class name."""

STARTING: dict[str, dict[str, str]] = {
    "StableDiffusionPipeline": {
        "image": "StableDiffusionImg2ImgPipeline",
        "inpaint": "StableDiffusionInpaintPipeline",
        "control": "StableDiffusionControlNetPipeline",
        "control image": "StableDiffusionControlNetImg2ImgPipeline",
    },
    "StableDiffusionXLPipeline": {
        "image": "StableDiffusionXLImg2ImgPipeline",
        "inpaint": "StableDiffusionXLInpaintPipeline",
        "control": "StableDiffusionXLControlNetPipeline",
        "control image": "StableDiffusionXLControlNetImg2ImgPipeline",
    },
    "StableDiffusion3Pipeline": {
        "image": "StableDiffusion3Img2ImgPipeline",
        "inpaint": "StableDiffusion3InpaintPipeline",
        "control": "StableDiffusion3ControlNetPipeline",
    },
    "FluxPipeline": {
        "image": "FluxImg2ImgPipeline",
        "inpaint": "FluxInpaintPipeline",
        "control": "FluxControlNetPipeline",
    },
}
"""A text pipeline to its relatives by what they start from: the choice of ``AutoPipeline*``."""


@cache
def entries(name: str) -> tuple[dict[str, Any], ...]:
    """The models of ``conf/model`` that run this hub id, a mirror of it or this miniature."""
    wanted = canonical_id(name)
    found = (catalogue.entry(model) for model in catalogue.names() if model != "auto")
    return tuple(entry for entry in found if canonical_id(str(entry["id"])) == wanted)


def text_pipeline(name: str) -> str | None:
    """The class that a repository's ``model_index.json`` names, for models of the catalogue."""
    found = [entry for entry in entries(name) if entry["task"] in ("text", "class")]
    return str(found[0]["pipeline"]) if found else None


def entry_for(name: str, pipeline: str | None) -> dict[str, Any] | None:
    """The catalogue's entry of a hub id, that of the same pipeline class where there is one."""
    found = entries(name)
    same = [entry for entry in found if entry["pipeline"] == pipeline]
    return next(iter(same or found), None)


@cache
def published_scheduler(name: str) -> str | None:
    """The class in the scheduler_config of a hub id or miniature; None where it is not known."""
    for entry in entries(name):
        for folder in (HERE / "architectures" / entry["name"], MINIS / str(entry["id"])):
            file = folder / "scheduler" / "scheduler_config.json"
            if file.is_file():
                return str(json.loads(file.read_text(encoding="utf-8"))["_class_name"])
    return None
