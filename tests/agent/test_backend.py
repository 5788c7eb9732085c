"""Requests over HTTP: what goes over the wire, what faults do, and that no key is told."""

from __future__ import annotations

import dataclasses
import importlib.util
import json
import socket
import threading
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest

from engine.agent.backend import THREAD, Backend
from engine.agent.doors import door
from engine.agent.llm import LlmError, Message, Request, Usage
from engine.agent.retry import Retry
from engine.errors import UsageError
from engine.schema import LlmConfig
from tests.agent.server import (
    Script,
    Step,
    answer,
    cut,
    drip,
    hang_up,
    raw,
    serving,
    stall,
    stall_in_body,
    status,
)

KEY = "sk-fake-0123456789abcdef"
ASKED = Request("planner", (Message("system", "You plan."), Message("user", "Plan.")))
SCHEMA = {
    "type": "object",
    "properties": {"title": {"type": "string"}},
    "required": ["title"],
    "additionalProperties": False,
}
LATEST_S = 6.0
"""How long after its deadline a call may end on a machine that is busy with other things."""


def config(script: Script, name: str = "vllm", **rest: Any) -> LlmConfig:
    given: dict[str, Any] = {"model": "tiny", "timeout_s": 20.0, "base_url": script.url}
    return LlmConfig(name=name, **(given | rest))


def at_once(script: Script, attempts: int = 4, **rest: Any) -> Retry:
    """The backend with its retries and without their pauses."""
    settings = config(script, attempts=attempts, **rest)
    return Retry(Backend(settings), attempts, settings.timeout_s, sleep=lambda seconds: None)


def test_messages_and_sampling_go_over_the_wire_and_the_reply_comes_back() -> None:
    with serving([answer("A plan.", tokens=(7, 3))]) as script:
        backend = Backend(config(script, temperature=0.25, max_tokens=50))
        turns = (*ASKED.messages, Message("assistant", "Which?"), Message("user", "Any."))
        reply = backend.complete(Request("planner", turns, settings={"temperature": 0.75}))
    assert (reply.text, reply.finish, reply.usage) == ("A plan.", "stop", Usage(7, 3))
    assert (reply.model, reply.id, reply.cost, reply.parsed) == ("tiny", "chatcmpl-1", None, None)
    seen = script.seen[0]
    assert seen.path == "/v1/chat/completions"
    roles = [message["role"] for message in seen.body["messages"]]
    assert roles == ["system", "user", "assistant", "user"]
    assert seen.last == "Any."
    assert (seen.body["model"], seen.body["temperature"]) == ("tiny", 0.75)
    assert 50 in (seen.body.get("max_tokens"), seen.body.get("max_completion_tokens"))


