"""The weak programmer behind the chat-completions protocol, for whole studies from a shell.

    python -m tests.agent.weak_server [SEED]

prints its address and answers until it is interrupted. It plays a model for sd-mini:

    python -m engine +sweep=ga objective=flops llm=vllm llm.base_url=ADDRESS llm.model=weak
"""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from engine.agent.llm import Message, Request, Role
from tests.agent.server import Handler, Script, Step, answer, serving
from tests.agent.weak import Rates, WeakProgrammer
from tests.test_program import SUBJECT

OPENINGS: dict[str, Role] = {
    "You plan": "planner",
    "You write": "coder",
    "You repair": "debugger",
}
"""How the system's message of each role begins; what begins otherwise is a reader's."""
MOST = 10_000
"""Requests that the server answers."""


def role_of(messages: Sequence[Message]) -> Role:
    """The role that a conversation asks of the model."""
    first = messages[0].text.lstrip()
    return next((role for words, role in OPENINGS.items() if first.startswith(words)), "reader")


def request_of(body: dict[str, Any]) -> Request:
    """What a chat completion's body asks."""
    messages = tuple(Message(m["role"], _text(m["content"])) for m in body["messages"])
    return Request(role_of(messages), messages)


def _text(content: Any) -> str:
    return content if isinstance(content, str) else "".join(part["text"] for part in content)


def answering(model: WeakProgrammer) -> Step:
    """The programmer's answer to the request that has just arrived."""

    def step(handler: Handler) -> None:
        # Requests come one after another: a study asks nothing before it is answered.
        reply = model.complete(request_of(handler.script.seen[-1].body))
        tokens = (reply.usage.input_tokens, reply.usage.output_tokens)
        answer(reply.text, tokens=tokens, model="weak")(handler)

    return step


@contextmanager
def programming(seed: int = 0, rates: Rates | None = None) -> Iterator[tuple[Script, Any]]:
    """The server while the block runs, and the programmer behind it."""
    model = WeakProgrammer(SUBJECT, seed, rates)
    with serving([answering(model)] * MOST) as script:
        yield script, model


def main(arguments: Sequence[str]) -> None:
    with programming(int(arguments[0]) if arguments else 0) as (script, model):
        print(f"llm.base_url={script.url}", flush=True)
        try:
            while True:
                time.sleep(0.2)
        except KeyboardInterrupt:
            print(json.dumps([injected.fault for injected in model.diary.injected]))


if __name__ == "__main__":
    main(sys.argv[1:])
