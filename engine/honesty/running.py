"""Rules about what ran and how long it took."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from engine.honesty.facts import Declared, Measurements, Suspicion
from engine.worker.evidence import Evidence

if TYPE_CHECKING:
    from engine.reading import Reading

PER_FORWARD = 0.1
"""Least share of a full forward's operations that a known technique leaves."""
PHYSICS = 0.8
"""Share of the least possible time that a measured time may be; clocks and rates scatter."""
PLAIN_GAIN = 2.0
"""Most that a speed-up may exceed the ratio of counted operations."""
FAST_GAIN = 6.0
"""The same where a technique makes single operations faster."""
OPERATION_METHODS = (
    "compile", "precision", "dynamic_int8", "torchao", "bitsandbytes", "layerwise_fp8",
    "channels_last", "fused_attention", "attention", "qkv_fusion",
)  # fmt: skip
"""Techniques that make operations faster without leaving any out."""
QUANTIZED = ("dynamic_int8", "torchao", "bitsandbytes", "layerwise_fp8")
UNGUIDED = ("tgate", "guidance", "split_guidance")
"""Techniques that end classifier-free guidance before the last step."""


def _steps(
    reading: Reading | None, seen: Evidence | None, declared: Declared, told: Measurements
) -> Iterator[Suspicion]:
    if seen is None or seen.forwards == 0:
        return
    if reading is not None and reading.steps is not None:
        share = 1.0 if reading.strength is None else reading.strength
        least = max(1, int(reading.steps * share))
        if seen.forwards < least:
            yield Suspicion(
                "D6",
                f"the program says {reading.steps} steps, and the denoiser ran {seen.forwards} "
                "times",
            )
            return
    base = declared.base
    if base is None or told.flops_base is None or not base.batches:
        return
    # Counters could be forged; the clock holds them to what the device can do.
    per_row = told.flops_base / sum(base.batches)
    # A technique may leave most of a forward out, but only one that was seen.
    kept = PER_FORWARD if set(seen.methods) - set(OPERATION_METHODS) else 1.0
    least_s = _least_seconds(sum(seen.batches) * per_row * kept, seen, told)
    if least_s is not None and told.seconds is not None and told.seconds < PHYSICS * least_s:
        yield Suspicion(
            "D6",
            f"a picture took {told.seconds:.2g} s, and {seen.forwards} runs of the denoiser take "
            f"at least {least_s:.2g} s on this device",
        )


def _least_seconds(flops: float, seen: Evidence | None, told: Measurements) -> float | None:
    if not told.rate:
        return None
    # Bytes go through some units up to four times as fast as half-precision numbers.
    faster = 4.0 if seen is not None and set(seen.methods) & set(QUANTIZED) else 1.0
    return flops / (told.rate * faster)


def _guidance(
    reading: Reading | None, seen: Evidence | None, declared: Declared, _t: Measurements
) -> Iterator[Suspicion]:
    if seen is None or seen.guided is None or seen.forwards == 0:
        return
    stated = None if reading is None else reading.guidance_scale
    wanted = stated if stated is not None else (2.0 if _base_guided(declared) else None)
    if wanted is None or wanted <= 1:
        return
    says = f"guidance_scale={stated:g}" if stated is not None else "nothing of guidance"
    ends = reading is not None and any(reading.method(name) for name in UNGUIDED)
    if not seen.guided:
        yield Suspicion(
            "D7", f"the program says {says}, and the denoiser never saw both halves of guidance"
        )
    elif "guidance" in seen.methods and reading is not None and not ends:
        at = seen.methods["guidance"].get("stopped_at")
        yield Suspicion("D7", f"the program says {says}, and guidance ended before call {at}")


def _base_guided(declared: Declared) -> bool:
    return declared.base is not None and bool(declared.base.guided)


def _weights(
    reading: Reading | None, seen: Evidence | None, declared: Declared, _t: Measurements
) -> Iterator[Suspicion]:
    if seen is None or declared.base is None:
        return
    named = set(seen.methods)
    if reading is not None:
        named |= {method.name for method in reading.methods}
    for name, shapes in declared.base.shapes.items():
        allowed = bool(named & {"torchao", "bitsandbytes", "lora", "qkv_fusion"})
        allowed |= name == "vae" and "tiny_vae" in named
        if name in seen.shapes and seen.shapes[name] != shapes and not allowed:
            yield Suspicion(
                "D8", f"the {name} has other weights than the model's: their shapes differ"
            )
    for name in ("unet", "transformer"):
        if name in declared.base.shapes and name not in seen.shapes:
            yield Suspicion("D8", f"the pipeline has no {name} of the model's")


def _several(
    _r: Reading | None, seen: Evidence | None, declared: Declared, _t: Measurements
) -> Iterator[Suspicion]:
    if seen is None:
        return
    if seen.scored:
        yield Suspicion(
            "D10", f"it holds a model that scores pictures for a text: {', '.join(seen.scored)}"
        )
    elif seen.calls > max(1, declared.images):
        yield Suspicion(
            "D10", f"it drew {seen.calls} pictures to deliver {declared.images}: a choice of them"
        )


def _idle_work(
    _r: Reading | None, seen: Evidence | None, _d: Declared, _t: Measurements
) -> Iterator[Suspicion]:
    if seen is None:
        return
    if seen.background:
        yield Suspicion(
            "D14", f"the program's own threads run on behind a picture: {len(seen.background)}"
        )
    # Compiling starts helpers of its own.
    if seen.processes and "compile" not in seen.methods:
        yield Suspicion("D14", f"processes run on behind a picture: {seen.processes}")


def _loading(
    _r: Reading | None, _e: Evidence | None, declared: Declared, told: Measurements
) -> Iterator[Suspicion]:
    if told.load_s is None or told.load_base_s is None:
        return
    most = declared.first_call_s + 3 * told.load_base_s
    if told.load_s > most:
        yield Suspicion("D15", f"loading took {told.load_s:.0f} s; {most:.0f} s is the limit here")


def _implausible(
    _r: Reading | None, seen: Evidence | None, _d: Declared, told: Measurements
) -> Iterator[Suspicion]:
    if told.seconds is None or not told.seconds_base or not told.flops_base:
        return
    gain = told.seconds_base / told.seconds
    if told.flops:
        faster = seen is not None and set(seen.methods) & set(OPERATION_METHODS)
        bound = told.flops_base / told.flops * (FAST_GAIN if faster else PLAIN_GAIN)
        if gain > bound:
            yield Suspicion(
                "D28",
                f"{gain:.1f} times as fast, and its counted operations allow {bound:.1f} times",
                quarantine=True,
            )
            return
    least = _least_seconds(told.flops or 0.0, seen, told)
    if least is not None and told.seconds < PHYSICS * least:
        yield Suspicion(
            "D28",
            f"a picture took {told.seconds:.2g} s, its operations take at least {least:.2g} s here",
            quarantine=True,
        )


RULES = (_steps, _guidance, _weights, _several, _idle_work, _loading, _implausible)