@pytest.mark.parametrize("name", ["openai", "openrouter", "vllm", "ollama"])
def test_every_door_with_chat_completions_takes_an_address(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SOME_KEY", KEY)
    with serving([answer("Yes.")]) as script:
        backend = Backend(config(script, name, api_key_env="SOME_KEY", model="qwen/tiny"))
        assert backend.complete(ASKED).text == "Yes."
        assert backend.name == f"{name}:qwen/tiny"
    assert script.seen[0].headers["authorization"] == f"Bearer {KEY}"


def test_schema_goes_into_the_json_mode_or_into_words() -> None:
    with serving([answer("{}"), answer("{}"), answer("[]")]) as script:
        asked = dataclasses.replace(ASKED, schema=SCHEMA)
        Backend(config(script)).complete(asked)
        Backend(config(script, structured="prompt")).complete(asked)
        listed = dataclasses.replace(ASKED, schema={"type": "array"})
        Backend(config(script)).complete(listed)
    native, words, array = script.seen
    sent = native.body["response_format"]["json_schema"]["schema"]
    assert sent["properties"]["title"]["type"] == "string"
    assert "response_format" not in words.body
    assert words.last.startswith("Plan.")
    assert json.dumps(SCHEMA) in words.last
    # JSON modes take an object at the top only.
    assert "response_format" not in array.body
    assert '{"type": "array"}' in array.last


def test_429_is_sent_again_after_the_seconds_that_the_provider_names() -> None:
    with serving([status(429, Retry_After="1"), answer("Yes.")]) as script:
        settings = config(script)
        reply = Retry(Backend(settings), 4, settings.timeout_s).complete(ASKED)
    assert reply.text == "Yes."
    assert len(script.seen) == 2
    assert script.seen[1].at - script.seen[0].at >= 1.0
    assert reply.seconds >= 1.0


def test_a_wait_longer_than_the_deadline_is_not_begun() -> None:
    start = time.monotonic()
    with serving([status(429, Retry_After="500")]) as script, pytest.raises(LlmError) as caught:
        at_once(script).complete(ASKED)
    assert time.monotonic() - start < LATEST_S
    assert "asks to wait 500 s, which is longer than what is left" in str(caught.value)
    assert len(script.seen) == 1


@pytest.mark.parametrize("fault", [status(500), status(503), status(429), cut, hang_up])
def test_what_may_pass_is_sent_again_and_answered_once(fault: Step) -> None:
    with serving([fault, fault, answer("Yes.")]) as script:
        assert at_once(script).complete(ASKED).text == "Yes."
    assert len(script.seen) == 3


def test_attempts_have_an_end_and_the_error_counts_them() -> None:
    with serving([]) as script, pytest.raises(LlmError) as caught:
        at_once(script, attempts=3).complete(ASKED)
    assert len(script.seen) == 3
    assert "the provider answered 500: the script has ended (attempt 3 of 3" in str(caught.value)


QUOTA = {"error": {"message": "You exceeded your quota", "code": "insufficient_quota"}}


@pytest.mark.parametrize(
    ("fault", "words"),
    [
        (status(400), "answered 400"),
        (status(401), "answered 401"),
        (status(404), "answered 404"),
        (status(429, QUOTA), "answered 429: You exceeded your quota"),
        (raw(b'{"id": "chatcmpl-1", "choi'), "no chat completion"),
        (raw(b"<html>Sign in</html>"), "no chat completion"),
        (raw(b'{"result": "something else"}'), "no chat completion"),
    ],
)
def test_what_would_not_help_or_was_answered_is_not_sent_again(fault: Step, words: str) -> None:
    with serving([fault, answer("Paid twice.")]) as script, pytest.raises(LlmError, match=words):
        at_once(script).complete(ASKED)
    assert len(script.seen) == 1


def test_a_slow_first_byte_within_the_deadline_is_waited_for() -> None:
    with serving([answer("Late.", after=1.5)]) as script:
        reply = at_once(script).complete(ASKED)
    assert reply.text == "Late."
    assert reply.seconds >= 1.5
    assert len(script.seen) == 1


@pytest.mark.parametrize("fault", [answer("Too late.", after=60), stall, stall_in_body, drip])
def test_no_call_outlives_its_deadline(fault: Step) -> None:
    start = time.monotonic()
    with serving([fault, answer("Paid twice.")]) as script:
        with pytest.raises(LlmError, match=r"no reply before the deadline .*llm\.timeout_s=1\.5"):
            at_once(script, timeout_s=1.5).complete(ASKED)
        assert 1.4 <= time.monotonic() - start < 1.5 + LATEST_S
        assert len(script.seen) == 1
        # Nor does its connection, which a provider might go on to fill.
        while any(thread.name == THREAD for thread in threading.enumerate()):
            assert time.monotonic() - start < 1.5 + LATEST_S
            time.sleep(0.05)


def test_one_deadline_covers_all_attempts() -> None:
    start = time.monotonic()
    with serving([status(500), status(500), stall]) as script:
        with pytest.raises(LlmError, match="attempt 3 of 9"):
            at_once(script, attempts=9, timeout_s=6.0).complete(ASKED)
        assert time.monotonic() - start < 6.0 + LATEST_S


def test_a_refused_connection_is_tried_again_and_told() -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        address = f"http://127.0.0.1:{free.getsockname()[1]}/v1"
    script = Script([], url=address)
    said = r"vllm:tiny: the connection to http\S+ failed: .*is a server .*\(attempt 2 of 2"
    with pytest.raises(LlmError, match=said):
        at_once(script, attempts=2).complete(ASKED)


def test_a_cut_off_reply_says_so() -> None:
    with serving([answer("def main(", finish="length"), answer("", finish="content_filter")]) as s:
        backend = Backend(config(s))
        assert backend.complete(ASKED).finish == "length"
        assert backend.complete(ASKED).finish == "other"


def echoes(code: int) -> Step:
    return status(code, {"error": {"message": f"Incorrect API key provided: {KEY}. Header: {KEY}"}})


def test_no_key_is_told_in_errors_recordings_or_replies(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("SOME_KEY", KEY)
    steps: Sequence[Step] = [
        echoes(401),
        raw(f"not JSON but {KEY}".encode()),
        answer(f"You are {KEY}."),
        answer("Fine."),
    ]
    with serving(steps) as script:
        model = door(config(script, "openai", api_key_env="SOME_KEY"), tmp_path)
        for number in range(2):
            with pytest.raises(LlmError) as caught:
                model.complete(dataclasses.replace(ASKED, settings={"seed": number}))
            assert KEY not in str(caught.value)
            assert caught.value.__suppress_context__
        assert "You are [key]." in model.complete(ASKED).text
        told = Message("user", f"The log says {KEY}")
        model.complete(Request("debugger", (told,)))
    assert [seen.headers["authorization"] for seen in script.seen] == [f"Bearer {KEY}"] * 4
    files = [path for path in tmp_path.rglob("*") if path.is_file()]
    assert {path.name for path in files} == {"calls.jsonl", "prices.json"}
    assert all(KEY not in path.read_text() for path in files)
    output = capfd.readouterr()
    assert KEY not in output.out + output.err


def test_an_error_shows_where_no_key_stands_the_providers_own_words() -> None:
    refusal = status(400, {"error": {"message": "max_tokens is too large"}})
    with serving([refusal]) as script, pytest.raises(LlmError, match="400: max_tokens is too la"):
        at_once(script).complete(ASKED)


def test_a_missing_key_says_which_variable_and_what_to_type(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.delenv("OPENAI_API_KEY", raising=False)
    wanted = LlmConfig(name="openai", model="m", api_key_env="OPENAI_API_KEY", timeout_s=9)
    with pytest.raises(UsageError, match=r"OPENAI_API_KEY is not set; set it \(export"):
        Backend(wanted)


@pytest.mark.parametrize(
    ("name", "absent", "extra"),
    [
        ("openai", "pydantic_ai", "llm"),
        ("vllm", "openai", "llm"),
        ("anthropic", "anthropic", "llm-anthropic"),
        ("google", "google.genai", "llm-google"),
    ],
)
def test_missing_packages_say_the_line_that_installs_them(
    name: str, absent: str, extra: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    found: Callable[[str], Any] = importlib.util.find_spec
    monkeypatch.setattr(
        importlib.util, "find_spec", lambda package: None if package == absent else found(package)
    )
    with pytest.raises(UsageError) as caught:
        Backend(LlmConfig(name=name, model="m", timeout_s=9))
    assert f"pip install -e '.[{extra}]' -c constraints.txt" in str(caught.value)


def test_a_model_that_the_provider_cannot_have_is_refused_before_anything_is_sent() -> None:
    with pytest.raises(UsageError, match=r"llm\.model=tiny: .* must be prefixed"):
        Backend(LlmConfig(name="openrouter", model="tiny", timeout_s=9))


def test_tests_cannot_reach_another_machine() -> None:
    with pytest.raises(AssertionError, match=r"tried to reach 192\.0\.2\.1"):
        socket.create_connection(("192.0.2.1", 80), timeout=1)
    with pytest.raises(AssertionError, match=r"tried to reach example\.org"):
        socket.getaddrinfo("example.org", 443)
