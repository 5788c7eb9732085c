"""The worker's side: load a program, answer requests for images, until the pipe closes.

Runs in a child of the fork server, or as a fresh interpreter:
``python -m engine.worker.serve FD``.
"""

from __future__ import annotations

import contextlib
import linecache
import os
import sys
import threading
import time
import traceback
from collections.abc import Callable
from multiprocessing.connection import Connection
from types import ModuleType
from typing import Any

from engine.worker import protocol

OUTPUT_LIMIT = 256 * 2**20
"""Largest file that a worker may write, its log included."""
MAX_IMAGES = 64
NAME = "accelerated.py"
"""What a program goes by in tracebacks."""
TRACEBACK_LINES = 60
"""Lines of a program's traceback that go back to the coordinator, the last ones."""
OPERATIONS = (
    "load", "generate", "cost", "active", "applicable", "profile", "graphs", "memory", "calibrate",
    "evidence", "rate",
)  # fmt: skip


class Session:
    """One loaded program and the evidence that is gathered around it."""

    def __init__(self) -> None:
        self.module: ModuleType | None = None
        self.pipe: Any = None
        self.counters: Any = None
        self.strategies: list[str] = []
        self.denoiser = ""
        self.shapes: dict[str, str] = {}
        self.mapped: list[str] = []
        self.opened: list[str] = []

    def load(self, request: dict[str, Any]) -> dict[str, Any]:
        """Execute the program's text, load and accelerate its pipeline."""
        import torch

        from engine.worker import foreign, gates, observe, preamble, probe, process

        torch.set_num_threads(int(request["threads"]))
        sides = request.get("foreign")
        known = foreign.install(sides, request["device"], self.mapped) if sides else None
        preamble.map_models(request["models"], request["device"], known)
        self.denoiser = request["denoiser"]
        if request.get("untrusted"):
            gates.install(self.mapped)
            # Before the program runs: what it opens from here on is noted.
            self.opened = process.note_files()
        self.module = ModuleType("accelerated")
        sys.modules["accelerated"] = self.module
        text = request["program"]
        # So that a traceback shows the program's lines.
        linecache.cache[NAME] = (len(text), None, text.splitlines(True), NAME)
        exec(compile(text, NAME, "exec"), self.module.__dict__)
        for name in ("load_pipeline", "generate"):
            if not callable(getattr(self.module, name, None)):
                return {"ok": False, "stage": "load", "reason": f"the program lacks {name}()"}
        started = time.perf_counter()
        pipe = self.module.load_pipeline(request["device"])
        self.shapes = observe.fingerprints(pipe)
        self.strategies = list(request["strategies"])
        refusal = probe.refusal(self.strategies, pipe, request["denoiser"], request["device"])
        if refusal is not None:
            return {"ok": False, "stage": "load", "reason": refusal}
        self.counters = probe.count_forwards(getattr(pipe, request["denoiser"]))
        # A program of the user's own may have nothing to apply.
        accelerate = getattr(self.module, "accelerate", None)
        self.pipe = accelerate(pipe) if accelerate else pipe
        return {"ok": True, "load_s": time.perf_counter() - started}

    def _call(self, request: dict[str, Any]) -> list[Any]:
        """The program's answer to a request: PIL images."""
        import numpy as np
        from PIL import Image

        assert self.module is not None
        options = dict(request["options"])
        prompt = options.pop("prompt")
        pictures, start = [], 0
        for shape in request["pictures"]:
            end = start + int(np.prod(shape))
            pixels = np.frombuffer(request["payload"][start:end], np.uint8)
            pictures.append(Image.fromarray(pixels.reshape(shape)))
            start = end
        if pictures:
            options["image"] = pictures[0] if len(pictures) == 1 else pictures
        images: list[Any] = self.module.generate(
            self.pipe, prompt, seed=int(request["seed"]), **options
        )
        return images

    def generate(self, request: dict[str, Any]) -> tuple[dict[str, Any], bytes]:
        import numpy as np

        images = self._call(request)
        if len(images) > MAX_IMAGES:
            raise ValueError(f"{len(images)} images for one request")
        pixels = np.stack([np.asarray(image.convert("RGB"), np.uint8) for image in images])
        return {"ok": True, "nonce": request["nonce"], "shape": pixels.shape}, pixels.tobytes()

    def cost(self, request: dict[str, Any]) -> dict[str, Any]:
        """Denoiser forwards and FLOPs of one request, eager and untimed."""
        import torch

        from engine.worker import cost

        self.counters.reset()
        # A compiled graph hides its operators, and the hook that counts forwards.
        with torch.compiler.set_stance("force_eager"), cost.counting() as flops:
            self._call(request)
        return {
            "ok": True,
            "flops": flops.total(),
            "unknown": sorted(flops.unknown),
            "forwards": self.counters.forwards,
            "batches": self.counters.batches,
            "sample": self.counters.sample,
            "dtypes": sorted(self.counters.dtypes),
        }

    def evidence(self, request: dict[str, Any]) -> dict[str, Any]:
        """What is seen while one request is answered."""
        from engine.worker import observe

        found = observe.evidence(
            self.pipe,
            self.denoiser,
            self.shapes,
            self.mapped,
            self.opened,
            lambda: self._call(request),
            int(request["images"]),
        )
        return {"ok": True, "evidence": found.as_json()}

    def rate(self, request: dict[str, Any]) -> dict[str, Any]:
        """Operations a second of large matrix products."""
        from engine.worker import process

        return {"ok": True, "rate": process.matrix_rate(request["device"])}

    def graphs(self, _request: dict[str, Any]) -> dict[str, Any]:
        """Graphs compiled so far in this process."""
        from engine.worker import probe

        return {"ok": True, "graphs": probe.compiled_graphs()}

    def active(self, _request: dict[str, Any]) -> dict[str, Any]:
        """Whether every strategy really took effect in the images generated so far."""
        from engine.strategy import find

        for name in self.strategies:
            check = find(name).function("active")
            reason = check(self.pipe) if check else None
            if reason is not None:
                return {"ok": False, "stage": "active", "reason": f"{name}: {reason}"}
        return {"ok": True}

    def profile(self, request: dict[str, Any]) -> dict[str, Any]:
        """Milliseconds that each component takes in one request."""
        from engine.worker import probe

        with probe.stopwatches(self.pipe) as spent:
            self._call(request)
        return {"ok": True, "milliseconds": spent}

    def applicable(self, request: dict[str, Any]) -> dict[str, Any]:
        """For every registered strategy why it cannot apply to the loaded pipeline, or null."""
        from engine.strategy import registry
        from engine.worker import probe

        known = registry()
        denoiser, device = request["denoiser"], request["device"]
        reasons = {n: probe.inapplicable(s, self.pipe, denoiser, device) for n, s in known.items()}
        return {"ok": True, "reasons": reasons}

    def calibrate(self, request: dict[str, Any]) -> dict[str, Any]:
        """What a strategy that is not in the program measures of its pipeline over some images."""
        from functools import partial

        from engine.strategy import find
        from engine.worker import probe

        assert self.module is not None
        context = self.module.CTX
        name = request["strategy"]
        refusal = probe.refusal([name], self.pipe, request["denoiser"], context.device)
        if refusal is not None:
            return {"ok": False, "stage": "load", "reason": refusal}
        runs, start = [], 0
        for one in request["requests"]:
            end = start + one["bytes"]
            runs.append(partial(self._call, one | {"payload": request["payload"][start:end]}))
            start = end
        measure = find(name).function("calibrate")
        assert measure is not None
        return {"ok": True, "measured": measure(self.pipe, context, runs)}

    def memory(self, request: dict[str, Any]) -> dict[str, Any]:
        from engine.worker import probe

        return {"ok": True, "gib": probe.peak_memory_gib(request["device"])}


