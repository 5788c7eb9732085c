"""Requests in plain language: what is understood, which defaults are taken, what is refused."""

from __future__ import annotations

import dataclasses
import json
from typing import Any

import pytest

from engine.diffbench import phrases
from engine.diffbench.tasks import Task, tasks
from engine.errors import UsageError
from engine.phrasing import by_rules
from engine.specification import Specification, Target, from_json, to_json

SPEED, SECONDS, MEMORY = "speedup", "seconds", "memory_gib"
FIELDS = [f.name for f in dataclasses.fields(Specification)]
OF_MODEL = ("request", "notes", "pipeline", "model_id", "controlnet", "preprocessor")


def stated(spec: Specification) -> dict[str, Any]:
    """What a specification says beyond what follows from its model."""
    found = {name: getattr(spec, name) for name in FIELDS if name not in OF_MODEL}
    return {name: value for name, value in found.items() if value not in (None, False, {})}


REQUESTS: list[tuple[str, dict[str, Any]]] = [
    ("SDXL twice as fast, quality within 5 %",
     {"model": "sdxl", "target": Target(SPEED, 2), "max_loss": 0.05}),
    ("FLUX on an H100 in under 3 s",
     {"model": "flux", "hw": "h100", "target": Target(SECONDS, 3), "max_loss": 0.05}),
    ("make stable diffusion 1.5 2.5x faster",
     {"model": "sd15", "target": Target(SPEED, 2.5), "max_loss": 0.05}),
    ("SD1.5 at least 3 times as fast, keep 50 steps, lose at most 2 percent",
     {"model": "sd15", "target": Target(SPEED, 3), "keep_steps": True, "steps": 50,
      "max_loss": 0.02}),
    ("I need PixArt Sigma images in less than 800 ms on a 4090",
     {"model": "pixart-sigma", "hw": "rtx4090", "target": Target(SECONDS, 0.8),
      "max_loss": 0.05}),
    ("sd 2.1 with DeepCache and token merging",
     {"model": "sd21", "methods": {"tome": {}, "deepcache": {}}}),
    ("Stable Diffusion 1.5 with Deep Cache interval 3 and T-GATE at 512x768",
     {"model": "sd15", "methods": {"tgate": {}, "deepcache": {"interval": 3}}, "height": 768,
      "width": 512}),
    ("SDXL with DPM++ 2M Karras, 25 steps, fp16",
     {"model": "sdxl", "scheduler": "DPMSolverMultistepScheduler", "steps": 25,
      "dtype": "float16"}),
    ("SDXL in bf16 with UniPC in 12 steps, guidance scale 6",
     {"model": "sdxl", "scheduler": "UniPCMultistepScheduler", "steps": 12, "dtype": "bfloat16",
      "guidance_scale": 6.0}),
    ("double the speed of sdxl-turbo on my CPU",
     {"model": "sdxl-turbo", "hw": "cpu", "target": Target(SPEED, 2), "max_loss": 0.05}),
    ("halve the latency of FLUX.1-schnell without changing the steps",
     {"model": "flux-schnell", "target": Target(SPEED, 2), "keep_steps": True, "max_loss": 0.05}),
    ("FLUX.1-dev must fit in 12 GB of VRAM",
     {"model": "flux", "target": Target(MEMORY, 12), "max_loss": 0.05}),
    ("SD3.5 medium as fast as possible",
     {"model": "sd3", "max_loss": 0.05}),
    ("speed up SD 2.1 img2img by a factor of 1.8 with no loss of quality",
     {"model": "sd21-img2img", "target": Target(SPEED, 1.8), "max_loss": 0.01}),
    ("SD 1.5 with a canny ControlNet, 30 DDIM steps",
     {"model": "sd15-controlnet", "scheduler": "DDIMScheduler", "steps": 30}),
    ("DiT-XL/2 50 % faster",
     {"model": "dit", "target": Target(SPEED, 1.5), "max_loss": 0.05}),
    ("Generate 2 images per second with SDXL Turbo on an A100 80GB",
     {"model": "sdxl-turbo", "hw": "a100", "target": Target(SECONDS, 0.5), "max_loss": 0.05}),
    ("PixArt-\u03b1, three times faster, keep 95 % of the quality",
     {"model": "pixart-alpha", "target": Target(SPEED, 3), "max_loss": 0.05}),
    ("I want SDXL at 1024\u00d71024 with torch.compile and fused QKV projections",
     {"model": "sdxl", "height": 1024, "width": 1024, "methods": {"qkv_fusion": {},
                                                                   "compile": {}}}),
    ("flux with first block cache on an H200",
     {"model": "flux", "hw": "h200", "methods": {"first_block_cache": {}}}),
    ("FLUX dev in NF4 with CPU offload",
     {"model": "flux", "methods": {"bitsandbytes": {"kind": "nf4"},
                                   "placement": {"mode": "model"}}}),
    ("sd15: ToMe ratio 0.4, UniPC, 20 steps, 768 by 768 pixels",
     {"model": "sd15", "methods": {"tome": {"ratio": 0.4}}, "steps": 20, "height": 768,
      "width": 768, "scheduler": "UniPCMultistepScheduler"}),
    ("use t-gate with gate step 10 on runwayml/stable-diffusion-v1-5, 25 steps",
     {"model": "sd15", "methods": {"tgate": {"gate_step": 10}}, "steps": 25}),
    ("SD 1.5, 40 steps, the gate of T-Gate at 40 % of the steps",
     {"model": "sd15", "methods": {"tgate": {"gate": 0.4}}, "steps": 40}),
    ("SDXL with UniPC instead of Euler in fifteen steps",
     {"model": "sdxl", "scheduler": "UniPCMultistepScheduler", "steps": 15}),
    ("SDXL with DeepCache but not token merging",
     {"model": "sdxl", "methods": {"deepcache": {}}}),
    ("Stable Diffusion XL, image to image, 1.5x speed-up on a GPU",
     {"model": "sdxl-img2img", "hw": "cuda", "target": Target(SPEED, 1.5), "max_loss": 0.05}),
    ("sd-mini thrice as fast",
     {"model": "sd-mini", "target": Target(SPEED, 3), "max_loss": 0.05}),
    ("Draw with SD 1.5 in at most 1.2 seconds per image on an RTX 3090",
     {"model": "sd15", "hw": "cuda", "target": Target(SECONDS, 1.2), "max_loss": 0.05}),
    ("SDXL takes 2.5 s an image today; we need it in under 800 ms",
     {"model": "sdxl", "target": Target(SECONDS, 0.8, 2.5), "max_loss": 0.05}),
    ("FLUX currently takes 12 seconds per image on an H100. Make it twice as fast",
     {"model": "flux", "hw": "h100", "target": Target(SPEED, 2), "max_loss": 0.05}),
    ("sd15 at most 1 s per image on a GPU (the unmodified pipeline needs 3 s)",
     {"model": "sd15", "hw": "cuda", "target": Target(SECONDS, 1, 3), "max_loss": 0.05}),
    ("sd15 so that it takes 1 s an image",
     {"model": "sd15", "target": Target(SECONDS, 1), "max_loss": 0.05}),
    ("stabilityai/stable-diffusion-2-1 at 768px, CFG 9, 30 steps",
     {"model": "sd21", "height": 768, "width": 768, "guidance_scale": 9.0, "steps": 30}),
    ("SD3 with the Euler sampler and twenty steps",
     {"model": "sd3", "scheduler": "FlowMatchEulerDiscreteScheduler", "steps": 20}),
    ("Please run PixArt 4x faster with the same number of steps; CLIP score may drop by 3%",
     {"model": "pixart-sigma", "target": Target(SPEED, 4), "keep_steps": True,
      "max_loss": 0.03}),
    ("I'd like SDXL with cache interval of 4 for DeepCache, branch 1, half precision",
     {"model": "sdxl", "methods": {"deepcache": {"interval": 4, "branch": 1}},
      "dtype": "float16"}),
    ("sd15 on the cpu with int8", {"model": "sd15", "hw": "cpu", "methods": {"dynamic_int8": {}}}),
    ("FLUX schnell with fp8 on a H100",
     {"model": "flux-schnell", "hw": "h100", "methods": {"torchao": {"kind": "fp8_dynamic"}}}),
    ("Just run SDXL", {"model": "sdxl"}),
]  # fmt: skip


