"""What it means to ask a language model: a request, a reply, and the errors between them.

Everything that talks to a model is a ``Model``: the backends (an API, a folder in which a person
answers, a recording) and what is wrapped around them (retry, budget, record, schema). Pure: no
network, no heavy imports. ``engine.agent.doors.door`` opens the one that the configuration names.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal, Protocol

from engine.errors import LanguageModelError
from engine.strategy import Value

Role = Literal["planner", "coder", "debugger", "reader"]
"""Who asks. It decides nothing about the call; calls, tokens and money are told by it."""
Speaker = Literal["system", "user", "assistant"]
Finish = Literal["stop", "length", "other"]


@dataclass(frozen=True)
class Message:
    """One turn of a conversation. Only the first of a request may be the system's."""

    role: Speaker
    text: str


@dataclass(frozen=True)
class Request:
    """What a model is asked.

    ``schema`` is a JSON schema (the keywords of ``engine.agent.schemas``) that the reply must
    meet, or None for free text. ``settings`` may hold ``temperature``, ``max_tokens`` and ``seed``;
    what is missing takes the configuration's. ``name`` says for a person what this call is for,
    such as "plan 3 of generation 2"; it changes neither the call nor its key in the recording.
    """

    role: Role
    messages: tuple[Message, ...]
    schema: Mapping[str, Any] | None = None
    settings: Mapping[str, Value] = field(default_factory=dict)
    name: str = ""


@dataclass(frozen=True)
class Usage:
    """Tokens of one call; a person's reply through the mailbox counts none."""

    input_tokens: int = 0
    output_tokens: int = 0


@dataclass(frozen=True)
class Reply:
    """What came back.

    ``parsed`` is the value that met the request's schema, None where there was none. ``model`` is
    the name under which the provider answered. ``cost`` is in US dollars, None where the price is
    unknown. ``seconds`` is the time from the request to the reply, waiting between attempts
    included. ``finish`` is "length" where the reply was cut off at ``max_tokens``. ``id`` is the
    provider's name for the reply.
    """

    text: str
    parsed: Any | None
    model: str
    usage: Usage
    cost: float | None
    seconds: float
    finish: Finish
    id: str | None


class Model(Protocol):
    """A language model, or what is wrapped around one."""

    @property
    def name(self) -> str:
        """Provider and model, such as ``openai:gpt-5``; part of a call's key in the recording."""

    def complete(self, request: Request) -> Reply:
        """Answer; raises LlmError, FormatFailure, BudgetSpent or ReplayMiss."""


class LlmError(LanguageModelError):
    """No reply: the connection, the provider or the deadline failed, after all attempts.

    ``again`` says whether the same request may succeed when it is sent again at once or after
    ``retry_after`` seconds; only the retry layer looks at it.
    """

    def __init__(
        self, reason: str, *, again: bool = False, retry_after: float | None = None
    ) -> None:
        super().__init__(reason)
        self.reason = reason
        self.again = again
        self.retry_after = retry_after


class FormatFailure(LanguageModelError):
    """A reply that does not meet the schema, after one turn of repair; ``text`` is the reply."""

    def __init__(self, reason: str, text: str) -> None:
        super().__init__(reason)
        self.reason = reason
        self.text = text


class BudgetSpent(LanguageModelError):
    """The next call would exceed ``llm.budget``; raised before it is sent, so it costs nothing.

    ``what`` is calls, tokens, dollars or seconds.
    """

    def __init__(self, what: str, reason: str) -> None:
        super().__init__(reason)
        self.what = what
        self.reason = reason


class ReplayMiss(LanguageModelError):
    """A request that the recording does not hold.

    ``nearest`` is the key of the recorded call that is most like it ("" in an empty recording);
    the message says what differs from it.
    """

    def __init__(self, nearest: str, reason: str) -> None:
        super().__init__(reason)
        self.nearest = nearest
        self.reason = reason
