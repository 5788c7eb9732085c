"""A tiny pipeline of every class that the models use, with random weights, and what it runs."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from PIL import Image

from engine.minis import edges, pipelines, scenes
from engine.program import Subject
from engine.requests import Case, Request

ONE = "a red circle on a white background"
OTHER = "a blue square on a black background"


@dataclass(frozen=True)
class Kind:
    """One pipeline class: the miniature whose networks it takes, and what it draws from."""

    pipeline: str
    mini: str
    denoiser: str = "unet"
    task: str = "text"
    halves: int = 2
    """How often the denoiser sees an image in one step: twice under guidance."""


KINDS = {
    "sd": Kind("StableDiffusionPipeline", "sd-mini"),
    "sd-img2img": Kind("StableDiffusionImg2ImgPipeline", "sd-mini", task="image"),
    "sd-control": Kind("StableDiffusionControlNetPipeline", "sd-mini-controlnet", task="control"),
    "sdxl": Kind("StableDiffusionXLPipeline", "sdxl-mini"),
    "sdxl-img2img": Kind("StableDiffusionXLImg2ImgPipeline", "sdxl-mini", task="image"),
    "sdxl-control": Kind(
        "StableDiffusionXLControlNetPipeline", "sdxl-mini-controlnet", task="control"
    ),
    "pixart-alpha": Kind("PixArtAlphaPipeline", "pixart-mini", "transformer"),
    "pixart-sigma": Kind("PixArtSigmaPipeline", "pixart-mini", "transformer"),
    "dit": Kind("DiTPipeline", "dit-mini", "transformer", "class"),
    "sd3": Kind("StableDiffusion3Pipeline", "sd3-mini", "transformer"),
    "flux": Kind("FluxPipeline", "flux-mini", "transformer", halves=1),
}


def saved(kind: str, root: Path) -> Path:
    """The folder of a kind's pipeline under ``root``, written on first use."""
    known = KINDS[kind]
    folder = root / known.mini
    if not folder.exists():
        pipelines.build_pipeline(known.mini).save_pretrained(folder)
    return folder


def subject(kind: str, folder: Path, **changed: Any) -> Subject:
    """What a program of that kind runs: three steps of 64 x 64 pixels."""
    known = KINDS[kind]
    fields: dict[str, Any] = {
        "name": kind,
        "id": str(folder),
        "revision": None,
        "pipeline": known.pipeline,
        "denoiser": known.denoiser,
        "steps": 3,
        "guidance_scale": 4.0,
        "height": scenes.SIZE,
        "width": scenes.SIZE,
        "miniature": True,
        "device": "cpu",
        "task": known.task,
    }
    return Subject(**(fields | changed))


def case(kind: str, caption: str, folder: Path) -> Case:
    """A case of that kind's task; its image, where it needs one, goes to ``folder``."""
    task = KINDS[kind].task
    if task not in ("image", "control"):
        return Case(caption)
    path = folder / f"{task}-{caption.replace(' ', '-')}.png"
    if not path.exists():
        scene = edges.placed(caption, 3)
        pixels = edges.of(scene) if task == "control" else scenes.render(scene)
        Image.fromarray((255 * pixels).round().astype("uint8")).save(path)
    return Case(caption, image=str(path))


def request(kind: str, folder: Path, *captions: str, seed: int = 1) -> Request:
    return Request(tuple(case(kind, caption, folder) for caption in captions), seed)
