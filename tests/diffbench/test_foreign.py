"""Scripts in other people's styles, held at their call and asked for other prompts."""

from __future__ import annotations

from types import ModuleType
from typing import Any

import numpy as np
import pytest

from engine.diffbench.foreign import is_script, runnable
from engine.models import CHECKPOINTS

MODEL = str(CHECKPOINTS / "sd-mini")
HEAD = f"""
import torch
from diffusers import DDIMScheduler, StableDiffusionPipeline

pipe = StableDiffusionPipeline.from_pretrained({MODEL!r}, dtype=torch.float32)
pipe.scheduler = DDIMScheduler.from_config(pipe.scheduler.config)
"""
FLAT = (
    HEAD
    + """
pipe("warm up", num_inference_steps=1)
image = pipe("a red circle", num_inference_steps=2, guidance_scale=3.0).images[0]
image.save("out.png")
"""
)
SWITCHED = (
    HEAD
    + """
from DeepCache import DeepCacheSDHelper

helper = DeepCacheSDHelper(pipe=pipe)
helper.set_params(cache_interval=2, cache_branch_id=0)
helper.enable()
try:
    pipe("a red circle", num_inference_steps=2)
finally:
    helper.disable()
"""
)
CLASSES = f"""
import argparse

import torch
from diffusers import DiffusionPipeline


class Painter:
    def __init__(self, steps):
        self.pipe = DiffusionPipeline.from_pretrained({MODEL!r}, dtype=torch.float32)
        self.steps = steps

    def __call__(self, prompt):
        return self.pipe(prompt=prompt, num_inference_steps=self.steps).images[0]


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("--prompt", required=True)
    parser.add_argument("--steps", type=int, default=2)
    parser.add_argument("--out", required=True)
    given = parser.parse_args()
    Painter(given.steps)(given.prompt).save(given.out)
"""
PIXART = f"""
import torch
from diffusers import PixArtSigmaPipeline

model = {str(CHECKPOINTS / "pixart-mini")!r}
pipe = PixArtSigmaPipeline.from_pretrained(model, dtype=torch.float32)
pipe("a red circle", num_inference_steps=2, height=64, width=64, use_resolution_binning=False)
"""
DIT = f"""
import torch
from diffusers import DiTPipeline

pipe = DiTPipeline.from_pretrained({str(CHECKPOINTS / "dit-mini")!r}, dtype=torch.float32)
pipe(class_labels=[207], num_inference_steps=2)
"""
METHOD = (
    HEAD
    + """
from types import MethodType


def gated(self, *arguments, gate_step=1, **options):
    self.seen = gate_step
    return self(*arguments, **options)


pipe.gated = MethodType(gated, pipe)
pipe.gated("a red circle", gate_step=5, num_inference_steps=2)
"""
)


def program(text: str) -> tuple[Any, Any]:
    """The functions of a script as the worker gets them, and the pipeline it is held with."""
    module = ModuleType("accelerated")
    exec(compile(runnable(text), "accelerated.py", "exec"), module.__dict__)
    return module, module.load_pipeline("cpu")


def drawn(module: Any, pipe: Any, prompt: str, seed: int) -> Any:
    (image,) = module.generate(pipe, prompt, seed=seed)
    return np.asarray(image)


@pytest.fixture
def passes(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Calls of the denoiser's middle, which a feature cache leaves out."""
    from diffusers.models.unets.unet_2d_blocks import UNetMidBlock2DCrossAttn

    found: list[int] = []
    whole = UNetMidBlock2DCrossAttn.forward

    def forward(self: Any, *args: Any, **kwargs: Any) -> Any:
        found.append(1)
        return whole(self, *args, **kwargs)

    monkeypatch.setattr(UNetMidBlock2DCrossAttn, "forward", forward)
    return found


def test_the_last_call_is_replayed_with_other_prompts_and_seeds(passes: list[int]) -> None:
    module, pipe = program(FLAT)
    assert type(pipe.scheduler).__name__ == "DDIMScheduler"
    passes.clear()
    first = drawn(module, pipe, "a red circle on a white background", 1)
    assert len(passes) == 2, "the script's own steps, not those of its warm-up"
    assert pipe.guidance_scale == 3.0
    assert (drawn(module, pipe, "a red circle on a white background", 1) == first).all()
    assert (drawn(module, pipe, "a red circle on a white background", 2) != first).any()
    assert (drawn(module, pipe, "a blue square on a black background", 1) != first).any()


def test_what_a_script_switches_off_after_its_call_is_on_in_the_replay(passes: list[int]) -> None:
    module, pipe = program(SWITCHED)
    passes.clear()
    drawn(module, pipe, "a red circle", 1)
    assert len(passes) == 1, "DeepCache leaves out the middle of every second step"


def test_a_class_behind_a_command_line_gets_what_its_user_would_type(passes: list[int]) -> None:
    module, pipe = program(CLASSES)
    passes.clear()
    drawn(module, pipe, "a red circle", 1)
    assert len(passes) == 2


def test_a_script_without_a_negative_prompt_leaves_the_pipelines_own() -> None:
    # None, which others take, is refused by PixArt.
    first, second = (
        drawn(*program(PIXART), prompt, 1) for prompt in ("a red circle", "a blue square")
    )
    assert (first != second).any()


def test_the_class_of_a_script_is_replaced_by_the_scorers() -> None:
    module, pipe = program(DIT)
    one, other, *_ = pipe.labels
    first = drawn(module, pipe, one, 1)
    assert (drawn(module, pipe, one, 1) == first).all()
    assert (drawn(module, pipe, other, 1) != first).any()


def test_a_method_of_its_own_is_what_is_replayed() -> None:
    module, pipe = program(METHOD)
    first = drawn(module, pipe, "a red circle", 1)
    assert pipe.seen == 5
    assert (drawn(module, pipe, "a red circle", 1) == first).all()
    assert (drawn(module, pipe, "a red circle", 2) != first).any()


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("import diffusers\n", "ends without having called a pipeline"),
        ("import no_such_library\n", "no_such_library"),
        (HEAD + "pipe(prompt_embeds=torch.zeros(1, 16, 128))", "embeddings"),
    ],
)
def test_a_script_that_cannot_be_asked_says_why(text: str, said: str) -> None:
    with pytest.raises(Exception, match=said):
        drawn(*program(text), "a red circle", 1)


def test_operations_of_a_held_script_are_counted() -> None:
    from engine.worker import cost

    module, pipe = program(FLAT)
    with cost.counting() as flops:
        drawn(module, pipe, "a red circle", 1)
    assert flops.total() or flops.unknown


def test_a_program_with_the_two_functions_runs_as_it_is() -> None:
    text = "def load_pipeline(device): ...\ndef generate(pipe, prompt, *, seed): ...\n"
    assert not is_script(text)
    assert runnable(text) == text
    assert is_script("def load_pipeline(device): ...\n")
