"""The coordinator's side of the sandboxes in which programs of a language model run."""

from __future__ import annotations

import contextlib
import json
import os
import select
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Iterable, Mapping
from multiprocessing import Pipe
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from engine.errors import TrialError, UsageError
from engine.worker import sandbox
from engine.worker.conversation import Worker
from engine.worker.pool import Pool

if TYPE_CHECKING:
    from engine.hardware import Machine

START_S = 300.0
"""Longest start of a sandbox: it imports the heavy libraries."""
ANSWER_S = 20.0
"""Longest answer of a sandbox's first process to anything else."""
MEMORY_SHARE = 0.8
"""Share of the machine's free memory that a candidate may take."""
PRIVATE = ("TORCHINDUCTOR_CACHE_DIR", "TMPDIR", "HF_HUB_CACHE")
"""Variables of other workers that a sandbox has values of its own for."""


class Workers(Protocol):
    """Where workers come from."""

    def start(self) -> None: ...
    def spawn(self) -> Worker: ...
    def close(self) -> None: ...


class Confined:
    """Sandboxes that each run one candidate at a time.

    On a CPU a sandbox is kept for the next candidate, behind which everything of the last one is
    gone; with an accelerator each candidate has a sandbox of its own. ``readable`` are the folders
    of weights, ``environment`` further variables. Raises UsageError where bubblewrap cannot start.
    """

    def __init__(
        self,
        device: str,
        logs: Path,
        readable: Iterable[Path] = (),
        environment: Mapping[str, str] | None = None,
        program: str = sandbox.COMMAND,
    ) -> None:
        finding = sandbox.probe(program)
        if not finding.ok:
            raise UsageError(
                "programs of a language model run behind bubblewrap, which cannot start here: "
                f"{finding.cause}; {finding.remedy}"
            )
        self._program = program
        self._device = device
        self._logs = logs
        self._readable = list(readable)
        self._environment = sandbox.clean_environment(environment or {})
        self._idle: list[_Cell] = []
        self._busy: dict[int, tuple[Worker, _Cell]] = {}
        self._count = 0

    def start(self) -> None:
        """Have a sandbox ready, so that the next candidate need not wait for one."""
        if not self._idle:
            self._idle.append(self._cell())

    def _cell(self) -> _Cell:
        self._logs.mkdir(parents=True, exist_ok=True)
        self._count += 1
        log = self._logs / f"sandbox-{os.getpid()}-{self._count}.log"
        on_cpu = self._device == "cpu"
        return _Cell(
            log,
            self._readable,
            self._environment,
            () if on_cpu else sandbox.accelerator_nodes(),
            self._program,
        )

    def spawn(self) -> Worker:
        """A new worker in a sandbox that nobody else uses; it has loaded nothing yet."""
        self.start()
        cell = self._idle.pop()
        self._count += 1
        path = self._logs / f"candidate-{os.getpid()}-{self._count}.log"
        ours, theirs = Pipe()
        try:
            with path.open("wb") as log:
                memory = _memory() if self._device == "cpu" else None
                pid = cell.fork(theirs.fileno(), log.fileno(), memory)
        except BaseException:
            cell.destroy()
            raise
        finally:
            theirs.close()
        worker = Worker(pid, ours, path, self)
        self._busy[pid] = (worker, cell)
        return worker

    def stop(self, worker: Worker) -> None:
        self._tell(worker, "stop")

    def go(self, worker: Worker) -> None:
        self._tell(worker, "go")

    def kill(self, worker: Worker) -> None:
        self._tell(worker, "kill")

    def _tell(self, worker: Worker, what: str) -> None:
        if worker.pid not in self._busy:
            return
        cell = self._busy[worker.pid][1]
        try:
            cell.ask({"op": what})
        except TrialError:
            cell.destroy()

    def end(self, worker: Worker) -> int | None:
        """Kill a candidate and all that it started; its exit status if it is known."""
        found = self._busy.pop(worker.pid, None)
        if found is None:
            return None
        worker.disconnect()
        cell = found[1]
        try:
            answer = cell.ask({"op": "end", "pid": cell.candidate})
        except TrialError:
            cell.destroy()
            return None
        # An accelerator's driver keeps a state of its own; a new sandbox has none.
        if answer["clean"] and self._device == "cpu":
            self._idle.append(cell)
        else:
            cell.destroy()
        status = answer["status"]
        return None if status is None else int(status)

    def close(self) -> None:
        """Kill every candidate and every sandbox."""
        for worker, _ in list(self._busy.values()):
            self.end(worker)
        while self._idle:
            self._idle.pop().destroy()


