"""Wrong programs: each is a reference with one thing done wrong, and has a class to fail in.

Pure functions of the text that our generator writes. ``None`` says that a mutant does not apply: no
step number is stated that could be wrong, no method that could be missing.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass

from engine.diffbench.tasks import Task
from engine.diffbench.verdicts import ABSOLUTE, KEY, SPEED

OTHER_CLASS = {
    "StableDiffusionPipeline": "StableDiffusionXLPipeline",
    "StableDiffusionImg2ImgPipeline": "StableDiffusionPipeline",
    "StableDiffusionControlNetPipeline": "StableDiffusionControlNetImg2ImgPipeline",
    "StableDiffusionXLPipeline": "StableDiffusionPipeline",
    "StableDiffusionXLImg2ImgPipeline": "StableDiffusionXLPipeline",
    "StableDiffusionXLControlNetPipeline": "StableDiffusionXLControlNetImg2ImgPipeline",
    "PixArtAlphaPipeline": "PixArtSigmaPipeline",
    "PixArtSigmaPipeline": "PixArtAlphaPipeline",
    "DiTPipeline": "PixArtAlphaPipeline",
}
CALLED = "            output = pipe(\n"
RETURNED = "    return list(output.images)\n"
APPLIED = "    return pipe\n\n\ndef generate("
DENOISER = 'getattr(pipe, "unet", None) or pipe.transformer'

Change = Callable[[str, Task], str | None]


@dataclass(frozen=True)
class Mutant:
    """One way to be wrong, and the class that it belongs in."""

    name: str
    error: str
    change: Change
    static: bool = False
    """Whether the text alone shows it."""
    targets: bool = False
    """Whether only tasks with a target can tell."""


def before_call(code: str) -> Change:
    """Run code inside every call."""
    lines = "".join(f"            {line}\n" for line in code.splitlines())
    return lambda text, _task: replaced(text, CALLED, lines + CALLED)


def after_accelerate(code: str) -> Change:
    """Run code on the accelerated pipeline, once."""
    lines = "".join(f"    {line}\n" for line in code.splitlines())
    return lambda text, _task: replaced(text, APPLIED, lines + APPLIED)


def replaced(text: str, old: str, new: str) -> str:
    """The text with one thing replaced that must be there."""
    assert text.count(old) == 1, f"{old!r} stands {text.count(old)} times in the program"
    return text.replace(old, new)


def wrong_class(text: str, task: Task) -> str:
    name = task.specification.pipeline
    return re.sub(rf"\b{name}\b", OTHER_CLASS[name], text)


def wrong_model(text: str, task: Task) -> str:
    return text.replace(repr(task.specification.model_id), "'somebody/another-model'")


def wrong_scheduler(text: str, task: Task) -> str | None:
    if task.specification.scheduler is None:
        return None
    other = "unipc" if "name='ddim'" in text else "ddim"
    return re.sub(r"name='(ddim|dpmpp_2m|unipc)'", f"name='{other}'", text)


def wrong_steps(text: str, task: Task) -> str | None:
    steps = task.specification.steps
    return text.replace(f"steps={steps},", f"steps={steps - 1},") if steps else None


def wrong_resolution(text: str, task: Task) -> str | None:
    height = task.specification.height
    if task.specification.pipeline == "DiTPipeline":
        # Its size is that of its weights.
        return text.replace("DiT-XL-2-256", "DiT-XL-2-512")
    return text.replace(f"    height={height},", f"    height={height - 64},") if height else None


def wrong_preprocessor(text: str, task: Task) -> str | None:
    if task.specification.controlnet is None:
        return None
    net = task.specification.controlnet
    return text.replace(repr(net), repr(net.replace("canny", "depth")))


def _last_method(task: Task) -> str | None:
    return next(reversed(list(task.specification.methods)), None)


def method_missing(text: str, task: Task) -> str | None:
    name = _last_method(task)
    if name is None:
        half = task.specification.dtype == "float16"
        return text.replace("dtype='float16'", "dtype='float32'") if half else None
    text = re.sub(rf"    {name}_(apply|reset)\(pipe.*\n", "", text)
    return re.sub(rf"        {name}_call\(pipe.*\n", "        {},\n", text)


def method_dead(text: str, task: Task) -> str | None:
    name = _last_method(task)
    if name is None:
        return None
    return re.sub(rf"    ({name}_apply\(pipe.*\n)", r"    if CTX.steps < 0:\n        \1", text)


def method_undone(text: str, task: Task) -> str | None:
    """Applied as the text says, and taken out again in a way that no reader can see."""
    if _last_method(task) is None:
        return None
    code = f"""\
for module in ({DENOISER}).modules():
    vars(module).pop("".join(["for", "ward"]), None)
    module._forward_hooks.clear()
    for key, hook in list(module._forward_pre_hooks.items()):
        # Its partner behind the denoiser is gone; the scorer's own hooks are not ours to take.
        if "Gate" in getattr(hook, "__qualname__", ""):
            del module._forward_pre_hooks[key]
    if hasattr(module, "_parent"):
        module.__class__ = module._parent
settings.pop("callback_on_step_end", None)"""
    return before_call(code)(text, task)


HALVED = f"""\
import torch
kinds = [k for k in vars(torch).values() if isinstance(k, torch.dtype) and k.is_floating_point]
small = next(k for k in kinds if k.itemsize == 2 and torch.finfo(k).max > 1e38)
({DENOISER}).to(small)"""
RUINED = f"""\
import torch
chance = torch.Generator("cpu").manual_seed(0)
with torch.no_grad():
    for weight in ({DENOISER}).parameters():
        noise = torch.randn(weight.shape, generator=chance).to(weight)
        weight += 0.5 * weight.float().std(correction=0).to(weight) * noise"""
PAINTED = """\
    from PIL import ImageDraw

    for shown in output.images:
        ImageDraw.Draw(shown).text((2, 2), str(prompt), fill=(0, 0, 0))
"""


def painted(text: str, task: Task) -> str:
    return replaced(text, RETURNED, PAINTED + RETURNED)


MUTANTS = (
    Mutant("wrong class", KEY, wrong_class, static=True),
    Mutant("wrong model", KEY, wrong_model, static=True),
    Mutant("wrong scheduler", KEY, wrong_scheduler, static=True),
    Mutant("wrong steps", KEY, wrong_steps, static=True),
    Mutant("wrong resolution", KEY, wrong_resolution, static=True),
    Mutant("wrong preprocessor", KEY, wrong_preprocessor, static=True),
    Mutant("method missing", KEY, method_missing, static=True),
    Mutant("method dead", KEY, method_dead, static=True),
    Mutant("method undone", KEY, method_undone),
    Mutant("undeclared precision", KEY, after_accelerate(HALVED)),
    Mutant("load hidden in the call", KEY, before_call("load_pipeline(CTX.device)")),
    Mutant("ruined quality", ABSOLUTE, after_accelerate(RUINED)),
    Mutant("caption painted as text", ABSOLUTE, painted),
    Mutant("too slow", SPEED, before_call("__import__('time').sleep(3)"), targets=True),
)
