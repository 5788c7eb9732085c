"""Faults of a weak programmer: text in, faulty text out, and the repair that a reason allows.

The texts are programs of ``engine.program``. Every fault is two pure functions. ``inject`` puts it
into a program, or answers None where the program has no place for it. ``mend`` is what a
programmer does who has understood the complaint: it answers the repaired text, or None unless the
complaint names what is wrong (the line, the name, the asked and the found value, the method). So
whoever is told less repairs less. Neither looks at anything but the text and the complaint.
"""

from __future__ import annotations

import random
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from tests.agent import edits
from tests.agent.edits import METHODS

Kind = Literal["compile", "key_attribute", "speed"]
"""Error classes of the benchmark (paper.md, stages 1 and 3): a program that does not run; one that
runs and is not what was asked; one that is what was asked and slower than it should be."""
Found = Literal["compile", "run", "specification", "honesty"]
"""Where a check that works finds it: parsing, running (loading or drawing one image), comparing the
text with what was asked, comparing the text with what was seen of the image."""


@dataclass(frozen=True)
class Complaint:
    """What a debugger is told: the stage, the reason with its traceback, and the plan, if any."""

    stage: str
    reason: str
    plan: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)

    def names(self, *words: str) -> bool:
        """Whether the reason has all of these words, in any case."""
        return all(re.search(word, self.reason, re.I) for word in words)

    def line(self) -> int | None:
        """The last line of the program that the reason names."""
        own = re.findall(r"accelerated\.py[\":, ]+(?:line )?(\d+)", self.reason)
        found = own or re.findall(r"\bline (\d+)", self.reason)
        return int(found[-1]) if found else None

    def other(self, pattern: str, here: str) -> str | None:
        """What is named beside the program's own value: of what matches the pattern, the only one
        that is not ``here``; None unless ``here`` is named too."""
        named = list(dict.fromkeys(re.findall(pattern, self.reason)))
        others = [value for value in named if value != here]
        return others[0] if here in named and len(others) == 1 else None


@dataclass(frozen=True)
class Fault:
    """One kind of mistake."""

    name: str
    kind: Kind
    found: Found
    inject: Callable[[str, random.Random], str | None]
    mend: Callable[[str, Complaint], str | None]


# --- what does not run


def _syntax(text: str, rng: random.Random) -> str | None:
    """A colon, a bracket or the indentation is lost in one line."""
    lines = text.split("\n")
    headers = [i for i, line in enumerate(lines) if re.match(r"\s*(def|class|for) .*:$", line)]
    calls = [i for i, line in enumerate(lines) if re.match(r"    \w+_(apply|reset)\(.*\)$", line)]
    returns = [i for i, line in enumerate(lines) if re.match(r"    return \w+$", line)]
    places = [p for p in (headers, calls, returns) if p]
    if not places:
        return None
    chosen = rng.choice(places)
    where = rng.choice(chosen)
    lines[where] = " " + lines[where] if chosen is returns else lines[where][:-1]
    return "\n".join(lines)


def _mend_syntax(text: str, complaint: Complaint) -> str | None:
    where = complaint.line()
    told = complaint.stage == "compile" or complaint.names("SyntaxError|IndentationError")
    if where is None or not told or edits.parses(text):
        return None
    lines = text.split("\n")
    for number in range(min(where, len(lines)), max(0, where - 4), -1):
        line = lines[number - 1]
        for candidate in (line + ":", line + ")", line[1:]) if line.strip() else ():
            changed = "\n".join([*lines[: number - 1], candidate, *lines[number:]])
            if edits.parses(changed):
                return changed
    return None


IMPORTS = {
    "torch": "import torch",
    "tomesd": "import tomesd",
    "diffusers": "import diffusers",
    "threading": "import threading",
    "SimpleNamespace": "from types import SimpleNamespace",
    "DeepCacheSDHelper": "from DeepCache import DeepCacheSDHelper",
}
"""What any programmer knows to import for a name; pipelines come from diffusers."""
_NEEDED = (
    "load_pipeline", "_generate", "tome_apply", "tome_reset", "deepcache_apply",
    "sampler_scheduler_for",
)  # fmt: skip
"""Functions that run for every image, so that a name that they lack is missed."""


