"""What a study may spend on its language model, checked before each call."""

from __future__ import annotations

import dataclasses
import threading
import time
from dataclasses import dataclass

from engine.agent.llm import BudgetSpent, LlmError, Model, Reply, Request
from engine.schema import LlmBudget


@dataclass(frozen=True)
class Spent:
    """What calls have cost so far. ``dollars`` leaves out the calls of unknown price."""

    calls: int = 0
    tokens: int = 0
    dollars: float = 0.0
    seconds: float = 0.0

    def plus(self, reply: Reply) -> Spent:
        """With one more answered call."""
        tokens = reply.usage.input_tokens + reply.usage.output_tokens
        return Spent(
            self.calls + 1,
            self.tokens + tokens,
            self.dollars + (reply.cost or 0.0),
            self.seconds + reply.seconds,
        )

    def plus_failure(self, seconds: float) -> Spent:
        """With one more call that nobody answered; what it cost is unknown."""
        return dataclasses.replace(self, calls=self.calls + 1, seconds=self.seconds + seconds)


class Budget:
    """Lets calls through until a limit is reached. The call that reaches it is the last, so tokens
    and dollars may exceed their limit by what that one cost."""

    def __init__(self, inner: Model, limits: LlmBudget, spent: Spent | None = None) -> None:
        self._inner = inner
        self._limits = limits
        self._spent = spent or Spent()
        self._under_way = 0
        self._lock = threading.Lock()

    @property
    def name(self) -> str:
        return self._inner.name

    @property
    def spent(self) -> Spent:
        return self._spent

    def complete(self, request: Request) -> Reply:
        """Raises BudgetSpent before the call, or what the call raises."""
        with self._lock:
            self._check()
            self._under_way += 1
        start = time.monotonic()
        reply: Reply | None = None
        sent = True
        try:
            reply = self._inner.complete(request)
        except LlmError:
            raise
        except Exception:
            # Nothing was sent: a miss of a recording, or a wrong configuration.
            sent = False
            raise
        finally:
            with self._lock:
                self._under_way -= 1
                if reply is not None:
                    self._spent = self._spent.plus(reply)
                elif sent:
                    self._spent = self._spent.plus_failure(time.monotonic() - start)
        return reply

    def _check(self) -> None:
        spent = dataclasses.replace(self._spent, calls=self._spent.calls + self._under_way)
        for name in ("calls", "tokens", "dollars", "seconds"):
            limit, used = getattr(self._limits, name), getattr(spent, name)
            if limit is not None and used >= limit:
                raise BudgetSpent(
                    name,
                    f"llm.budget.{name}={limit:g} is used up ({used:g}); a higher limit goes on "
                    "from here",
                )