@pytest.mark.parametrize(("text", "expected"), REQUESTS, ids=[text for text, _ in REQUESTS])
def test_ordinary_requests_are_understood(text: str, expected: dict[str, Any]) -> None:
    assert stated(by_rules(text)) == expected


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("twice as fast, quality within 5 %", "names no model (nothing was understood)"),
        ("an H100 with DeepCache", "understood: method deepcache"),
        ("SDXL and FLUX twice as fast", "more than one model"),
        ("SDXL with DDIM and UniPC", "more than one sampler"),
        ("SDXL at 512x512 and 1024x1024", "more than one size"),
        ("SDXL in 20 steps or 30 steps", "more than one number of steps"),
        ("SDXL in fp16 and bf16", "more than one number format"),
        ("SDXL on an A100 or an H100", "more than one device"),
        ("SDXL twice as fast in under 3 s", "several targets"),
        ("SDXL 2x faster and 3x faster", "more than one target"),
        ("SDXL 0.5x as fast", "a speed-up of 0.5 is none"),
        ("SDXL takes 2 s today, make it 3 s", "3 s an image is no target where it takes 2 s"),
        ("SDXL takes 2 s today, make it 0 s", "name more than 0 and at most 2 s"),
        ("SDXL takes 2 s today, now it takes 3 s, at most 1 s", "more than one time"),
        ("SDXL within 5 % and within 3 % loss", "more than one bound on loss"),
        ("SDXL at 500x500", "a multiple of 8"),
        ("SDXL with TensorRT", "'tensorrt', which no technique here does"),
        ("PixArt Sigma img2img", "there is no image-to-image pipeline of pixart-sigma"),
        ("some-lab/own-model twice as fast", "model=auto model.id=ORG/NAME"),
        ("SDXL with DeepCache at interval 40", "technique.deepcache.interval is 40"),
        ("SDXL with T-GATE gate step 30 in 20 steps", "lies behind the last of 20 steps"),
        ("", "names no model"),
    ],
)
def test_what_cannot_be_done_is_refused_in_one_line(text: str, words: str) -> None:
    with pytest.raises(UsageError) as caught:
        by_rules(text)
    assert words in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("text", "note"),
    [
        ("stable diffusion twice as fast", "Stable Diffusion is taken as version 1.5"),
        ("FLUX 2x", "FLUX is taken as FLUX.1-dev"),
        ("SDXL 2x", "no loss of quality is named: at most 5% is allowed"),
        ("SDXL as fast as possible", "no target is named: the search takes the time that it has"),
        ("SD 1.5 at 768x512", "768x512 is read as width x height"),
        ("SDXL on an RTX 3080", "there is no profile of that GPU"),
        ("SDXL with DPM++ 2M Karras", "Karras noise levels are not offered"),
        ("SDXL within 8 GB", "GB of memory are taken as GiB"),
        ("SDXL without DeepCache", "'without deepcache' names nothing that is wanted"),
        ("SDXL with an interval of 3", "interval: named without deepcache, left out"),
    ],
)
def test_what_is_ambiguous_takes_a_default_and_says_so(text: str, note: str) -> None:
    assert any(note in found for found in by_rules(text).notes)


