"""The lease of a study: at most one live controller, and none after a kill."""

from __future__ import annotations

import os
import sys
import weakref
from functools import partial
from pathlib import Path
from typing import BinaryIO
from urllib.parse import quote

from engine.errors import UsageError

_LOCKED_BYTE = 1 << 20
"""Offset of the locked byte on Windows, where a locked byte cannot be read: beyond the holder's
process number, which a second controller wants to show."""


def take(path: Path, study: str) -> BinaryIO:
    """Lock the lease file that ``study`` has beside the database ``path``; closing it releases it,
    and so does the system when this process ends, however it ends.

    Raises UsageError while another controller holds it, and OSError where nothing can be written.
    """
    file = path.with_name(f"{path.name}.{quote(study, safe='')}.lock")
    lease = open(file, "a+b")  # noqa: SIM115 (held open as long as the ledger)
    try:
        _lock(lease)
    except OSError:
        lease.seek(0)
        holder = lease.read(20).decode(errors="replace").strip() or "unknown"
        lease.close()
        raise UsageError(
            f"study {study} is being searched by process {holder}: wait until it ends, "
            "or give another name with study=NAME"
        ) from None
    lease.truncate(0)
    lease.write(f"{os.getpid()}\n".encode())
    lease.flush()
    if hasattr(os, "register_at_fork"):
        # The lock lives as long as any copy of the descriptor: a forked worker must not keep it.
        os.register_at_fork(after_in_child=partial(_close, weakref.ref(lease)))
    return lease


def _close(held: weakref.ref[BinaryIO]) -> None:
    if lease := held():
        lease.close()


def _lock(file: BinaryIO) -> None:
    """Take an exclusive lock or raise OSError at once."""
    if sys.platform == "win32":
        import msvcrt

        file.seek(_LOCKED_BYTE)
        msvcrt.locking(file.fileno(), msvcrt.LK_NBLCK, 1)
    else:
        import fcntl

        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
