"""The program that the tests of the service run, and how images are compared."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

from PIL import Image

from engine.program import Subject

CHECKPOINT = Path(__file__).resolve().parents[2] / "engine" / "minis" / "checkpoints" / "sd-mini"
SUBJECT = Subject(
    name="sd-mini",
    id="sd-mini",
    revision=None,
    pipeline="StableDiffusionPipeline",
    denoiser="unet",
    steps=4,
    guidance_scale=5.0,
    height=64,
    width=64,
    miniature=True,
    device="cpu",
)
# Every technique that keeps something from one denoiser call to the next.
GENOME: dict[str, dict[str, object]] = {
    "sampler": {"name": "dpmpp_2m", "steps": 5, "spacing": "trailing"},
    "deepcache": {"interval": 2, "branch": 0},
    "tgate": {"gate": 0.7},
    "tome": {"ratio": 0.5, "max_downsample": 2},
    "guidance": {"stop": 0.4},
}


def pixels(image: Any) -> tuple[tuple[int, int], bytes]:
    """Size and pixels of an image or of a PNG file's bytes, to be compared exactly."""
    opened = Image.open(io.BytesIO(image)) if isinstance(image, bytes) else image
    return opened.size, opened.convert("RGB").tobytes()
