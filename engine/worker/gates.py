"""The module ``tgate`` for programs that import it where the package is not installed.

The package (T-GATE, Zhang et al., arXiv 2404.02747) is asked for as its README shows:
``TgateSDLoader(pipe, gate_step=10, num_inference_steps=25)``, then
``pipe.tgate(prompt, gate_step=10, num_inference_steps=25)``. The work is done by
``strategies/tgate`` and, for the loaders with DeepCache, by ``strategies/deepcache``.
"""

from __future__ import annotations

import importlib.util
import sys
from collections.abc import Callable
from types import MethodType, ModuleType, SimpleNamespace
from typing import Any

NAME = "tgate"
PLAIN = ("TgateSDLoader", "TgateSDXLLoader", "TgatePixArtLoader")
CACHED = ("TgateSDDeepCacheLoader", "TgateSDXLDeepCacheLoader")
GATE_STEP = 10
STEPS = 25
"""Defaults of the package's loaders."""


def install(mapped: list[str]) -> None:
    """Make ``import tgate`` work; what it stands for is noted in ``mapped`` when it is used."""
    if NAME in sys.modules or importlib.util.find_spec(NAME) is not None:
        return
    module = ModuleType(NAME, __doc__)
    for name in PLAIN:
        setattr(module, name, _loader(mapped, cached=False))
    for name in CACHED:
        setattr(module, name, _loader(mapped, cached=True))
    sys.modules[NAME] = module


def _loader(mapped: list[str], *, cached: bool) -> Callable[..., Any]:
    def load(
        pipe: Any,
        gate_step: int = GATE_STEP,
        num_inference_steps: int = STEPS,
        lcm: bool = False,
        cache_interval: int = 3,
        cache_branch_id: int = 0,
    ) -> Any:
        """The pipeline itself, with a method ``tgate`` that calls it."""
        from strategies import deepcache, tgate

        _fraction(gate_step, num_inference_steps)
        if not hasattr(pipe, "_tgate_state"):
            tgate.apply(pipe, None, gate=gate_step / num_inference_steps)
            if cached:
                deepcache.apply(pipe, None, interval=cache_interval, branch=cache_branch_id)
        # Written like the defaults of the package: those of the loader hold for the call.
        pipe.tgate = MethodType(_call(gate_step, num_inference_steps, cached), pipe)
        note = "tgate: our implementation stands for the package"
        if note not in mapped:
            mapped.append(note)
        return pipe

    return load


def _call(default_gate: int, default_steps: int, cached: bool) -> Callable[..., Any]:
    def tgate(
        pipe: Any,
        *arguments: Any,
        gate_step: int = default_gate,
        num_inference_steps: int = default_steps,
        lcm: bool = False,
        **options: Any,
    ) -> Any:
        """Call the pipeline with the gate closed behind ``gate_step`` of its steps."""
        from strategies import deepcache
        from strategies import tgate as strategy

        gate = _fraction(gate_step, num_inference_steps)
        strategy.reset(pipe)
        if cached:
            deepcache.reset(pipe)
        if pipe._tgate_gate is not None:
            pipe._tgate_gate.gate = gate
        context = SimpleNamespace(steps=num_inference_steps)
        own = strategy.call(pipe, context, gate=gate)
        try:
            return pipe(
                *arguments, num_inference_steps=num_inference_steps, **_merged(options, own)
            )
        finally:
            # A plain call behind this one starts with an open gate.
            strategy.reset(pipe)

    return tgate


def _fraction(gate_step: int, steps: int) -> float:
    if not 0 < gate_step <= steps:
        raise ValueError(f"gate_step is {gate_step}; allowed: 1 to num_inference_steps={steps}")
    return gate_step / steps


def _merged(options: dict[str, Any], own: dict[str, Any]) -> dict[str, Any]:
    """Keywords of the caller with the gate's: both step callbacks run, the caller's first."""
    merged = {**options, **own}
    name = "callback_on_step_end"
    if name in options and name in own:
        theirs, ours = options[name], own[name]

        def both(pipe: Any, step: int, time: Any, values: dict[str, Any]) -> dict[str, Any]:
            values = {**values, **(theirs(pipe, step, time, values) or {})}
            return {**values, **(ours(pipe, step, time, values) or {})}

        merged[name] = both
        inputs = f"{name}_tensor_inputs"
        tensors = [*options.get(inputs, ["latents"]), *own[inputs]]
        merged[inputs] = list(dict.fromkeys(tensors))
    return merged
