"""An interrupted command ends as interrupted, also where a library turned it into an error."""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator

import pytest

from engine import interrupt


@pytest.fixture(autouse=True)
def heard() -> Iterator[None]:
    """Python's own handler: a shell has its background jobs ignore the signal."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


def tidied_up_badly() -> None:
    try:
        signal.raise_signal(signal.SIGINT)
    finally:
        raise AttributeError("what tidying up ran into")


def told_by_a_library() -> None:
    try:
        with interrupt.recognised():
            signal.raise_signal(signal.SIGINT)
    except KeyboardInterrupt:
        raise ValueError("a library's own account") from None


def test_an_error_that_follows_the_signal_counts_as_the_interrupt() -> None:
    with pytest.raises(KeyboardInterrupt) as caught, interrupt.recognised():
        tidied_up_badly()
    assert isinstance(caught.value.__cause__, AttributeError)


def test_an_inner_command_leaves_the_signal_to_the_outer_one() -> None:
    before = signal.getsignal(signal.SIGINT)
    with pytest.raises(KeyboardInterrupt), interrupt.recognised():
        told_by_a_library()
    assert signal.getsignal(signal.SIGINT) is before


def test_without_the_signal_an_error_stays_what_it_is() -> None:
    with pytest.raises(ValueError, match="own"), interrupt.recognised():
        raise ValueError("its own")


def test_another_thread_and_an_ignored_signal_are_left_alone() -> None:
    ran = []

    def work() -> None:
        with interrupt.recognised():
            ran.append(True)

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        with interrupt.recognised():
            assert signal.getsignal(signal.SIGINT) is signal.SIG_IGN
    finally:
        signal.signal(signal.SIGINT, before)
    assert ran == [True]