def test_a_model_from_elsewhere_stands_where_the_request_names_none() -> None:
    spec = by_rules("twice as fast", model="sd21")
    assert (spec.model, spec.target) == ("sd21", Target(SPEED, 2))
    assert by_rules("SDXL twice as fast", model="sd21").model == "sdxl"


def bare(spec: Specification) -> Specification:
    return dataclasses.replace(spec, request="", notes=())


def test_every_request_of_diffbench_gives_the_whole_specification_back() -> None:
    wrong = [task.id for task in tasks() if bare(by_rules(task.request)) != task_spec(task)]
    assert wrong == []
    assert len(tasks()) == 604


def task_spec(task: Task, **changes: Any) -> Specification:
    return dataclasses.replace(task.specification, request="", notes=(), **changes)


@pytest.mark.parametrize("hw", sorted(phrases.DEVICES))
def test_requests_with_targets_from_labels_are_understood_too(hw: str) -> None:
    for task in (task for task in tasks() if task.level > 3):
        filled = task.request
        for name, value in (
            (phrases.SPEEDUP, "2.37"), (phrases.SECONDS, "0.842"),
            (phrases.DEVICE, phrases.DEVICES[hw]),
        ):  # fmt: skip
            filled = filled.replace(name, value)
        target = Target(SPEED, 2.37) if task.level == 4 else Target(SECONDS, 0.842)
        device = None if task.level == 4 else hw
        assert bare(by_rules(filled)) == task_spec(task, target=target, hw=device)


def test_a_specification_survives_json() -> None:
    for text, _ in REQUESTS:
        spec = by_rules(text)
        assert from_json(json.loads(json.dumps(to_json(spec)))) == spec
