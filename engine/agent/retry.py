"""The one layer that sends a request again, under one deadline for all its attempts."""

from __future__ import annotations

import dataclasses
import random
import time
from collections.abc import Callable

from engine.agent.llm import LlmError, Model, Reply, Request

LONGEST_PAUSE_S = 30.0


class Retry:
    """Sends a request again where the connection failed or the provider answered 429 or 5xx, and
    never after an answer. What a backend may still take it finds as ``timeout`` (seconds) among the
    settings; it must not outlive it."""

    def __init__(
        self,
        inner: Model,
        attempts: int,
        timeout_s: float | None,
        *,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        self._inner = inner
        self._attempts = attempts
        self._timeout = timeout_s
        self._sleep = sleep

    @property
    def name(self) -> str:
        return self._inner.name

    def complete(self, request: Request) -> Reply:
        """Raises LlmError, which says how many attempts and how much of the time were used."""
        start = time.monotonic()
        for attempt in range(1, self._attempts + 1):
            limited = request
            if self._timeout is not None:
                left = max(self._timeout - (time.monotonic() - start), 0.0)
                limited = dataclasses.replace(
                    request, settings={**request.settings, "timeout": left}
                )
            try:
                reply = self._inner.complete(limited)
            except LlmError as error:
                used = time.monotonic() - start
                asked = error.retry_after
                wait = _pause(attempt) if asked is None else max(asked, 0.0)
                late = self._timeout is not None and used + wait >= self._timeout
                if not error.again or attempt == self._attempts or late:
                    raise self._failure(error, attempt, used, wait if late else None) from None
                self._sleep(wait)
            else:
                return dataclasses.replace(reply, seconds=time.monotonic() - start)
        raise AssertionError("a request has at least one attempt")

    def _failure(self, error: LlmError, attempt: int, used: float, wait: float | None) -> LlmError:
        limit = "" if self._timeout is None else f" of llm.timeout_s={self._timeout:g}"
        reason = f"{self.name}: {error.reason} (attempt {attempt} of {self._attempts}"
        reason += f", after {used:.1f} s{limit}"
        if wait is not None and error.again and error.retry_after is not None:
            reason += f"; the provider asks to wait {wait:g} s, which is longer than what is left"
        return LlmError(reason + ")")


def _pause(attempt: int) -> float:
    """Seconds before the next attempt: doubled each time, and scattered, so that several clients
    do not come back together."""
    return min(2.0 ** (attempt - 1), LONGEST_PAUSE_S) * random.uniform(0.5, 1.0)
