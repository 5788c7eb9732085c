"""Providers with a protocol of their own; skipped where their extra is not installed."""

from __future__ import annotations

import importlib.util
import json
from typing import Any

import pytest

from engine.agent.backend import Backend
from engine.agent.llm import LlmError, Message, Request, Usage
from engine.agent.retry import Retry
from engine.schema import LlmConfig
from tests.agent.server import Step, drip, raw, serving, status

KEY = "sk-fake-0123456789abcdef"
SCHEMA = {"type": "object", "properties": {"a": {"type": "integer"}}, "required": ["a"]}
ASKED = Request("planner", (Message("system", "You plan."), Message("user", "Plan.")), SCHEMA)
CLAUDE = {
    "id": "reply-1",
    "type": "message",
    "role": "assistant",
    "model": "claude-sonnet-5-5",
    "content": [{"type": "text", "text": '{"a": 1}'}],
    "stop_reason": "end_turn",
    "stop_sequence": None,
    "usage": {"input_tokens": 7000, "output_tokens": 300},
}
GEMINI = {
    "candidates": [
        {
            "content": {"role": "model", "parts": [{"text": '{"a": 1}'}]},
            "finishReason": "STOP",
            "index": 0,
        }
    ],
    "usageMetadata": {
        "promptTokenCount": 7000,
        "candidatesTokenCount": 300,
        "totalTokenCount": 7300,
    },
    "modelVersion": "gemini-3.8-flash",
    "responseId": "reply-1",
}


def _absent(package: str) -> bool:
    try:
        return importlib.util.find_spec(package) is None
    except ModuleNotFoundError:
        return True


DOORS = [
    pytest.param(
        name,
        model,
        body,
        marks=pytest.mark.skipif(
            _absent(package), reason=f"{package} is not installed (extra llm-{name})"
        ),
    )
    for name, package, model, body in (
        ("anthropic", "anthropic", "claude-sonnet-5-5", CLAUDE),
        ("google", "google.genai", "gemini-3.8-flash", GEMINI),
    )
]


def _asked(name: str, model: str, steps: list[Step], attempts: int = 3, **rest: Any) -> Any:
    with serving(steps) as script:
        address = script.url.removesuffix("/v1")
        settings = LlmConfig(
            name=name,
            model=model,
            base_url=address,
            api_key_env="SOME_KEY",
            **({"timeout_s": 20.0} | rest),
        )
        backend = Retry(Backend(settings), attempts, settings.timeout_s, sleep=lambda seconds: None)
        try:
            return backend.complete(ASKED), script.seen
        except LlmError as error:
            return error, script.seen


@pytest.fixture(autouse=True)
def key(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SOME_KEY", KEY)


@pytest.mark.parametrize(("name", "model", "body"), DOORS)
def test_a_reply_comes_back_with_its_price(name: str, model: str, body: dict[str, Any]) -> None:
    steps = [status(529 if name == "anthropic" else 503), raw(json.dumps(body).encode())]
    reply, seen = _asked(name, model, steps, max_tokens=32_000)
    assert (reply.text, reply.finish, reply.id) == ('{"a": 1}', "stop", "reply-1")
    assert (reply.usage, reply.model) == (Usage(7000, 300), model)
    assert 0.0005 < reply.cost < 1
    assert len(seen) == 2
    assert any(KEY in value for value in seen[1].headers.values())
    sent = json.dumps(seen[1].body)
    assert "You plan." in sent
    assert "32000" in sent
    assert '"integer"' in sent.lower()


@pytest.mark.parametrize(("name", "model", "body"), DOORS)
def test_faults_are_sent_once_where_no_repeat_helps(
    name: str, model: str, body: dict[str, Any]
) -> None:
    error, seen = _asked(name, model, [status(401, {"error": {"message": f"not valid: {KEY}"}})])
    assert "answered 401" in str(error)
    assert KEY not in str(error)
    assert len(seen) == 1
    error, seen = _asked(name, model, [status(500)] * 3)
    assert "attempt 3 of 3" in str(error)
    assert len(seen) == 3
    error, seen = _asked(name, model, [raw(b"<html>")])
    assert "no chat completion" in str(error)
    assert len(seen) == 1
    error, seen = _asked(name, model, [drip], timeout_s=1.0)
    assert "no reply before the deadline" in str(error)
    assert len(seen) == 1
