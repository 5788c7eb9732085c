"""A language model that answers from a list, for tests."""

from __future__ import annotations

import json
from collections.abc import Iterable
from typing import Any

from engine.agent.llm import Finish, Reply, Request, Usage

Answer = str | Reply | Exception
"""A text, a whole reply, or an error to raise."""
USAGE = Usage(100, 10)


class Scripted:
    """Gives the answers one after another and keeps the requests; one too many is an error."""

    def __init__(self, answers: Iterable[Answer], name: str = "scripted") -> None:
        self._answers = list(answers)
        self._name = name
        self.requests: list[Request] = []

    @property
    def name(self) -> str:
        return self._name

    def complete(self, request: Request) -> Reply:
        self.requests.append(request)
        if len(self.requests) > len(self._answers):
            raise AssertionError(f"call {len(self.requests)} has no answer: {request.messages[-1]}")
        answer = self._answers[len(self.requests) - 1]
        if isinstance(answer, Exception):
            raise answer
        if isinstance(answer, Reply):
            return answer
        return reply(answer, parsed=_parsed(answer) if request.schema is not None else None)


def reply(
    text: str,
    parsed: Any = None,
    *,
    cost: float | None = 0.01,
    usage: Usage = USAGE,
    finish: Finish = "stop",
    seconds: float = 0.5,
) -> Reply:
    """A reply whose other figures do not matter to the test."""
    return Reply(text, parsed, "scripted", usage, cost, seconds, finish, None)


def _parsed(text: str) -> Any:
    try:
        return json.loads(text)
    except ValueError:
        return None