class _Cell:
    """One sandbox: bubblewrap, and the control socket of its first process."""

    def __init__(
        self,
        log: Path,
        readable: Iterable[Path],
        environment: Mapping[str, str],
        devices: Iterable[Path],
        program: str,
    ) -> None:
        self.candidate = 0
        """Number of the candidate inside."""
        self._lock = threading.Lock()
        self._unread = False
        self._control, theirs = socket.socketpair()
        devices = list(devices)
        paths = [str(sandbox.ROOT), *(p for p in sys.path if p.endswith("-packages"))]
        start = (
            f"import sys; sys.path[:0] = {paths!r}; from engine.worker.first import main; "
            f"main({theirs.fileno()}, {not devices})"
        )
        line = sandbox.argv(
            [sys.executable, "-I", "-c", start],
            readable=readable,
            environment=environment,
            devices=devices,
            program=program,
        )
        with log.open("wb") as output:
            self._process = subprocess.Popen(
                line,
                pass_fds=(theirs.fileno(),),
                start_new_session=True,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
            )
        theirs.close()
        if self._line(START_S) != b"ready":
            self.destroy()
            words = log.read_text(encoding="utf-8", errors="replace").strip().splitlines()[-1:]
            raise UsageError(f"the sandbox cannot start: {''.join(words) or 'it ended'}; see {log}")

    def fork(self, pipe: int, log: int, memory: int | None) -> int:
        """Start a candidate; its process number out here."""
        request = json.dumps({"op": "fork", "memory": memory}).encode() + b"\n"
        with self._lock:
            socket.send_fds(self._control, [request], [pipe, log])
            if not select.select([self._control], [], [], ANSWER_S)[0]:
                raise TrialError("load", "the sandbox does not answer")
            data, handles, _, _ = socket.recv_fds(self._control, 4096, 1)
        if not data or not handles:
            raise TrialError("load", "the sandbox has ended")
        self.candidate = int(json.loads(data)["pid"])
        try:
            return _number(handles[0])
        finally:
            os.close(handles[0])

    def ask(self, request: Mapping[str, Any]) -> dict[str, Any]:
        """An answer of the first process; TrialError when there is none."""
        with self._lock:
            if self._unread:
                raise TrialError("run", "the sandbox was interrupted in the middle of an answer")
            self._unread = True
            try:
                self._control.sendall(json.dumps(request).encode() + b"\n")
                line = self._line(ANSWER_S)
                self._unread = False
            except OSError as error:
                raise TrialError("run", f"the sandbox has ended: {error}") from error
        if not line:
            raise TrialError("run", "the sandbox has ended")
        found: dict[str, Any] = json.loads(line)
        return found

    def _line(self, within_s: float) -> bytes:
        """The next line from the first process; empty when it ended or is late."""
        text = b""
        while not text.endswith(b"\n"):
            if not select.select([self._control], [], [], within_s)[0]:
                return b""
            more = self._control.recv(4096)
            if not more:
                return b""
            text += more
        return text.strip()

    def destroy(self) -> None:
        """Kill the sandbox: with its first process the kernel ends every other one in it."""
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(self._process.pid, signal.SIGKILL)
        self._process.wait()
        self._control.close()


def _number(handle: int) -> int:
    """The process number of a handle, as it is in our own namespace."""
    text = Path(f"/proc/self/fdinfo/{handle}").read_text(encoding="ascii")
    number = next(int(line.split()[1]) for line in text.splitlines() if line.startswith("Pid:"))
    if number <= 0:
        raise TrialError("load", "the candidate ended before it began")
    return number


def _memory() -> int:
    import psutil

    return int(MEMORY_SHARE * psutil.virtual_memory().available)


def folders(models: Mapping[str, str], more: Iterable[str] = ()) -> list[Path]:
    """What a sandbox must read to load these models (``Load.models``) and further local files."""
    found = []
    for text in [*(folder.partition(":")[2] or folder for folder in models.values()), *more]:
        path = Path(text).expanduser()
        if not path.exists():
            continue
        path = path.absolute()
        # The hub's cache holds links into the blobs beside its snapshots.
        whole = next((p for p in path.parents if p.name.startswith("models--")), path)
        found.append(whole)
    return list(dict.fromkeys(found))


def confinement(
    kind: str,
    machine: Machine,
    logs: Path,
    readable: Iterable[Path],
    environment: Mapping[str, str],
    private: Path,
) -> Workers:
    """Where programs of a language model run, by ``sandbox=``: behind bubblewrap, or as plain
    processes with a compile cache in ``private`` that nobody else reads."""
    if kind == "process":
        return Pool(machine.device, logs, {**environment, "TORCHINDUCTOR_CACHE_DIR": str(private)})
    kept = {name: value for name, value in environment.items() if name not in PRIVATE}
    compilers = {name: os.environ[name] for name in ("CC", "CXX") if name in os.environ}
    return Confined(machine.device, logs, readable, {**compilers, **kept})
