"""Errors that a person can act on."""

from __future__ import annotations

import re

CONTROL = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f\u200b-\u200f\u2028-\u202e\u2066-\u2069\ufeff]")
"""Characters that a terminal or a reader obeys instead of showing them."""


def printable(text: str, limit: int) -> str:
    """What a program said, without control characters and cut to ``limit`` characters."""
    plain = CONTROL.sub(" ", text)
    return plain if len(plain) <= limit else plain[: limit - 3] + "..."


class UsageError(Exception):
    """A wrong value: the message is one line that says what is wrong, what is allowed and what
    to type. The command line prints it without a traceback and exits with 2."""


class TrialError(Exception):
    """A candidate failed; it costs only itself.

    ``stage`` is where: generate, compile, load, run, active, honesty, quality or timeout.
    ``traceback`` are the last lines of the program's own traceback, where it raised.
    """

    def __init__(self, stage: str, reason: str, traceback: str = "") -> None:
        super().__init__(reason)
        self.stage = stage
        self.reason = reason
        self.traceback = traceback


class GoalMissed(Exception):
    """The search ended in order, but nothing that it found keeps the goal; exit status 1."""


class LanguageModelError(Exception):
    """A language model could not be asked, or did not answer as it was asked to; the message is
    one line for a person. Its kinds are in ``engine.agent.llm``."""


def line(error: Exception) -> str:
    """An exception as one line for a person."""
    text = " ".join(str(error).split()) or type(error).__name__
    if isinstance(error, UsageError | GoalMissed | LanguageModelError):
        return text
    if isinstance(error, TrialError):
        return f"failed at {error.stage}: {text}"
    absent = re.match(r"Could not override '(?!hydra)([\w.]+)'", text)
    if absent:
        return f"{absent[1]} does not exist with the options that were chosen; --cfg job shows all"
    if type(error).__module__.startswith(("hydra.", "omegaconf.")):
        return text if len(text) <= 300 else text[:300] + "..."
    return f"{type(error).__name__}: {text} (debug=true shows where)"
