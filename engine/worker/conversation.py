"""The conversation with one worker: every call under a deadline, every failure told."""

from __future__ import annotations

import contextlib
import secrets
import threading
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from multiprocessing.connection import Connection
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from engine.errors import TrialError, printable
from engine.worker import protocol
from engine.worker.evidence import Evidence

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from engine.requests import Request


@dataclass(frozen=True)
class Load:
    """What a worker must know to load a program."""

    program: str
    strategies: tuple[str, ...]
    models: dict[str, str]
    denoiser: str
    device: str
    threads: int
    timeout_s: float
    foreign: Mapping[str, int] | None = None
    """Pixels of a side as published, by hub id, of models that miniatures stand for: what a program
    says of them, of half precision and of a GPU is then mapped to what is here."""
    untrusted: bool = False
    """Whether the program is a language model's: evidence is then gathered from the load on."""


@dataclass(frozen=True)
class Answer:
    """The images of a request (N x H x W x 3, uint8) and the coordinator's seconds from request to
    last byte."""

    images: NDArray[np.uint8]
    seconds: float


class Owner(Protocol):
    """What a worker belongs to: it stops, wakes and kills it with everything that it started."""

    def stop(self, worker: Worker) -> None: ...
    def go(self, worker: Worker) -> None: ...
    def kill(self, worker: Worker) -> None: ...
    def end(self, worker: Worker) -> int | None: ...


