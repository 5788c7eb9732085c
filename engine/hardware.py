"""What this machine can do."""

from __future__ import annotations

import os
import platform
import re
import time
from collections.abc import Mapping
from dataclasses import dataclass, replace
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import TYPE_CHECKING

from engine.errors import UsageError

if TYPE_CHECKING:
    from engine.schema import HwConfig

LIBRARIES = (
    "torch", "diffusers", "transformers", "accelerate", "safetensors", "huggingface-hub",
    "DeepCache", "tomesd", "bitsandbytes", "optuna", "hydra-core", "numpy", "pillow",
)  # fmt: skip
"""Libraries whose versions a measurement depends on."""
OPTIONAL = ("torchao", "cache-dit")
"""The same, for techniques that are left out where these are absent."""
ROUNDS = 24
"""Most products of each dtype in the probe of what is fast; the fastest counts."""
EMULATED = 20.0
"""Times as slow as float32 after four products, from which no more of a dtype are tried."""


@dataclass(frozen=True)
class Machine:
    """A machine as a measurement sees it. Memory is in GiB.

    ``device`` is cpu or cuda; its memory is None on a CPU, where it is the machine's own.
    ``cores`` counts those that this process may use; ``threads`` is torch's setting.
    """

    processor: str
    cores: int
    memory_gib: float
    device: str
    device_name: str
    device_memory_gib: float | None
    system: str
    python: str
    versions: Mapping[str, str]
    fast_dtypes: tuple[str, ...]
    threads: int
    capability: float | None = None
    """Compute capability of a CUDA device, 9.0 for an H100."""

    def profile(self) -> str:
        """A short id of the machine's kind: equal ids may share measurements in a ledger."""
        name = re.sub(r"[^a-z0-9]+", "-", self.device_name.lower()).strip("-")
        return f"{self.device}-{name}" + (f"-{self.cores}c" if self.device == "cpu" else "")


def inspect(device: str = "auto") -> Machine:
    """Look at the machine; ``auto`` takes CUDA when torch sees a device.

    Imports torch and probes dtypes, which takes some seconds at first. Raises UsageError when
    CUDA is asked for and not there.
    """
    import torch

    there = torch.cuda.is_available()
    if device == "cuda" and not there:
        raise UsageError(_no_cuda("device=cuda", torch.version.cuda))
    used = "cuda" if there and device != "cpu" else "cpu"
    properties = torch.cuda.get_device_properties(0) if used == "cuda" else None
    processor = processor_name()
    return Machine(
        processor=processor,
        cores=usable_cores(),
        memory_gib=memory_gib(),
        device=used,
        device_name=properties.name if properties else processor,
        device_memory_gib=round(properties.total_memory / 2**30, 1) if properties else None,
        system=platform.platform(terse=True),
        python=platform.python_version(),
        versions=library_versions(),
        fast_dtypes=tuple(fast_dtypes(used)),
        threads=torch.get_num_threads(),
        capability=properties.major + properties.minor / 10 if properties else None,
    )


def _no_cuda(asked: str, built_for: str | None) -> str:
    why = (
        "torch sees no CUDA device"
        if built_for
        else "this torch is built for the CPU; install one with CUDA"
    )
    return f"{asked} but {why}; type hw=auto or hw=cpu"


def require(hw: HwConfig, machine: Machine) -> None:
    """Refuse a stated profile that the machine contradicts, with what was found.

    ``hw.allow_mismatch=true`` silences everything but a missing CUDA device, without which
    nothing of such a profile could run.
    """
    if hw.device == "cuda" and machine.device != "cuda":
        raise UsageError(
            f"hw={hw.name} needs a CUDA device; found {machine.device_name} (cpu); "
            "type hw=auto or hw=cpu"
        )
    if hw.allow_mismatch:
        return
    memory = machine.device_memory_gib or machine.memory_gib
    found = f"found {machine.device_name} with {memory:g} GiB"
    override = "type hw=auto, or hw.allow_mismatch=true to run all the same"
    if hw.match and hw.match.lower() not in machine.device_name.lower():
        raise UsageError(f"hw={hw.name} is a {hw.match}; {found}; {override}")
    if hw.memory_gib and memory < hw.memory_gib:
        raise UsageError(f"hw={hw.name} states {hw.memory_gib:g} GiB; {found}; {override}")
    if hw.capability and machine.capability and machine.capability < hw.capability:
        raise UsageError(
            f"hw={hw.name} states compute capability {hw.capability:g}; {found} and "
            f"{machine.capability:g}; {override}"
        )


def permitted(hw: HwConfig, machine: Machine) -> Machine:
    """The machine without the number formats that the profile forbids."""
    return machine if hw.half_precision else replace(machine, fast_dtypes=("float32",))


def processor_name() -> str:
    """The processor's marketing name, or its architecture where the system hides the name."""
    information = Path("/proc/cpuinfo")
    if information.is_file():
        match = re.search(r"^model name\s*:\s*(.+)$", information.read_text("utf-8"), re.MULTILINE)
        if match:
            return " ".join(match[1].split())
    return platform.processor() or platform.machine()


def usable_cores() -> int:
    """Processors that this process may run on, which can be fewer than the machine has."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def memory_gib() -> float:
    """Main memory in GiB."""
    import psutil

    total: int = psutil.virtual_memory().total
    return round(total / 2**30, 1)


def library_versions() -> dict[str, str]:
    """Installed versions of ``LIBRARIES`` and ``OPTIONAL``, without importing them."""
    found = {}
    for name in (*LIBRARIES, *OPTIONAL):
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            continue
    return found


def fast_dtypes(device: str) -> list[str]:
    """Dtypes in which a matrix product is at least as fast as half of float32's speed.

    Many CPUs emulate bfloat16 and float16, about 100 times slower; a probe of some milliseconds
    tells. The dtypes take turns, so that other work on the machine, which can hold up several
    products in a row, does not fall on one of them alone: a study is refused where the answer
    differs from that of the day before.
    """
    import torch

    names = ("float32", "bfloat16", "float16")
    best = dict.fromkeys(names, float("inf"))
    threads = torch.get_num_threads()
    # Threads wait for each other, so that a busy machine holds up nearly every product of several.
    torch.set_num_threads(1)
    try:
        for turn in range(ROUNDS):
            for name in names:
                if turn < 4 or best[name] <= EMULATED * best["float32"]:
                    best[name] = min(best[name], product_seconds(device, name))
    finally:
        torch.set_num_threads(threads)
    return [name for name in names if best[name] <= 2 * best["float32"]]


def product_seconds(device: str, dtype: str) -> float:
    """Seconds of one product of two matrices of 256 x 256."""
    import torch

    matrix = torch.ones(256, 256, device=device, dtype=getattr(torch, dtype))
    started = time.perf_counter()
    matrix @ matrix
    if device == "cuda":
        torch.cuda.synchronize()
    return time.perf_counter() - started
