"""Where workers come from: start them, stop and wake them, leave none behind."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Mapping
from multiprocessing import Pipe
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

from engine.errors import TrialError
from engine.worker.conversation import Worker

ROOT = Path(__file__).resolve().parents[2]
KEPT_ENVIRONMENT = [
    "PATH",
    "HOME",
    "LANG",
    "LC_ALL",
    "TMPDIR",
    "TEMP",
    "TMP",
    "SYSTEMROOT",
    "LD_LIBRARY_PATH",
    "VIRTUAL_ENV",
    "CUDA_VISIBLE_DEVICES",
    "HF_HOME",
    "HF_HUB_CACHE",
    "PYTHONPATH",
    "CC",
    "CXX",
]
"""Variables that a worker sees; keys and tokens are not among them."""


def _kill_group(pid: int) -> None:
    with contextlib.suppress(ProcessLookupError, PermissionError):
        if hasattr(os, "killpg"):
            os.killpg(pid, signal.SIGKILL)
        else:
            os.kill(pid, signal.SIGTERM)


class Pool:
    """Starts workers: from a fork server on Linux CPUs, as fresh interpreters elsewhere.

    ``environment`` is what they see besides the kept variables.
    """

    def __init__(
        self, device: str, logs: Path, environment: Mapping[str, str] | None = None
    ) -> None:
        self._more = dict(environment or {})
        self._forks = sys.platform == "linux" and device == "cpu"
        self._logs = logs
        self._server: subprocess.Popen[bytes] | None = None
        self._control: socket.socket | None = None
        self._lines: Any = None
        self._fresh: dict[int, subprocess.Popen[bytes]] = {}
        self._live: dict[int, Worker] = {}
        self._count = 0

    def start(self) -> None:
        """Import the heavy libraries now instead of at the first worker."""
        if self._forks and self._server is None:
            ours, theirs = socket.socketpair()
            self._logs.mkdir(parents=True, exist_ok=True)
            log = (self._logs / "forkserver.log").open("wb")
            self._server = subprocess.Popen(
                [sys.executable, "-m", "engine.worker.forkserver", str(theirs.fileno())],
                pass_fds=(theirs.fileno(),),
                env=_environment() | self._more,
                start_new_session=True,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
            )
            theirs.close()
            log.close()
            self._control = ours
            self._lines = ours.makefile("rb")
            if self._lines.readline() != b"ready\n":
                raise TrialError("load", f"the fork server failed; see {log.name}")

    def spawn(self) -> Worker:
        """A new worker that has loaded nothing yet."""
        self.start()
        self._logs.mkdir(parents=True, exist_ok=True)
        self._count += 1
        path = self._logs / f"worker-{os.getpid()}-{self._count}.log"
        ours, theirs = Pipe()
        with path.open("wb") as log:
            pid = self._fork(theirs, log.fileno()) if self._forks else self._popen(theirs, log)
        theirs.close()
        worker = Worker(pid, ours, path, self)
        self._live[pid] = worker
        return worker

    def _fork(self, pipe: Connection[Any, Any], log: int) -> int:
        assert self._control is not None
        socket.send_fds(self._control, [b'{"op": "fork"}'], [pipe.fileno(), log])
        return int(self._reply("pid"))

    def _reply(self, name: str) -> Any:
        """What the fork server says of ``name``; an answer that an interrupted call has left
        unread is passed over."""
        while line := self._lines.readline():
            found = json.loads(line)
            if name in found:
                return found[name]
        raise TrialError("load", "the fork server has ended")

    def _popen(self, pipe: Connection[Any, Any], log: Any) -> int:
        process = subprocess.Popen(
            [sys.executable, "-m", "engine.worker.serve", str(pipe.fileno())],
            pass_fds=(pipe.fileno(),),
            env=_environment() | self._more,
            start_new_session=True,
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
        )
        self._fresh[process.pid] = process
        return process.pid

    def stop(self, worker: Worker) -> None:
        if hasattr(signal, "SIGSTOP"):
            with contextlib.suppress(ProcessLookupError):
                os.killpg(worker.pid, signal.SIGSTOP)

    def go(self, worker: Worker) -> None:
        if hasattr(signal, "SIGCONT"):
            with contextlib.suppress(ProcessLookupError):
                os.killpg(worker.pid, signal.SIGCONT)

    def kill(self, worker: Worker) -> None:
        _kill_group(worker.pid)

    def end(self, worker: Worker) -> int | None:
        if self._live.pop(worker.pid, None) is None:
            return None
        worker.disconnect()
        # A worker that is already gone keeps its status; one that is not gets SIGKILL.
        _kill_group(worker.pid)
        process = self._fresh.pop(worker.pid, None)
        if process is not None:
            return process.wait()
        assert self._control is not None
        self._control.sendall(json.dumps({"op": "reap", "pid": worker.pid}).encode())
        status = self._reply("status")
        return None if status is None else int(status)

    def close(self) -> None:
        """Kill every worker and the fork server."""
        for worker in list(self._live.values()):
            with contextlib.suppress(TrialError, OSError):
                self.end(worker)
        if self._server is not None:
            _kill_group(self._server.pid)
            self._server.wait()
            self._server = None
            if self._control is not None:
                self._control.close()


def _environment() -> dict[str, str]:
    """What workers may know: no keys, no tokens, no network for the hub."""
    kept = {name: os.environ[name] for name in KEPT_ENVIRONMENT if name in os.environ}
    paths = [str(ROOT), *filter(None, [kept.get("PYTHONPATH")])]
    return kept | {
        "PYTHONPATH": os.pathsep.join(paths),
        "HF_HUB_OFFLINE": "1",
        "TOKENIZERS_PARALLELISM": "false",
        "TRANSFORMERS_VERBOSITY": "error",
        "DIFFUSERS_VERBOSITY": "error",
    }
