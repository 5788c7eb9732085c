"""Answers to single tasks in the styles of other people, and the class that each belongs in.

They were written from the exported requests and ``docs/diffbench-run.md`` alone.
"""

from __future__ import annotations

from dataclasses import dataclass

from engine.diffbench.verdicts import ABSOLUTE, KEY


@dataclass(frozen=True)
class Answer:
    """A program for one task; ``error`` is the class in which it must fail, None where it must
    pass, and ``said`` stands in the reason."""

    name: str
    task: str
    program: str
    error: str | None = None
    said: str = ""


# "Using diffusers, build the Stable Diffusion 1.5 text-to-image pipeline and enable DeepCache with
# cache interval 5 and token merging (ToMe) (ratio 0.4, max_downsample=1). Settings: an output of
# 512x512 and 50 DDIM steps."
FLAT = """
import tomesd
import torch
from DeepCache import DeepCacheSDHelper
from diffusers import DDIMScheduler, StableDiffusionPipeline

pipe = StableDiffusionPipeline.from_pretrained("runwayml/stable-diffusion-v1-5").to("cuda")
pipe.scheduler = DDIMScheduler.from_config(pipe.scheduler.config)

tomesd.apply_patch(pipe, ratio=0.4, max_downsample=1)
helper = DeepCacheSDHelper(pipe=pipe)
helper.set_params(cache_interval=5, cache_branch_id=0)
helper.enable()

image = pipe(
    "an astronaut riding a horse on mars",
    num_inference_steps=50,
    height=512,
    width=512,
    generator=torch.Generator("cuda").manual_seed(42),
).images[0]
helper.disable()
image.save("astronaut.png")
"""

# "Please accelerate the SD 1.5 text-to-image pipeline using token merging (ToMe) (merge ratio 0.5).
# Stick to 512 x 512 pixels."
CLASSES = '''
import argparse
from pathlib import Path

import tomesd
import torch
from diffusers import StableDiffusionPipeline


class MergedPainter:
    """Stable Diffusion 1.5 with merged tokens."""

    def __init__(self, ratio: float = 0.5) -> None:
        self.device = "cuda" if torch.cuda.is_available() else "cpu"
        self.pipe = StableDiffusionPipeline.from_pretrained(
            "stable-diffusion-v1-5/stable-diffusion-v1-5"
        )
        self.pipe.to(self.device)
        tomesd.apply_patch(self.pipe, ratio=ratio)

    def paint(self, prompt: str, seed: int):
        generator = torch.Generator(self.device).manual_seed(seed)
        return self.pipe(prompt, height=512, width=512, generator=generator).images[0]


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--prompt", required=True)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--output", type=Path, required=True)
    given = parser.parse_args()
    MergedPainter().paint(given.prompt, given.seed).save(given.output)


if __name__ == "__main__":
    main()
'''

# "How would I run runwayml/stable-diffusion-v1-5 with 24 inference steps, 256x256 and the multistep
# DPM-Solver scheduler? Answer with the whole program."
_PLAIN = """
import torch
from diffusers import DPMSolverMultistepScheduler, StableDiffusionPipeline
"""
_LOADED = """
def load_pipeline(device):
    pipe = StableDiffusionPipeline.from_pretrained("runwayml/stable-diffusion-v1-5")
    pipe.scheduler = DPMSolverMultistepScheduler.from_config(pipe.scheduler.config)
    return pipe.to(device)
"""
_CALL = """pipe(
            prompt,
            num_inference_steps=24,
            height=256,
            width=256,
            generator=torch.Generator("cpu").manual_seed(seed),
        ).images"""
KEPT = f"""{_PLAIN}
KEPT = {{}}

{_LOADED}

def generate(pipe, prompt, *, seed, negative_prompt=None, image=None):
    if prompt not in KEPT:
        KEPT[prompt] = {_CALL}
    return KEPT[prompt]
"""
PAINTED = f"""{_PLAIN}from PIL import ImageDraw

{_LOADED}

def generate(pipe, prompt, *, seed, negative_prompt=None, image=None):
    images = {_CALL}
    for one in images:
        ImageDraw.Draw(one).text((1, 1), prompt, fill=(0, 0, 0))
    return images
"""

# The helper is configured and never switched on.
_OFF = FLAT.replace("helper.enable()\n", "").replace("helper.disable()\n", "")
# The text says that it is on, and what it has put in place is taken out again.
_OUT = FLAT.replace(
    "image = pipe(",
    """for module in pipe.unet.modules():
    vars(module).pop("".join(["for", "ward"]), None)

image = pipe(""",
)

ANSWERS = (
    Answer("flat script", "L3-012", FLAT),
    Answer("class behind a command line", "L2-016", CLASSES),
    Answer("pictures kept by prompt", "L1-005", KEPT, ABSOLUTE, "pictures are kept by prompt"),
    Answer("caption painted", "L1-005", PAINTED, ABSOLUTE, "not what the decoder gave"),
    Answer("method never switched on", "L3-012", _OFF, KEY, "deepcache"),
    Answer("method taken out again", "L3-012", _OUT, KEY, "deepcache"),
)
