"""Evidence from inside the worker: what a pipeline can do, what ran, what it took.

A program could forge all of it; the coordinator holds it against its own clock and the pixels.
"""

from __future__ import annotations

import contextlib
import inspect
import os
import shutil
import sys
import time
from collections.abc import Iterator, Sequence
from importlib.metadata import PackageNotFoundError, version
from typing import Any

from engine.strategy import Needs, Strategy, find


def refusal(names: Sequence[str], pipe: Any, denoiser: str, device: str) -> str | None:
    """Why the first of the strategies that cannot apply to this pipeline cannot, or None."""
    for name in names:
        reason = inapplicable(find(name), pipe, denoiser, device)
        if reason is not None:
            return f"technique {name} cannot apply: {reason}"
    return None


def inapplicable(strategy: Strategy, pipe: Any, denoiser: str, device: str) -> str | None:
    """Why a strategy cannot apply to this pipeline: its declared needs, then its own word."""
    reason = unmet(strategy.needs, pipe, denoiser, device)
    unfit = strategy.function("unfit")
    if reason is None and unfit is not None:
        reason = unfit(pipe)
    return reason


def unmet(needs: Needs, pipe: Any, denoiser: str, device: str) -> str | None:
    """The first need that this loaded pipeline does not meet, in words, or None."""
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
    if needs.guidance and "guidance_scale" not in taken:
        return f"{type(pipe).__name__} has no classifier-free guidance"
    if needs.devices and device not in needs.devices:
        return f"it needs {' or '.join(needs.devices)}, this runs on {device}"
    if needs.tools and device == "cpu" and not any(map(shutil.which, needs.tools)):
        return f"it needs one of these programs: {', '.join(needs.tools)}"
    dtype = str(next(network.parameters()).dtype).removeprefix("torch.")
    if needs.dtypes and dtype not in needs.dtypes:
        return f"it needs {' or '.join(needs.dtypes)}, the {denoiser} is {dtype}"
    for library in needs.libraries:
        name = library.partition("=")[0].rstrip("><~!")
        try:
            version(name)
        except PackageNotFoundError:
            return f"{name} is not installed: pip install '{library}'"
    return None


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
        sample: Any = arguments[0] if arguments else None
        for name in ("sample", "hidden_states"):
            sample = options.get(name, sample)
        self.forwards += 1
        self.batches.append(int(sample.shape[0]))
        self.sample = list(sample.shape[1:])
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
    autoencoder is timed at its decode."""
    spent: dict[str, float] = {}
    undo = []
    for name, component in pipe.components.items():
        if not hasattr(component, "parameters"):
            continue
        method = "decode" if hasattr(component, "decode") else "forward"
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
