"""Evidence from inside the worker: what a pipeline can do, what ran, what it took.

A program could forge all of it; the coordinator holds it against its own clock and the pixels.
"""

from __future__ import annotations

import contextlib
import inspect
import os
import re
import sys
import time
from collections.abc import Iterator, Sequence
from typing import Any

from engine.needs import absent, unmet_by_machine
from engine.strategy import Needs, Strategy, find

SAMPLES = ("sample", "hidden_states", "x")
"""What denoisers call their first argument, where it comes by name."""


def refusal(names: Sequence[str], pipe: Any, denoiser: str, device: str) -> str | None:
    """Why the first of the strategies that cannot apply to this pipeline cannot, or None."""
    for name in names:
        reason = inapplicable(find(name), pipe, denoiser, device)
        if reason is not None:
            return f"technique {name} cannot apply: {reason}"
    return None


def inapplicable(strategy: Strategy, pipe: Any, denoiser: str, device: str) -> str | None:
    """Why a strategy cannot apply to this pipeline here: its declared needs, its own word, weights
    that it lacks."""
    reason = unmet(strategy.needs, pipe, denoiser, device)
    if reason is None:
        reason = asked("unfit", strategy, pipe)
    if reason is None and (repository := asked("further_weights", strategy, pipe)):
        reason = absent(repository)
    return reason


def asked(function: str, strategy: Strategy, pipe: Any) -> str | None:
    """What one of a strategy's own functions says of a pipeline; None where it has none."""
    found = strategy.function(function)
    return found(pipe) if found else None


def unmet(needs: Needs, pipe: Any, denoiser: str, device: str) -> str | None:
    """The first need that this loaded pipeline or this machine does not meet, in words, or None."""
    reason = unmet_by_pipeline(needs, pipe, denoiser)
    if reason is not None:
        return reason
    weights = next(getattr(pipe, denoiser).parameters())
    return unmet_by_machine(needs, device, str(weights.dtype).removeprefix("torch."))


def unmet_by_pipeline(needs: Needs, pipe: Any, denoiser: str) -> str | None:
    """The first need that this pipeline does not meet, whatever the machine, or None."""
    network = getattr(pipe, denoiser, None)
    if network is None:
        return f"{type(pipe).__name__} has no {denoiser}"
    if needs.backbone and denoiser not in needs.backbone:
        return f"it needs a {' or '.join(needs.backbone)}, this model has a {denoiser}"
    inside = {type(module).__name__ for module in network.modules()}
    for module in needs.modules:
        if module not in inside:
            return f"the {denoiser} has no {module}"
    for method in needs.methods:
        if not callable(getattr(network, method, None)):
            return f"{type(network).__name__} has no {method}"
    for part in needs.parts:
        if getattr(pipe, part, None) is None:
            return f"{type(pipe).__name__} has no {part}"
    taken = inspect.signature(type(pipe).__call__).parameters
    for name in needs.inputs:
        if name not in taken:
            return f"{type(pipe).__name__} takes no {name}"
    if needs.guidance and not guides(pipe):
        return (
            f"{type(pipe).__name__} runs no classifier-free guidance in one batch of two halves "
            "(distilled guidance has one half only)"
        )
    if needs.prediction and (found := prediction(pipe)) not in needs.prediction:
        return f"it needs a prediction of {' or '.join(needs.prediction)}, this model's is {found}"
    if needs.fused_lora and any(hasattr(module, "lora_A") for module in network.modules()):
        return f"a LoRA stands beside weights of the {denoiser}; type fuse: true in model.lora"
    return None


def guides(pipe: Any) -> bool:
    """Whether the pipeline doubles its batch for classifier-free guidance, as its source says."""
    call = type(pipe).__call__
    if "guidance_scale" not in inspect.signature(call).parameters:
        return False
    # Without its source it is given the benefit of the doubt: active() tells afterwards.
    with contextlib.suppress(OSError, TypeError):
        return re.search(r"torch\.cat\(\[\w+\] \* 2\)", inspect.getsource(call)) is not None
    return True


