"""The layer of retries by itself: what is left of the deadline, and the pauses."""

from __future__ import annotations

import time

import pytest

from engine.agent.llm import LlmError, Message, Request
from engine.agent.retry import Retry
from tests.agent.scripted import Scripted, reply

ASKED = Request("coder", (Message("user", "Write."),), settings={"seed": 3})


def test_each_attempt_gets_what_is_left_of_the_one_deadline() -> None:
    failing = LlmError("busy", again=True)
    inner = Scripted([failing, failing, reply("done", seconds=0.0)])
    told = Retry(inner, 5, 60.0, sleep=lambda seconds: time.sleep(0.2)).complete(ASKED)
    left = [float(request.settings["timeout"]) for request in inner.requests]
    assert 59 < left[0] <= 60
    assert left[0] - left[1] >= 0.2
    assert left[1] - left[2] >= 0.2
    assert told.seconds >= 0.4
    assert inner.requests[0].settings["seed"] == 3


def test_pauses_grow_and_what_the_provider_asks_for_wins() -> None:
    pauses: list[float] = []
    asks = LlmError("wait", again=True, retry_after=7.0)
    past = LlmError("wait", again=True, retry_after=-5.0)
    inner = Scripted([LlmError("busy", again=True)] * 4 + [asks, past, "done"])
    Retry(inner, 9, 1000.0, sleep=pauses.append).complete(ASKED)
    for number, pause in enumerate(pauses[:4]):
        assert 2**number / 2 <= pause <= 2**number
    assert pauses[4:] == [7.0, 0.0]


def test_no_pause_begins_that_the_deadline_would_end() -> None:
    inner = Scripted([LlmError("busy", again=True, retry_after=90.0), "never"])
    with pytest.raises(LlmError, match="asks to wait 90 s") as caught:
        Retry(inner, 9, 60.0, sleep=lambda seconds: pytest.fail("it slept")).complete(ASKED)
    assert not caught.value.again
    assert len(inner.requests) == 1


def test_what_is_no_failure_of_the_transport_passes_through() -> None:
    inner = Scripted([KeyError("a bug"), "never"])
    with pytest.raises(KeyError):
        Retry(inner, 9, 60.0).complete(ASKED)
    assert len(inner.requests) == 1