class Worker:
    """One running program. Every call raises TrialError when the worker fails or is too late."""

    def __init__(self, pid: int, connection: Connection[Any, Any], log: Path, owner: Owner) -> None:
        self.pid = pid
        self.timeout_s = 600.0
        self.load_s = 0.0
        self._connection = connection
        self._log = log
        self._owner = owner
        self._late = False
        self._paused = False

    def load(self, load: Load) -> None:
        """Execute the program; a failure is one of stage "load" or what the worker names."""
        self.timeout_s = load.timeout_s
        started = time.perf_counter()
        self._ask(
            "load",
            stage="load",
            program=load.program,
            strategies=load.strategies,
            models=load.models,
            denoiser=load.denoiser,
            device=load.device,
            threads=load.threads,
            untrusted=load.untrusted,
            foreign=None if load.foreign is None else dict(load.foreign),
        )
        self.load_s = time.perf_counter() - started

    def generate(self, request: Request) -> Answer:
        """The request's images; the clock runs here, so nothing in the worker can bend it."""
        import numpy as np

        nonce = secrets.token_hex(8)
        fields, pictures = _spoken(request)
        started = time.perf_counter()
        header, payload = self._ask("generate", payload=pictures, nonce=nonce, **fields)
        seconds = time.perf_counter() - started
        shape = tuple(header.get("shape", ()))
        count = len(request.cases)
        if header.get("nonce") != nonce or len(shape) != 4 or (shape[0], shape[3]) != (count, 3):
            asked = "one image" if count == 1 else f"{count} images"
            raise TrialError("run", f"answered with images of shape {shape} instead of {asked}")
        if len(payload) != int(np.prod(shape)):
            raise TrialError("run", f"answered {len(payload)} bytes for images of {shape}")
        return Answer(np.frombuffer(payload, np.uint8).reshape(shape).copy(), seconds)

    def cost(self, request: Request) -> dict[str, Any]:
        """Operations and denoiser forwards of the request, counted in a call of its own."""
        fields, pictures = _spoken(request)
        return self._ask("cost", payload=pictures, **fields)[0]

    def evidence(self, request: Request) -> Evidence:
        """What the worker sees while it answers the request, in a call of its own."""
        fields, pictures = _spoken(request)
        count = len(request.cases)
        header, _ = self._ask("evidence", payload=pictures, images=count, **fields)
        try:
            return Evidence.of(header["evidence"])
        except (KeyError, ValueError) as error:
            raise TrialError("run", f"the worker broke the protocol: {error}") from error

    def rate(self, device: str) -> float:
        """Operations a second that the device reaches at best; asked of trusted programs only."""
        return float(self._ask("rate", device=device)[0]["rate"])

    def profile(self, request: Request) -> dict[str, float]:
        """Milliseconds of each component while the request is answered."""
        fields, pictures = _spoken(request)
        answer = self._ask("profile", payload=pictures, **fields)[0]
        found: dict[str, float] = answer["milliseconds"]
        return found

    def calibrate(self, strategy: str, requests: Sequence[Request], denoiser: str) -> Any:
        """What a strategy measures of the loaded pipeline, as JSON; the worker is of no further
        use."""
        spoken = [_spoken(request) for request in requests]
        answer = self._ask(
            "calibrate",
            payload=b"".join(pictures for _, pictures in spoken),
            strategy=strategy,
            requests=[fields | {"bytes": len(pictures)} for fields, pictures in spoken],
            denoiser=denoiser,
        )[0]
        return answer["measured"]

    def graphs(self) -> int | None:
        """Graphs that the worker has compiled so far; None if it compiles nothing."""
        found: int | None = self._ask("graphs")[0]["graphs"]
        return found

    def check_active(self) -> None:
        self._ask("active")

    def applicable(self, denoiser: str, device: str) -> dict[str, str | None]:
        """Strategy to the reason why it cannot apply to the loaded pipeline, None where it can."""
        header, _ = self._ask("applicable", denoiser=denoiser, device=device)
        reasons: dict[str, str | None] = header["reasons"]
        return reasons

    def memory_gib(self, device: str) -> float:
        return float(self._ask("memory", device=device)[0]["gib"])

    def _ask(
        self, op: str, stage: str = "run", payload: bytes = b"", **fields: Any
    ) -> tuple[dict[str, Any], memoryview]:
        self.resume()
        # The deadline kills the process group: whatever hangs, reading then ends with EOF.
        alarm = threading.Timer(self.timeout_s, self._expire)
        alarm.daemon = True
        alarm.start()
        try:
            protocol.send(self._connection, {"op": op, **fields}, payload)
            header, answer = protocol.receive(self._connection)
        except (EOFError, OSError, protocol.ProtocolError) as error:
            raise self._obituary(stage, error) from error
        finally:
            alarm.cancel()
        if not header.get("ok"):
            raise TrialError(
                str(header.get("stage") if header.get("stage") != "run" else stage),
                printable(str(header.get("reason", "no reason given")), 2300),
                printable(str(header.get("traceback", "")), 20_000),
            )
        return header, answer

    def _expire(self) -> None:
        self._late = True
        self._owner.kill(self)

    def _obituary(self, stage: str, error: Exception) -> TrialError:
        if self._late:
            return TrialError("timeout", f"no answer within {self.timeout_s:g} s at {stage}")
        if isinstance(error, protocol.ProtocolError):
            return TrialError(stage, f"the worker broke the protocol: {error}")
        status = self.close()
        how = f"signal {-status}" if status is not None and status < 0 else f"status {status}"
        return TrialError(stage, f"the worker ended with {how}{self._last_words()}")

    def _last_words(self) -> str:
        with contextlib.suppress(OSError):
            lines = self._log.read_bytes()[-2000:].decode(errors="replace").strip().splitlines()
            if lines:
                return f": {printable(lines[-1], 300)}"
        return ""

    def pause(self) -> None:
        """Stop the process, so that it costs the other arm nothing."""
        if not self._paused:
            self._paused = True
            self._owner.stop(self)

    def resume(self) -> None:
        if self._paused:
            self._paused = False
            self._owner.go(self)

    def close(self) -> int | None:
        """Kill the worker and its children; the exit status if it is known. Idempotent."""
        return self._owner.end(self)

    def disconnect(self) -> None:
        self._connection.close()


def _spoken(request: Request) -> tuple[dict[str, Any], bytes]:
    """A request as header fields and the pixels of its init or control images."""
    pictures = request.pictures()
    fields = {
        "options": request.options(),
        "seed": request.seed,
        "pictures": [picture.shape for picture in pictures],
    }
    return fields, b"".join(picture.tobytes() for picture in pictures)
