"""What a study's wall time went to."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterator
from dataclasses import dataclass, field


@dataclass
class Accounts:
    """Seconds spent on what a study is for; the rest of its wall time is overhead."""

    spent: dict[str, float] = field(
        default_factory=lambda: {"generate": 0.0, "load": 0.0, "score": 0.0}
    )

    @contextlib.contextmanager
    def on(self, name: str) -> Iterator[None]:
        started = time.monotonic()
        try:
            yield
        finally:
            self.spent[name] += time.monotonic() - started

    @property
    def total(self) -> float:
        return sum(self.spent.values())
