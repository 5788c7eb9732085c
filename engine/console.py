"""Progress for people: lines that stay, and on a terminal one that says what runs now."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from functools import cache
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from rich.console import Console


@cache
def console() -> Console:
    from rich.console import Console

    return Console(highlight=False, soft_wrap=True)


def say(text: str) -> None:
    """A line that stays; plain when the output is no terminal."""
    console().print(text, markup=False)


def show(renderable: Any) -> None:
    console().print(renderable)


@contextlib.contextmanager
def working(text: str) -> Iterator[None]:
    """On a terminal a moving line while the block runs; elsewhere nothing."""
    if not console().is_terminal:
        yield
        return
    from rich.text import Text

    with console().status(Text(text)):
        yield
