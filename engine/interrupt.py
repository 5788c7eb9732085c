"""Ctrl-C is one thing, wherever it strikes."""

from __future__ import annotations

import contextlib
import signal
import threading
from collections.abc import Iterator
from types import FrameType


@contextlib.contextmanager
def recognised() -> Iterator[None]:
    """An error that follows Ctrl-C is raised as KeyboardInterrupt.

    The signal strikes in the middle of any line, also of a library's own tidying up: what leaves
    that library is then the failure of the tidying, such as an AttributeError of OmegaConf.
    """
    handler = signal.getsignal(signal.SIGINT)
    if not callable(handler) or threading.current_thread() is not threading.main_thread():
        yield
        return
    struck = False

    def note(number: int, frame: FrameType | None) -> None:
        nonlocal struck
        struck = True
        handler(number, frame)

    signal.signal(signal.SIGINT, note)
    try:
        yield
    except Exception as error:
        if struck:
            raise KeyboardInterrupt from error
        raise
    finally:
        signal.signal(signal.SIGINT, handler)
