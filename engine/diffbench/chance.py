"""Choices that look random and never change: each hangs on a text alone, by its SHA-256.

No generator of a library stands behind them, so no version of one can change the tasks.
"""

from __future__ import annotations

import hashlib
from collections.abc import Hashable, Mapping, Sequence
from typing import TypeVar

T = TypeVar("T")
K = TypeVar("K", bound=Hashable)


def number(*words: object) -> int:
    """A number from 0 to 2**64 - 1 that belongs to these words."""
    text = "/".join(map(str, words))
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "big")


def pick(options: Sequence[T], *words: object) -> T:
    """One of the options; those of a list that repeats some are likelier."""
    return options[number(*words) % len(options)]


def once_in(share: int, *words: object) -> bool:
    """True for about one in ``share`` of all words."""
    return number(*words) % share == 0


def shuffled(items: Sequence[T], *words: object) -> list[T]:
    """The items in an order that belongs to the words."""
    order = sorted(range(len(items)), key=lambda index: number(*words, index))
    return [items[index] for index in order]


def dealt(counts: Mapping[K, int], *words: object) -> list[K]:
    """Each key as often as its count says, in an order that belongs to the words."""
    return shuffled([key for key, count in counts.items() for _ in range(count)], *words)
