"""A process that has imported the heavy libraries and run no operator, and forks workers.

A forked worker answers about ten times sooner than a fresh interpreter. Forking is safe only while
no thread pool has been started, hence no operator before the fork. Linux CPUs only.
"""

from __future__ import annotations

import json
import os
import socket
import sys
from multiprocessing.connection import Connection
from typing import Any

from engine.worker import serve


def main(control: socket.socket) -> None:
    """Answer the coordinator's requests until it closes the control socket."""
    import_everything()
    control.sendall(b"ready\n")
    while True:
        data, descriptors, _flags, _address = socket.recv_fds(control, 65536, 2)
        if not data:
            return
        request = json.loads(data)
        if request["op"] == "fork":
            _fork(control, *descriptors)
        else:
            control.sendall(json.dumps({"status": _reap(int(request["pid"]))}).encode() + b"\n")


def import_everything() -> None:
    """What a worker will need, so that it is paid for once."""
    import diffusers
    import torch.utils.flop_counter
    import transformers

    assert torch.utils.flop_counter

    for name in ("StableDiffusionPipeline", "DDIMScheduler", "AutoencoderKL"):
        getattr(diffusers, name)
    for name in ("CLIPTextModel", "CLIPTokenizer"):
        getattr(transformers, name)
    from engine.strategy import registry

    registry()


def _fork(control: socket.socket, pipe: int, log: int) -> None:
    pid = os.fork()
    if pid:
        os.close(pipe)
        os.close(log)
        control.sendall(json.dumps({"pid": pid}).encode() + b"\n")
        return
    try:
        control.close()
        serve.isolate(log)
        connection: Connection[Any, Any] = Connection(pipe)
        serve.serve(connection)
    finally:
        os._exit(0)


def _reap(pid: int) -> int | None:
    """Exit status of a worker that has been killed or is ending; negative is a signal."""
    try:
        _, status = os.waitpid(pid, 0)
    except ChildProcessError:
        return None
    return os.waitstatus_to_exitcode(status)


if __name__ == "__main__":
    serve.die_with_parent()
    main(socket.socket(fileno=int(sys.argv[1])))
