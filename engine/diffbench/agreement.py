"""Whether a program does what its text says: the static reading against the counters.

Under ``weights=mini`` the counters are read after the mapping: sizes as shares of the published
ones, half precision where the mapping says that it stood in its way.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping
from typing import TYPE_CHECKING, Any

from engine.reading.effective import filled, gate_step
from engine.specification import Mismatch
from engine.worker.methods import CACHES

if TYPE_CHECKING:
    from engine.reading import Method, Reading
    from engine.specification import Specification
    from engine.worker.evidence import Evidence

ONE_MORE = ("PNDMScheduler",)
"""Schedulers whose list has a step more than was asked: they repeat the second."""
DOUBLE = ("HeunDiscreteScheduler", "KDPM2DiscreteScheduler", "KDPM2AncestralDiscreteScheduler")
"""Schedulers whose list has every step but the last twice."""
STRENGTH = {
    "StableDiffusionImg2ImgPipeline": 0.8,
    "StableDiffusionXLImg2ImgPipeline": 0.3,
}
"""What the library runs of the steps when a picture is started from and no strength is stated."""
TOLERANCE = 1e-6
PRECISIONS = {
    "precision",
    "autocast",
    "dynamic_int8",
    "torchao",
    "bitsandbytes",
    "layerwise_fp8",
}
"""Methods that say themselves what is computed in which format."""
SIDE = re.compile(r"(height|width): (\d+) pixels are (\d+) here")
"""How the mapping says that a side was scaled."""


def disagreements(
    asked: Specification, reading: Reading, evidence: Evidence
) -> tuple[Mismatch, ...]:
    """Where text and counters differ in what the task is about; ``asked`` holds what the text
    says, ``found`` what was seen."""
    return tuple(_found(asked, reading, evidence))


def _found(asked: Specification, reading: Reading, evidence: Evidence) -> Iterator[Mismatch]:
    for name in ("pipeline", "scheduler"):
        said, seen = getattr(reading, name), getattr(evidence, name)
        if said is not None and said != seen:
            yield Mismatch(name, said, str(seen))
    yield from _steps(reading, evidence)
    yield from _guidance(reading, evidence)
    yield from _precision(reading, evidence)
    yield from _size(reading, evidence)
    if evidence.loads:
        found = f"{evidence.loads} inside of a call"
        yield Mismatch("loading", "once, before the first call", found)
    for name in asked.methods:
        method = reading.method(name)
        if method is not None and name in CHECKED:
            yield from _method(method, reading, evidence)


def _steps(reading: Reading, evidence: Evidence) -> Iterator[Mismatch]:
    if reading.steps is None or not evidence.timesteps:
        return
    wanted = reading.steps
    strength = STRENGTH.get(evidence.pipeline)
    if strength is not None:
        wanted = min(int(wanted * (reading.strength or strength)), wanted)
    if evidence.scheduler in DOUBLE:
        wanted = 2 * wanted - 1
    more = 1 if evidence.scheduler in ONE_MORE else 0
    if not wanted <= len(evidence.timesteps) <= wanted + more:
        yield Mismatch("steps", str(wanted), str(len(evidence.timesteps)))


def _guidance(reading: Reading, evidence: Evidence) -> Iterator[Mismatch]:
    said = reading.guidance_scale
    if said is None or not evidence.guidance:
        return
    # A technique may end the guidance on the way; it begins with what was said.
    if abs(evidence.guidance[0] - said) > TOLERANCE:
        yield Mismatch("guidance_scale", f"{said:g}", f"{evidence.guidance[0]:g}")


def _precision(reading: Reading, evidence: Evidence) -> Iterator[Mismatch]:
    said = reading.dtype or "float32"
    if {method.name for method in reading.methods} & PRECISIONS:
        return
    mapped = {word for note in evidence.mapped for word in _halves(note)}
    kinds = next((evidence.dtypes[n] for n in ("unet", "transformer") if n in evidence.dtypes), ())
    # A dtype that had to give way to the processor here counts as what the program wanted.
    seen = mapped or set(kinds[:1])
    if seen and seen != {said}:
        here = f" ({kinds[0]} here)" if mapped and kinds else ""
        yield Mismatch("dtype", said, " and ".join(sorted(seen)) + here)


def _halves(note: str) -> list[str]:
    """The formats of half precision that a sentence of the mapping speaks of."""
    if note.startswith("half()") or note.startswith("autocast for cuda"):
        return ["float16"]
    match = re.match(r"(float16|bfloat16)(\(\)| is float32)", note)
    return [match[1]] if match else []


def _size(reading: Reading, evidence: Evidence) -> Iterator[Mismatch]:
    """Pixels as the call asks for them, and as they came out."""
    stated = filled(reading)
    for place, side in enumerate(("height", "width")):
        said = getattr(stated, side)
        notes = [m for note in evidence.mapped if (m := SIDE.match(note)) and m[1] == side]
        asked = {int(m[2]): int(m[3]) for m in notes}
        if said is None or not evidence.delivered:
            continue
        for pixels, small in asked.items():
            if pixels != said:
                yield Mismatch(side, str(said), str(pixels))
            elif evidence.delivered[0][place] != small:
                found = f"{evidence.delivered[0][place]} instead of {small} after the mapping"
                yield Mismatch(side, str(said), found)
        if not evidence.mapped and evidence.delivered[0][place] != said:
            yield Mismatch(side, str(said), str(evidence.delivered[0][place]))


def _method(method: Method, reading: Reading, evidence: Evidence) -> Iterator[Mismatch]:
    seen = evidence.methods.get(method.name)
    where = f"methods.{method.name}"
    if seen is None:
        dead = method.name in evidence.dead
        yield Mismatch(where, "it acts", "in place without effect" if dead else "nothing of it")
        return
    for setting, said, found, slack in CHECKED[method.name](method, seen, reading):
        if abs(said - found) > slack + TOLERANCE:
            yield Mismatch(f"{where}.{setting}", f"{said:g}", f"{found:g}")


_Compared = Iterator[tuple[str, float, float, float]]
"""Setting, what the text says, what was seen, and how far they may differ."""


def _deepcache(method: Method, seen: Mapping[str, Any], reading: Reading) -> _Compared:
    if "interval" in method.settings and "interval" in seen:
        yield "interval", float(method.settings["interval"]), float(seen["interval"]), 0.0


def _tome(method: Method, seen: Mapping[str, Any], reading: Reading) -> _Compared:
    if "ratio" in method.settings and "ratio" in seen:
        yield "ratio", float(method.settings["ratio"]), float(seen["ratio"]), 0.0


def _tgate(method: Method, seen: Mapping[str, Any], reading: Reading) -> _Compared:
    step = method.settings.get("gate_step")
    if step is None and "gate" in method.settings and reading.steps:
        step = gate_step(float(method.settings["gate"]), reading.steps)
    strength = STRENGTH.get(reading.pipeline or "")
    if step is None or "gate_step" not in seen or strength is not None:
        # Of a picture to start from the gate counts the steps that run.
        return
    # A feature cache leaves layers out, so that their last own query may lie some calls earlier;
    # PNDM repeats a step.
    caches = [one for one in reading.methods if one.name in ("deepcache", *CACHES)]
    slack = max((float(one.settings.get("interval", 6)) for one in caches), default=0.0)
    slack += reading.scheduler is None or reading.scheduler in ONE_MORE
    yield "gate_step", float(step), float(seen["gate_step"]), slack


CHECKED: Mapping[str, Callable[[Method, Mapping[str, Any], Reading], _Compared]] = {
    "deepcache": _deepcache,
    "tome": _tome,
    "tgate": _tgate,
}
"""The methods of the tasks, and how their settings are compared with what was seen of them."""
