"""Replies that meet their schema, or say that they do not."""

from __future__ import annotations

import dataclasses
from typing import Any

from engine.agent.answers import json_of
from engine.agent.llm import FormatFailure, Message, Model, Reply, Request, Usage
from engine.agent.schemas import check_schema, faults

SHOWN_FAULTS = 5


class Structured:
    """Checks a reply against the request's schema, and asks once more with what is wrong. A reply
    that was cut off at ``max_tokens``, or is empty, is asked for once more too, schema or none."""

    def __init__(self, inner: Model) -> None:
        self._inner = inner

    @property
    def name(self) -> str:
        return self._inner.name

    def complete(self, request: Request) -> Reply:
        """The reply with ``parsed`` set where there is a schema; tokens, cost and seconds are those
        of both turns. Raises FormatFailure after the turn of repair, ValueError for a schema that
        ``engine.agent.schemas`` cannot check."""
        if request.schema is not None:
            check_schema(request.schema)
        first = self._inner.complete(request)
        parsed, fault = _read(first, request)
        if fault is None:
            return dataclasses.replace(first, parsed=parsed)
        second = self._inner.complete(_repair(request, first, fault))
        parsed, fault = _read(second, request)
        if fault is not None:
            hint = "; llm.max_tokens may be too low" if second.finish == "length" else ""
            raise FormatFailure(f"{self.name}: {fault}, also when asked again{hint}", second.text)
        return dataclasses.replace(_both(first, second), parsed=parsed)


def _read(reply: Reply, request: Request) -> tuple[Any, str | None]:
    """The value of a reply, and what is wrong with it."""
    if reply.finish == "length":
        return None, f"the reply was cut off after {reply.usage.output_tokens} tokens"
    if not reply.text.strip():
        return None, "the reply is empty"
    if request.schema is None:
        return None, None
    try:
        parsed = json_of(reply.text)
    except FormatFailure as failure:
        return None, failure.reason
    found = faults(parsed, request.schema)
    more = f"; and {len(found) - SHOWN_FAULTS} more" if len(found) > SHOWN_FAULTS else ""
    return parsed, "; ".join(found[:SHOWN_FAULTS]) + more if found else None


def _repair(request: Request, reply: Reply, fault: str) -> Request:
    if reply.finish == "length" or not reply.text.strip():
        # What was cut off would only take room, and some servers refuse an empty turn.
        note = f"Before, {fault}. Answer again: whole, without any explanation, and shorter."
        last = request.messages[-1]
        joined = dataclasses.replace(last, text=f"{last.text}\n\n{note}")
        messages = (*request.messages[:-1], joined)
    else:
        note = f"This is not what was asked for: {fault}.\n\nAnswer again with the whole JSON only."
        answered = (Message("assistant", reply.text), Message("user", note))
        messages = (*request.messages, *answered)
    name = f"{request.name} (repair)" if request.name else "repair"
    return dataclasses.replace(request, messages=messages, name=name)


def _both(first: Reply, second: Reply) -> Reply:
    usage = Usage(
        first.usage.input_tokens + second.usage.input_tokens,
        first.usage.output_tokens + second.usage.output_tokens,
    )
    unknown = first.cost is None or second.cost is None
    return dataclasses.replace(
        second,
        usage=usage,
        cost=None if unknown else (first.cost or 0.0) + (second.cost or 0.0),
        seconds=first.seconds + second.seconds,
    )
