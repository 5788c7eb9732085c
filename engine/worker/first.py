"""The first process of a sandbox: it has imported the heavy libraries and forks one candidate at a
time, so that a candidate costs a second and not the start of an interpreter.

It is our code in there, and a candidate could try to reach it. Nothing can read or trace it, no
signal ends it, it stops, wakes and kills everything else that runs in the sandbox, and behind each
candidate it removes what was written and says whether anything is left over. Linux only.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import resource
import select
import shutil
import signal
import socket
import stat
import sys
from collections.abc import Mapping
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

from engine.worker import forkserver, serve

PROCESSES = 256
"""Processes at once from which a candidate is killed; compiling takes some dozens."""
FILES = 4096
TASKS = 8192
"""Limit of the kernel for threads and processes of one user; where it does not hold, as for root,
:data:`PROCESSES` does."""
WRITABLE = ("/tmp", "/home/candidate", "/dev/shm", "/dev/mqueue")
IPC = ("/proc/sysvipc/shm", "/proc/sysvipc/sem", "/proc/sysvipc/msg")
PR_SET_DUMPABLE = 4


class First:
    """Serves the coordinator's requests until it closes the control socket."""

    def __init__(self, control: socket.socket) -> None:
        self.control = control
        self.log: int | None = None
        self.ended: dict[int, int] = {}
        self.untouched = (_settings(), _fixtures())

    def serve(self) -> None:
        while True:
            ready, _, _ = select.select([self.control], [], [], 0.25)
            if not ready:
                self._watch()
                continue
            data, descriptors, _flags, _address = socket.recv_fds(self.control, 65536, 2)
            if not data:
                return
            for line in data.splitlines():
                self._answer(json.loads(line), descriptors)

    def _answer(self, request: Mapping[str, Any], descriptors: list[int]) -> None:
        name = request["op"]
        if name == "fork":
            self._fork(request, *descriptors)
        elif name == "end":
            self._reply({"status": self._end(int(request["pid"])), "clean": self._clean()})
        else:
            kinds = {"stop": signal.SIGSTOP, "go": signal.SIGCONT, "kill": signal.SIGKILL}
            everything_else(kinds[name])
            self._reply({})

    def _reply(self, answer: Mapping[str, Any], descriptors: list[int] | None = None) -> None:
        socket.send_fds(self.control, [json.dumps(answer).encode() + b"\n"], descriptors or [])

    def _fork(self, request: Mapping[str, Any], pipe: int, log: int) -> None:
        pid = os.fork()
        if pid == 0:
            _candidate(pipe, log, request["memory"])
        os.close(pipe)
        self.log = log
        handle = os.pidfd_open(pid)
        # Numbers in here mean nothing outside; a handle means the same process everywhere.
        self._reply({"pid": pid}, [handle])
        os.close(handle)

    def _watch(self) -> None:
        """Reap what has ended, and end a candidate that floods the sandbox with processes."""
        self._reap()
        count = sum(name.isdecimal() for name in os.listdir("/proc")) - 1
        if count > PROCESSES:
            everything_else(signal.SIGKILL)
            if self.log is not None:
                with contextlib.suppress(OSError):
                    os.write(self.log, b"\nmore than %d processes\n" % PROCESSES)

    def _reap(self, block: bool = False) -> None:
        """Orphans of a candidate become our children, so everything in here is reaped here."""
        with contextlib.suppress(ChildProcessError):
            while True:
                pid, status = os.waitpid(-1, 0 if block else os.WNOHANG)
                if pid == 0:
                    return
                self.ended[pid] = os.waitstatus_to_exitcode(status)

    def _end(self, pid: int) -> int | None:
        """Kill everything else; the candidate's exit status if it is known."""
        self._reap()
        everything_else(signal.SIGKILL)
        # Until there is no child at all.
        self._reap(block=True)
        status = self.ended.pop(pid, None)
        self.ended.clear()
        if self.log is not None:
            os.close(self.log)
            self.log = None
        return status

    def _clean(self) -> bool:
        """Remove what a candidate wrote; False where something of it could be left."""
        try:
            fixtures = _fixtures()
            if (_settings(), fixtures) != self.untouched:
                return False
            for path in _written(fixtures):
                _remove(path)
            left = _written(fixtures)
        except OSError:
            # A folder of the sandbox's own was closed or taken away.
            return False
        shared = any(len(Path(p).read_text().splitlines()) > 1 for p in IPC if os.path.exists(p))
        return not left and not shared


