"""What can be told of the worker's own process: switches, threads, children, files, its speed."""

from __future__ import annotations

import contextlib
import os
import sys
import threading
import time
from collections.abc import Sequence
from typing import Any

PROGRAM = "accelerated.py"
"""What a program goes by in its frames."""
PICTURES = (".png", ".jpg", ".jpeg", ".webp", ".bmp", ".gif", ".npy", ".npz", ".pkl", ".pt")
"""Ends of the names of files that can hold a picture made before."""


def numerics() -> dict[str, bool | int | float | str]:
    """Switches of torch that differ from their default, and the number of threads."""
    import torch

    now: dict[str, bool | int | float | str] = {
        "float32_matmul_precision": torch.get_float32_matmul_precision(),
        "cuda.matmul.allow_tf32": torch.backends.cuda.matmul.allow_tf32,
        "cudnn.allow_tf32": torch.backends.cudnn.allow_tf32,
        "cudnn.benchmark": torch.backends.cudnn.benchmark,
        "deterministic": torch.are_deterministic_algorithms_enabled(),
        "default_dtype": short(torch.get_default_dtype()),
    }
    default = {
        "float32_matmul_precision": "highest",
        "cuda.matmul.allow_tf32": False,
        "cudnn.allow_tf32": True,
        "cudnn.benchmark": False,
        "deterministic": False,
        "default_dtype": "float32",
    }
    changed = {name: value for name, value in now.items() if value != default[name]}
    return changed | {"threads": torch.get_num_threads()}


def note_files() -> list[str]:
    """A list to which the name of every picture file is added that this process opens from now on.

    The hook that does it cannot be removed by what runs later.
    """
    opened: list[str] = []

    def audit(event: str, arguments: tuple[Any, ...]) -> None:
        if event == "open" and isinstance(arguments[0], str):
            name = arguments[0]
            if name.lower().endswith(PICTURES) and len(opened) < 1000:
                opened.append(name)

    sys.addaudithook(audit)
    return opened


def threads() -> int:
    """Operating-system threads of this process."""
    if sys.platform == "linux":
        return len(os.listdir("/proc/self/task"))
    import psutil

    return int(psutil.Process().num_threads())


def background() -> tuple[str, ...]:
    """Threads besides this one in which a function of the program is at work."""
    frames = sys._current_frames()
    found = []
    for thread in threading.enumerate():
        frame = frames.get(thread.ident or 0)
        while frame is not None and thread is not threading.current_thread():
            if frame.f_code.co_filename == PROGRAM:
                found.append(thread.name)
                break
            frame = frame.f_back
    return tuple(sorted(found))


def processes() -> int:
    """Living descendants of this process; in a sandbox also those that got rid of their parent."""
    import psutil

    with contextlib.suppress(psutil.Error):
        own = psutil.Process()
        children = {child.pid for child in own.children(recursive=True)}
        if os.getppid() == 1:
            children |= {p.pid for p in psutil.process_iter() if p.pid not in (1, own.pid)}
        living = (psutil.Process(pid) for pid in children)
        return sum(p.status() != psutil.STATUS_ZOMBIE for p in living)
    return 0


def matrix_rate(device: str, dtypes: Sequence[str] = ("float32", "bfloat16")) -> float:
    """Most operations a second that products of large matrices reach here in any of these dtypes;
    no network is faster. Runs for about a quarter of a second each."""
    import torch

    best = 0.0
    side = 4096 if device.startswith("cuda") else 1024
    precision = torch.get_float32_matmul_precision()
    torch.set_float32_matmul_precision("high")
    try:
        for name in dtypes:
            kind = getattr(torch, name)
            a = torch.ones(side, side, dtype=kind, device=device)
            spent = 0.0
            for turn in range(50):
                started = time.perf_counter()
                product = a @ a
                # Reading a value waits for the device.
                float(product[0, 0])
                seconds = time.perf_counter() - started
                best = max(best, 2 * side**3 / seconds if turn else 0.0)
                spent += seconds
                if spent > 0.25 and turn > 2:
                    break
    finally:
        torch.set_float32_matmul_precision(precision)
    return best


def short(dtype: Any) -> str:
    """A dtype's name without torch's prefix."""
    return str(dtype).removeprefix("torch.")