def prediction(pipe: Any) -> str:
    """What the denoiser predicts, as its scheduler says: noise, v, flow or another word."""
    config = pipe.scheduler.config
    kind = str(config.get("prediction_type", "epsilon"))
    if kind == "flow_prediction" or config.get("use_flow_sigmas"):
        return "flow"
    if "beta_schedule" in config:
        return {"epsilon": "noise", "v_prediction": "v"}.get(kind, kind)
    return "flow" if "shift" in config else f"that of {type(pipe.scheduler).__name__}"


class Counters:
    """Forwards of the denoiser since the last reset."""

    def __init__(self) -> None:
        self.reset()

    def reset(self) -> None:
        self.forwards = 0
        self.batches: list[int] = []
        self.sample: list[int] = []
        self.dtypes: set[str] = set()

    def note(self, _module: Any, arguments: tuple[Any, ...], options: dict[str, Any]) -> None:
        self.forwards += 1
        sample: Any = arguments[0] if arguments else None
        for name in SAMPLES:
            sample = options.get(name, sample)
        if isinstance(sample, list | tuple):
            # Some transformers take one tensor an image, which may differ in size.
            self.batches.append(len(sample))
            sample = sample[0]
        else:
            self.batches.append(int(sample.shape[0]))
            sample = sample[0]
        self.sample = list(sample.shape)
        self.dtypes.add(str(sample.dtype).removeprefix("torch."))


def count_forwards(network: Any) -> Counters:
    """Counters fed by a hook on the denoiser; a hook survives what strategies do to forward."""
    counters = Counters()
    network.register_forward_pre_hook(counters.note, with_kwargs=True)
    return counters


def compiled_graphs() -> int | None:
    """Graphs that torch.compile has compiled in this process; None where it was never used.

    What an image adds after warm-up are recompilations.
    """
    if "torch._dynamo" not in sys.modules:
        return None
    from torch._dynamo.utils import counters

    return int(counters["stats"]["unique_graphs"]) if counters["frames"]["total"] else None


def peak_memory_gib(device: str) -> float:
    """Peak memory of this process: on the accelerator where there is one, else resident."""
    if device.startswith("cuda"):
        import torch

        return float(torch.cuda.max_memory_allocated() / 2**30)
    if sys.platform == "linux":
        with open("/proc/self/status", encoding="ascii") as lines:
            for line in lines:
                if line.startswith("VmHWM:"):
                    return int(line.split()[1]) / 2**20
    import psutil

    return float(psutil.Process(os.getpid()).memory_info().rss / 2**30)


@contextlib.contextmanager
def stopwatches(pipe: Any) -> Iterator[dict[str, float]]:
    """Milliseconds inside each component while the block runs, by component name; an
    autoencoder is timed at its decode and, where an image is given, at its encode."""
    spent: dict[str, float] = {}
    undo = []
    for name, component in pipe.components.items():
        if not hasattr(component, "parameters"):
            continue
        coder = hasattr(component, "decode")
        for method in ("encode", "decode") if coder else ("forward",):
            original = getattr(component, method)

            def timed(*a: Any, _name: str = name, _run: Any = original, **k: Any) -> Any:
                started = time.perf_counter()
                try:
                    return _run(*a, **k)
                finally:
                    spent[_name] = spent.get(_name, 0.0) + 1000 * (time.perf_counter() - started)

            previous = vars(component).get(method)
            setattr(component, method, timed)
            undo.append((component, method, previous))
    try:
        started = time.perf_counter()
        yield spent
        spent["whole"] = 1000 * (time.perf_counter() - started)
    finally:
        for component, method, previous in undo:
            if previous is None:
                delattr(component, method)
            else:
                setattr(component, method, previous)
