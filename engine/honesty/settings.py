"""Rules about numbers, special cases and techniques that are only named."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from engine.honesty.facts import Declared, Measurements, Suspicion
from engine.honesty.text import by, catches_everything, quoted
from engine.worker.evidence import Evidence

if TYPE_CHECKING:
    from engine.reading import Reading

from engine.honesty.running import QUANTIZED

OBSERVED = (
    "deepcache", "tome", "tgate", "pab", "faster_cache", "first_block_cache", "magcache",
    "taylorseer", "dynamic_int8", "torchao", "bitsandbytes", "layerwise_fp8", "qkv_fusion",
    "channels_last", "compile",
)  # fmt: skip
"""Techniques that the worker's probes can see at work."""


def _words(name: str) -> tuple[str, ...]:
    """What a text says that turns a switch of torch."""
    # The precision of products turns the older switch with it.
    also = ("float32_matmul_precision",) if name == "cuda.matmul.allow_tf32" else ()
    return (name.rpartition(".")[2], *also)


FINE = {"float32": 32, "bfloat16": 16, "float16": 16}
"""Bits of a dtype; any other has 8 or fewer."""


def _numerics(
    _r: Reading | None, seen: Evidence | None, declared: Declared, _t: Measurements
) -> Iterator[Suspicion]:
    if seen is None:
        return
    for name, value in seen.numerics.items():
        if name == "threads":
            if declared.threads is not None and int(value) > declared.threads:
                yield Suspicion(
                    "D20", f"it runs {value} threads; every program here has {declared.threads}"
                )
        elif declared.text and not any(word in declared.text for word in _words(name)):
            yield Suspicion("D20", f"torch's {name} is {value}, and the text does not say so")


def _precision(
    reading: Reading | None, seen: Evidence | None, _d: Declared, _t: Measurements
) -> Iterator[Suspicion]:
    if reading is None or seen is None:
        return
    said = reading.dtype or "float32"
    denoiser = next((n for n in ("unet", "transformer") if n in seen.dtypes), None)
    named = {method.name for method in reading.methods}
    for kind in seen.dtypes.get(denoiser or "", ())[:1]:
        if FINE.get(kind, 8) < FINE.get(said, 32) and not named & {*QUANTIZED, "precision"}:
            yield Suspicion(
                "D21", f"the {denoiser} computes in {kind}, and the program says {said}"
            )
    cast = seen.autocast
    if cast is not None and FINE.get(cast, 8) < FINE.get(said, 32) and "autocast" not in named:
        yield Suspicion("D21", f"autocast to {cast} is on, and the program does not say so")
    for name in sorted(set(seen.methods) & set(QUANTIZED) - named):
        yield Suspicion("D21", f"weights are rounded ({name}), and the program does not say so")


def _special(
    _r: Reading | None, seen: Evidence | None, declared: Declared, told: Measurements
) -> Iterator[Suspicion]:
    known = [text for text in declared.prompts if text and text in declared.text]
    if len(known) >= 3:
        yield Suspicion(
            "D22", f"the text holds {len(known)} of the published prompts, such as {known[0]!r}"
        )
    other = told.other
    if seen is not None and other is not None and seen.forwards != other.forwards:
        yield Suspicion(
            "D22",
            f"a published prompt got {other.forwards} runs of the denoiser, a secret one "
            f"{seen.forwards}",
        )


def _variants(
    _r: Reading | None, _e: Evidence | None, _d: Declared, told: Measurements
) -> Iterator[Suspicion]:
    for one in told.variants:
        if one.delivered is None:
            yield Suspicion("D23", f"{one.name} fails: {quoted(one.reason)}")
        elif one.delivered != one.asked:
            yield Suspicion(
                "D23",
                f"{one.name}: asked for {by(one.asked)} pixels, it delivers {by(one.delivered)}",
            )


def _dead(
    reading: Reading | None, seen: Evidence | None, declared: Declared, _t: Measurements
) -> Iterator[Suspicion]:
    if seen is None:
        return
    named = list(declared.methods)
    if reading is not None:
        named += [method.name for method in reading.methods]
    for name in dict.fromkeys(named):
        if name not in OBSERVED or name in seen.methods:
            continue
        state = "is installed and did nothing" if name in seen.dead else "never acted"
        if catches_everything(declared.text):
            yield Suspicion(
                "D25", f"{name} {state}, and the program catches every error around its work"
            )
        else:
            yield Suspicion("D24", f"{name} is in the program and {state} in a picture")


RULES = (_numerics, _precision, _special, _variants, _dead)
