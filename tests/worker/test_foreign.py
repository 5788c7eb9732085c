"""A stranger's program for a published model and a GPU runs on the miniature, and what was mapped
is told."""

from __future__ import annotations

from pathlib import Path

import pytest
from PIL import Image

from engine.models import CHECKPOINTS
from engine.requests import Request
from engine.worker import foreign
from engine.worker.conversation import Load
from engine.worker.evidence import Evidence
from engine.worker.pool import Pool

SD15 = "stable-diffusion-v1-5/stable-diffusion-v1-5"
MODELS = {SD15: str(CHECKPOINTS / "sd-mini"), "runwayml/stable-diffusion-v1-5": ""}
MODELS = dict.fromkeys(MODELS, str(CHECKPOINTS / "sd-mini"))
DIT = "facebook/DiT-XL-2-256"

STRANGER = """
import torch
from diffusers import AutoPipelineForText2Image, StableDiffusionPipeline
from diffusers import DPMSolverMultistepScheduler

def load_pipeline(device):
    pipe = {cls}.from_pretrained(
        "runwayml/stable-diffusion-v1-5", torch_dtype=torch.float16, variant="fp16",
        revision="main", safety_checker=None, use_safetensors=True,
    )
    pipe.scheduler = DPMSolverMultistepScheduler.from_pretrained(
        "https://huggingface.co/Runwayml/stable-diffusion-v1-5", subfolder="scheduler"
    )
    pipe = pipe.to("cuda")
    pipe.unet.to(memory_format=torch.channels_last)
    return pipe

def generate(pipe, prompt, *, seed):
    generator = torch.Generator(device="cuda").manual_seed(seed)
    assert isinstance(generator, torch.Generator)
    latents = torch.randn(1, 4, 16, 16, device="cuda", dtype=torch.float16)
    assert latents.dtype == torch.float32 and latents.half().device.type == "cpu"
    with torch.inference_mode(), torch.autocast("cuda"):
        images = pipe(
            prompt, height=512, width=768, num_inference_steps=4, generator=generator
        ).images
    torch.cuda.synchronize()
    return images
"""

GATED = """
import torch
from diffusers import StableDiffusionPipeline
from tgate import {loader}

def load_pipeline(device):
    pipe = StableDiffusionPipeline.from_pretrained("{id}", torch_dtype=torch.float32)
    return {loader}(pipe, gate_step=3, num_inference_steps=6)

def generate(pipe, prompt, *, seed):
    seen = []
    note = lambda pipe, step, time, values: seen.append(step)
    generator = torch.Generator().manual_seed(seed)
    images = pipe.tgate(prompt, gate_step={gate}, num_inference_steps=6, generator=generator,
                        callback_on_step_end=note).images
    assert seen == list(range(6))
    return images
"""

NAMED = """
import torch
from diffusers import DiTPipeline

def load_pipeline(device):
    pipe = DiTPipeline.from_pretrained("{id}", torch_dtype=torch.float32)
    pipe.get_label_ids(["golden retriever"])
    return pipe

def generate(pipe, prompt, *, seed):
    generator = torch.Generator().manual_seed(seed)
    ids = pipe.get_label_ids([prompt])
    return pipe(class_labels=ids, num_inference_steps=2, generator=generator).images
"""


def seen(
    pool: Pool, program: str, sides: dict[str, int] | None, denoiser: str = "unet"
) -> Evidence:
    worker = pool.spawn()
    try:
        worker.load(
            Load(
                program=program,
                strategies=(),
                models=MODELS | {DIT: str(CHECKPOINTS / "dit-mini")},
                denoiser=denoiser,
                device="cpu",
                threads=1,
                timeout_s=120.0,
                foreign=sides,
                untrusted=True,
            )
        )
        return worker.evidence(Request.of("a red circle on a white background", 3))
    finally:
        worker.close()


@pytest.mark.parametrize("cls", ["StableDiffusionPipeline", "AutoPipelineForText2Image"])
def test_a_program_for_a_gpu_and_the_published_model_runs_here(pool: Pool, cls: str) -> None:
    found = seen(pool, STRANGER.format(cls=cls), dict.fromkeys(MODELS, 512))
    assert found.pipeline == "StableDiffusionPipeline"
    assert found.delivered == ((64, 96),)
    assert found.latent == (4, 16, 24)
    assert found.dtypes["unet"] == ("float32",)
    assert found.scheduler == "DPMSolverMultistepScheduler"
    assert found.forwards == 4
    told = "\n".join(found.mapped)
    for words in (
        "runwayml/stable-diffusion-v1-5 is the miniature sd-mini here",
        "variant is left out",
        "float16 is float32 here",
        "cuda is cpu here",
        "the generator is on the cpu here",
        "autocast for cuda is off here",
        "height: 512 pixels are 64 here (x 0.125)",
        "width: 768 pixels are 96 here",
    ):
        assert words in told, told


def test_a_class_that_only_the_published_model_knows_is_taken(pool: Pool) -> None:
    found = seen(pool, NAMED.format(id=DIT), {DIT: 256}, "transformer")
    assert "the class golden retriever is the miniature's first here" in found.mapped
    assert not any("red circle" in note for note in found.mapped)


def test_a_program_of_our_own_gets_no_class_that_its_model_does_not_know(pool: Pool) -> None:
    from engine.errors import TrialError

    with pytest.raises(TrialError, match="golden retriever does not exist"):
        seen(pool, NAMED.format(id=DIT), None, "transformer")


def test_a_program_of_our_own_is_not_mapped(pool: Pool) -> None:
    program = GATED.format(loader="TgateSDLoader", id=SD15, gate=2)
    assert seen(pool, program, None).mapped == ("tgate: our implementation stands for the package",)


@pytest.mark.parametrize(
    ("loader", "also"), [("TgateSDLoader", set()), ("TgateSDDeepCacheLoader", {"deepcache"})]
)
def test_a_program_that_imports_tgate_gets_its_gate(
    pool: Pool, loader: str, also: set[str]
) -> None:
    found = seen(pool, GATED.format(loader=loader, id=SD15, gate=2), None)
    assert set(found.methods) == {"tgate"} | also
    assert found.methods["tgate"]["gate_step"] == 2
    assert found.batches == (2, 2, 1, 1, 1, 1)


def test_a_gate_behind_the_last_step_is_refused_in_words(pool: Pool) -> None:
    from engine.errors import TrialError

    with pytest.raises(TrialError, match="gate_step is 9; allowed: 1 to num_inference_steps=6"):
        seen(pool, GATED.format(loader="TgateSDLoader", id=SD15, gate=9), None)


def test_the_miniatures_are_where_the_models_say() -> None:
    assert all(Path(folder, "model_index.json").is_file() for folder in MODELS.values())


def test_a_picture_of_the_miniatures_size_is_taken_as_it_is() -> None:
    mapping = foreign.Foreign({}, [])
    large = 181.0
    published, own = (Image.new("RGB", size) for size in ((512, 384), (64, 48)))
    small = foreign._resized([published, own], 1 / 8, large, mapping)
    assert [one.size for one in small] == [(64, 48), (64, 48)]
    assert mapping.notes == ["image: 512 x 384 pixels are 64 x 48 here"]
