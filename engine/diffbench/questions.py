"""What programs are asked for a score: captions and seeds, the same whenever a task is scored.

Those over which stage 3 takes the loss belong to a baseline, not to a task. Over 36 captions a loss
is only known to some 5 points to either side, so that the very program behind a label would fail
some of its own tasks by chance; asked the same in all six of them, and when its label is confirmed,
it keeps the loss that it had.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

from engine.measure.paired import Pairs
from engine.requests import Request

if TYPE_CHECKING:
    from engine.asked import Asked

KEY = "DiffBench"
"""Begins the words that seeds follow from. No worker can read this file; whoever runs the scorer
can."""
SEED = 0
"""Stands in for ``search.seed``, which must not choose the captions."""
LOSS = "loss"
"""The purpose of the captions that belong to a baseline."""
PROMPTS = 36
"""Captions of one look at the speed; the loss is that of the first look."""


def number(version: str, name: str, purpose: str, index: int = 0) -> int:
    """A number that belongs to a version of the tasks, a task or baseline and a purpose."""
    words = f"{KEY}/{version}/{name}/{purpose}/{index}"
    return int.from_bytes(hashlib.sha256(words.encode()).digest()[:8], "big") >> 1


def requests(asked: Asked, version: str, name: str, purpose: str, count: int) -> list[Request]:
    """``count`` held-out captions with a seed each."""
    salt = number(version, name, purpose) % 2**20
    cases = asked.seeded(SEED).cases(count, "acceptance", salt=salt)
    return [
        Request((replace(case, seed=None),), number(version, name, purpose, i) % 2**31)
        for i, case in enumerate(cases)
    ]


class Fixed(Pairs):
    """Requests that are fixed. A round that must be repeated is timed with seeds of its own and
    keeps its first pictures, so that other load on the machine changes no loss."""

    keeps_pictures = True

    def __init__(self, requests: Sequence[Request], version: str, name: str) -> None:
        self._requests = list(requests)
        self._again = 0
        self._words = version, name, "again"

    def draw(self, count: int) -> list[Request]:
        drawn, self._requests = self._requests[:count], self._requests[count:]
        return drawn

    def again(self, requests: Sequence[Request]) -> list[Request]:
        self._again += 1
        first = 100 * self._again
        return [
            replace(one, seed=number(*self._words, first + i) % 2**31)
            for i, one in enumerate(requests)
        ]