def serve(connection: Connection[Any, Any]) -> None:
    """Answer until the coordinator closes the pipe."""
    session = Session()
    # A program may end its own process while the pipe is open; the coordinator sees EOF.
    while True:
        try:
            request, payload = protocol.receive(connection)
        except (EOFError, OSError):
            return
        header, answer = _answer(session, request | {"payload": payload})
        try:
            protocol.send(connection, header, answer)
        except OSError:
            return


def _answer(session: Session, request: dict[str, Any]) -> tuple[dict[str, Any], bytes]:
    operations: dict[str, Callable[[dict[str, Any]], Any]] = {
        name: getattr(session, name) for name in OPERATIONS
    }
    try:
        answer = operations[request["op"]](request)
    except BaseException as error:
        # Whatever a candidate raises, SystemExit included, costs only the candidate.
        last = traceback.extract_tb(error.__traceback__)[-1:]
        where = f" ({os.path.basename(last[0].filename)}:{last[0].lineno})" if last else ""
        text = f"{type(error).__name__}: {error}"
        # The log may be at its cap.
        with contextlib.suppress(OSError):
            traceback.print_exc()
        shown = _traceback(error)[-TRACEBACK_LINES:]
        return {
            "ok": False,
            "stage": "run",
            "reason": text[:2000] + where,
            "traceback": "\n".join(line[:300] for line in shown),
        }, b""
    return answer if isinstance(answer, tuple) else (answer, b"")


def _traceback(error: BaseException) -> list[str]:
    """The lines of a traceback from the program's first frame on; ours above it tell nothing."""
    frame = error.__traceback__
    while frame is not None and frame.tb_frame.f_code.co_filename != NAME:
        frame = frame.tb_next
    lines = traceback.format_exception(type(error), error, frame or error.__traceback__)
    return "".join(lines).splitlines()


def isolate(log: int) -> None:
    """Own session, no terminal, output to a file with a cap, and death with the parent."""
    os.dup2(log, 1)
    os.dup2(log, 2)
    with contextlib.suppress(OSError):
        null = os.open(os.devnull, os.O_RDONLY)
        os.dup2(null, 0)
    if sys.platform != "win32":
        import resource

        if os.getsid(0) != os.getpid():
            os.setsid()
        resource.setrlimit(resource.RLIMIT_FSIZE, (OUTPUT_LIMIT, OUTPUT_LIMIT))
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    die_with_parent()


def die_with_parent() -> None:
    """End this process when its parent does, even while it is stopped or computing."""
    parent = os.getppid()
    if sys.platform == "linux":
        import ctypes
        import signal

        pr_set_pdeathsig = 1
        ctypes.CDLL(None).prctl(pr_set_pdeathsig, signal.SIGKILL)
        if os.getppid() != parent:
            os._exit(1)
        return

    def watch() -> None:
        while os.getppid() == parent:
            time.sleep(0.5)
        os._exit(1)

    threading.Thread(target=watch, daemon=True).start()


def main(arguments: list[str]) -> None:
    from multiprocessing.connection import Connection

    connection: Connection[Any, Any] = Connection(int(arguments[0]))
    isolate(os.dup(2))
    serve(connection)


if __name__ == "__main__":
    main(sys.argv[1:])