def _missing_import(text: str, rng: random.Random) -> str | None:
    lines = text.split("\n")
    places = []
    for i, line in enumerate(lines):
        owner = edits.function_at(text, i + 1)
        known = line.strip() in IMPORTS.values() or re.match(r"\s+from diffusers import \w+$", line)
        if known and (owner is None or owner in _NEEDED):
            places.append(i)
    if not places:
        return None
    where = rng.choice(places)
    return "\n".join([*lines[:where], *lines[where + 1 :]])


def _mend_import(text: str, complaint: Complaint) -> str | None:
    said = r"name '(\w+)' is not defined|(\w+) is defined nowhere"
    missing = re.search(said, complaint.reason)
    if missing is None:
        return None
    name = missing[1] or missing[2]
    fallback = f"from diffusers import {name}" if re.search("Pipeline$|Scheduler$", name) else None
    statement = IMPORTS.get(name, fallback)
    if statement is None:
        return None
    where = complaint.line()
    return edits.with_import(text, statement, edits.function_at(text, where) if where else None)


_LOUD = {
    "deepcache": ("DeepCacheSDHelper(pipe=pipe)", "DeepCacheSDHelper(pipe=pipe.unet)"),
    "tome": ("tomesd.apply_patch(pipe, ", "tomesd.apply_patch(pipe.vae, "),
}
"""A technique on an object that lacks what it needs: an exception at load or in the first image."""
_SILENT = {
    "tgate": (
        'denoiser = getattr(pipe, "unet", None) or pipe.transformer',
        "denoiser = pipe.text_encoder",
    ),
}
"""A technique on a module that has nothing for it: no exception, and no effect."""


def _swapped(pairs: Mapping[str, tuple[str, str]]) -> Callable[[str, random.Random], str | None]:
    def inject(text: str, rng: random.Random) -> str | None:
        places = [pair for pair in pairs.values() if pair[0] in text]
        return text.replace(*rng.choice(places)) if places else None

    return inject


def _mend_loud(text: str, complaint: Complaint) -> str | None:
    """The traceback names a function of the technique, and the attribute that its object lacks."""
    if not complaint.names(r"AttributeError|has no attribute"):
        return None
    where = complaint.line()
    owner = edits.function_at(text, where) if where else None
    for method, (right, wrong) in _LOUD.items():
        named = complaint.names(rf"\b{method}_|{right.partition('(')[0]}")
        if wrong in text and (named or (owner or "").startswith(f"{method}_")):
            return text.replace(wrong, right)
    return None


def _mend_silent(text: str, complaint: Complaint) -> str | None:
    for method, (right, wrong) in _SILENT.items():
        if wrong in text and edits.idle_named(complaint.reason, method):
            return text.replace(wrong, right)
    return None


# --- what is not what was asked

CLASSES = {
    "StableDiffusionPipeline": ("StableDiffusionXLPipeline", "StableDiffusionImg2ImgPipeline"),
    "StableDiffusionXLPipeline": ("StableDiffusionPipeline", "StableDiffusionXLImg2ImgPipeline"),
    "PixArtAlphaPipeline": ("PixArtSigmaPipeline",),
    "PixArtSigmaPipeline": ("PixArtAlphaPipeline",),
    "DiTPipeline": ("PixArtAlphaPipeline",),
}
"""Pipeline classes and those that are easily taken for them."""


def _wrong_class(text: str, rng: random.Random) -> str | None:
    here = edits.pipeline_class(text)
    if here not in CLASSES:
        return None
    return re.sub(rf"\b{here}\b", rng.choice(CLASSES[here]), text)