def everything_else(kind: int) -> None:
    """Send a signal to every process of the sandbox but this one, wherever it hides: sessions and
    groups of its own are no way out."""
    with contextlib.suppress(ProcessLookupError):
        os.kill(-1, kind)


def _candidate(pipe: int, log: int, memory: int | None) -> None:
    """What the forked process is from here on; does not return."""
    try:
        for kind in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            signal.signal(kind, signal.SIG_DFL)
        serve.isolate(log)
        _keep_open(pipe)
        _dumpable(True)
        limits = {
            resource.RLIMIT_NPROC: TASKS,
            resource.RLIMIT_NOFILE: FILES,
            resource.RLIMIT_CORE: 0,
            # Not the address space: libraries reserve far more of that than they use.
            resource.RLIMIT_DATA: memory,
        }
        for what, most in limits.items():
            if most is not None:
                hard = resource.getrlimit(what)[1]
                most = most if hard == resource.RLIM_INFINITY else min(most, hard)
                resource.setrlimit(what, (most, most))
        connection: Connection[Any, Any] = Connection(pipe)
        serve.serve(connection)
    finally:
        os._exit(0)


def _keep_open(pipe: int) -> None:
    """Close every descriptor but the standard ones and the pipe."""
    for name in os.listdir("/proc/self/fd"):
        if int(name) > 2 and int(name) != pipe:
            with contextlib.suppress(OSError):
                os.close(int(name))


def _dumpable(on: bool) -> None:
    """Whether others of the same user may read and trace this process."""
    import ctypes

    ctypes.CDLL(None).prctl(PR_SET_DUMPABLE, int(on), 0, 0, 0)


def _settings() -> tuple[Any, ...]:
    """What a process of the same user could set of this one."""
    limits = [
        getattr(resource, name) for name in sorted(dir(resource)) if name.startswith("RLIMIT_")
    ]
    return (
        tuple(resource.getrlimit(limit) for limit in limits),
        os.getpriority(os.PRIO_PROCESS, 0),
        tuple(sorted(os.sched_getaffinity(0))),
        os.sched_getscheduler(0),
    )


def _fixtures() -> dict[Path, int | None]:
    """What the sandbox itself has in its writable places, where weights or a checkout lie below
    /tmp: mount points (None), which nobody can change, and the folders on the way to them with
    their modes. A folder can be moved with the mount in it, so this is compared as a whole."""
    table = Path("/proc/self/mountinfo").read_text(encoding="utf-8")
    escaped = [line.split()[4] for line in table.splitlines()]
    points = [Path(re.sub(r"\\(\d{3})", lambda m: chr(int(m[1], 8)), text)) for text in escaped]
    found: dict[Path, int | None] = {}
    for place in map(Path, WRITABLE):
        inside = [point for point in points if place in point.parents]
        for point in inside:
            for way in point.parents[: len(point.parts) - len(place.parts) - 1]:
                found[way] = way.stat().st_mode
        found.update(dict.fromkeys(inside))
    return found


def _written(fixtures: Mapping[Path, int | None]) -> list[Path]:
    """What lies in the writable places beside the sandbox's own."""
    ways = [path for path, mode in fixtures.items() if mode is not None]
    places = [*ways, *(place for place in map(Path, WRITABLE) if place.is_dir())]
    return [path for place in places for path in place.iterdir() if path not in fixtures]


def _remove(path: Path) -> None:
    if not path.is_dir() or path.is_symlink():
        with contextlib.suppress(OSError):
            path.unlink()
        return
    for folder, names, _ in os.walk(path, topdown=True):
        for name in ("", *names):
            # Whoever made a folder may have closed it.
            with contextlib.suppress(OSError):
                os.chmod(os.path.join(folder, name), stat.S_IRWXU, follow_symlinks=True)
    shutil.rmtree(path, ignore_errors=True)


def main(descriptor: int, prepared: bool) -> None:
    """Serve from a control socket; ``prepared`` imports the heavy libraries first, which is left
    out where a driver must not be touched before the fork."""
    _dumpable(False)
    for kind in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(kind, signal.SIG_IGN)
    control = socket.socket(fileno=descriptor)
    if prepared:
        forkserver.import_everything()
    first = First(control)
    control.sendall(b"ready\n")
    first.serve()


if __name__ == "__main__":
    main(int(sys.argv[1]), sys.argv[2] == "prepared")