def _mend_class(text: str, complaint: Complaint) -> str | None:
    here = edits.pipeline_class(text)
    asked = complaint.other(r"\b\w+Pipeline\b", here) if here else None
    return re.sub(rf"\b{here}\b", asked, text) if asked else None


def _wrong_scheduler(text: str, rng: random.Random) -> str | None:
    here = edits.solver(text)
    known = edits.solvers(text)
    others = sorted(name for name, cls in known.items() if here and cls != known[here])
    return edits.with_solver(text, rng.choice(others)) if others else None


def _mend_scheduler(text: str, complaint: Complaint) -> str | None:
    here, known = edits.solver(text), edits.solvers(text)
    if here is None:
        return None
    asked = complaint.other(r"\b\w+Scheduler\b", known[here])
    planned = str(complaint.plan.get("sampler", {}).get("name", ""))
    fitting = [name for name, cls in known.items() if cls == asked]
    # Two solvers may share a class: the plan then says which.
    if planned in fitting:
        return edits.with_solver(text, planned)
    return edits.with_solver(text, fitting[0]) if fitting else None


def _wrong_steps(text: str, rng: random.Random) -> str | None:
    here = edits.steps(text)
    if here is None:
        return None
    others = [n for n in (5, 10, 15, 20, 25, 30, 40, 50) if n != here]
    return edits.with_steps(text, rng.choice(others))


def _mend_steps(text: str, complaint: Complaint) -> str | None:
    here = edits.steps(text)
    if here is None:
        return None
    for sentence in re.split(r"[;\n]|\. ", complaint.reason):
        if "step" in sentence:
            told = Complaint(complaint.stage, sentence)
            asked = told.other(r"(?<![\w.])\d+(?![\w.]\d)", str(here))
            if asked:
                return edits.with_steps(text, int(asked))
    return None


_BEYOND = {
    "deepcache": ("interval", "0"),
    "tome": ("ratio", "1.5"),
    "tgate": ("gate", "1.4"),
}
"""A gene of each method and a value outside of what it can be."""


def _out_of_range(text: str, rng: random.Random) -> str | None:
    places = [m for m in _BEYOND if edits.gene(text, m, _BEYOND[m][0]) is not None]
    if not places:
        return None
    method = rng.choice(places)
    return edits.with_gene(text, method, *_BEYOND[method])


def _mend_range(text: str, complaint: Complaint) -> str | None:
    """The reason names the parameter, or it breaks where only this method divides by it."""
    for method, (name, _) in _BEYOND.items():
        here = edits.gene(text, method, name)
        if here is None:
            continue
        asked = _asked_value(complaint, method, name, here)
        crashed = complaint.names("ZeroDivisionError", method) and here == "0"
        if crashed:
            planned = complaint.plan.get(method, {}).get(name)
            asked = asked or (None if planned is None else repr(planned))
        if asked is not None:
            return edits.with_gene(text, method, name, asked)
    return None


def _asked_value(complaint: Complaint, method: str, name: str, here: str) -> str | None:
    for sentence in re.split(r"[;\n]|\. ", complaint.reason):
        if re.search(rf"\b{name}\b", sentence) and method in complaint.reason.lower():
            told = Complaint(complaint.stage, sentence)
            asked = told.other(r"(?<![\w.])\d+(?:\.\d+)?", here)
            if asked:
                return asked
    return None


def _wrong_dtype(text: str, rng: random.Random) -> str | None:
    here = edits.dtype(text)
    others = [d for d in ("float32", "float16", "bfloat16") if d != here]
    # Half precision has no kernels for some layers on a CPU; bfloat16 runs everywhere.
    return edits.with_dtype(text, "bfloat16" if here == "float32" else rng.choice(others))


def _mend_dtype(text: str, complaint: Complaint) -> str | None:
    here = edits.dtype(text)
    asked = complaint.other(r"\b(?:bfloat16|float16|float32)\b", here) if here else None
    return edits.with_dtype(text, asked) if asked else None


def _used(text: str) -> list[str]:
    return [m for m in METHODS if edits.is_used(text, m)]


def _left_out(text: str, rng: random.Random) -> str | None:
    """A method is defined and never called."""
    used = _used(text)
    return edits.without_calls(text, rng.choice(used)) if used else None


def _mend_left_out(text: str, complaint: Complaint) -> str | None:
    for method in (name for name in complaint.plan if name in METHODS):
        if edits.idle_named(complaint.reason, method) and not edits.is_called(text, method):
            return edits.with_calls(text, method, complaint.plan[method])
    return None


def _dead_branch(text: str, rng: random.Random) -> str | None:
    """All calls of a method stand under ``if False``."""
    used = _used(text)
    return edits.buried(text, rng.choice(used)) if used else None


def _mend_dead(text: str, complaint: Complaint) -> str | None:
    for method in METHODS:
        if edits.is_buried(text, method) and edits.idle_named(complaint.reason, method):
            return edits.unburied(text, method)
    return None


_UNDO = {
    "deepcache": "    pipe._deepcache_state.helper.disable()\n",
    "tome": "    import tomesd\n\n    tomesd.remove_patch(pipe)\n",
}
_LAST = "    return pipe\n\n\ndef generate("
"""The end of ``accelerate``."""


def _undone(text: str, rng: random.Random) -> str | None:
    """A method is enabled, and disabled again before the first image."""
    used = [m for m in _used(text) if m in _UNDO]
    return text.replace(_LAST, _UNDO[rng.choice(used)] + _LAST, 1) if used else None


def _mend_undone(text: str, complaint: Complaint) -> str | None:
    for method, lines in _UNDO.items():
        if lines in text and edits.idle_named(complaint.reason, method):
            return text.replace(lines, "", 1)
    return None


# --- what is slow

_DRAW = "        return _generate(pipe, prompt, seed, call)\n"
_TWICE = "        _generate(pipe, prompt, seed, dict(call))\n"


def _doubled(text: str, rng: random.Random) -> str | None:
    """Every image is drawn twice and one is thrown away."""
    return text.replace(_DRAW, _TWICE + _DRAW, 1) if _DRAW in text else None


def _mend_doubled(text: str, complaint: Complaint) -> str | None:
    told = complaint.names("forward|denoiser call|twice|duplicat|drew \\d+ pictures to deliver")
    return text.replace(_TWICE, "", 1) if told and _TWICE in text else None


FAULTS: tuple[Fault, ...] = (
    Fault("syntax error", "compile", "compile", _syntax, _mend_syntax),
    Fault("missing import", "compile", "run", _missing_import, _mend_import),
    Fault("technique on the wrong module", "compile", "run", _swapped(_LOUD), _mend_loud),
    Fault("wrong pipeline class", "key_attribute", "specification", _wrong_class, _mend_class),
    Fault("wrong scheduler", "key_attribute", "specification", _wrong_scheduler, _mend_scheduler),
    Fault("wrong steps", "key_attribute", "specification", _wrong_steps, _mend_steps),
    Fault("parameter out of range", "key_attribute", "specification", _out_of_range, _mend_range),
    Fault("wrong dtype", "key_attribute", "specification", _wrong_dtype, _mend_dtype),
    Fault("method left out", "key_attribute", "specification", _left_out, _mend_left_out),
    Fault("dead method", "key_attribute", "specification", _dead_branch, _mend_dead),
    Fault("method undone", "key_attribute", "specification", _undone, _mend_undone),
    Fault("method without effect", "key_attribute", "honesty", _swapped(_SILENT), _mend_silent),
    Fault("duplicated work", "speed", "honesty", _doubled, _mend_doubled),
)


def mended(text: str, complaint: Complaint) -> tuple[str, str] | None:
    """The fault that the complaint names and the text without it; None where it names none."""
    for fault in FAULTS:
        repaired = fault.mend(text, complaint)
        if repaired is not None and repaired != text:
            return fault.name, repaired
    return None
