"""Errors that a person can act on."""

from __future__ import annotations

import re


class UsageError(Exception):
    """A wrong value: the message is one line that says what is wrong, what is allowed and what
    to type. The command line prints it without a traceback and exits with 2."""


class TrialError(Exception):
    """A candidate failed; it costs only itself.

    ``stage`` is where: generate, load, run, active, quality or timeout.
    """

    def __init__(self, stage: str, reason: str) -> None:
        super().__init__(reason)
        self.stage = stage
        self.reason = reason


class GoalMissed(Exception):
    """The search ended in order, but nothing that it found keeps the goal; exit status 1."""


def line(error: Exception) -> str:
    """An exception as one line for a person."""
    text = " ".join(str(error).split()) or type(error).__name__
    if isinstance(error, UsageError | GoalMissed):
        return text
    if isinstance(error, TrialError):
        return f"failed at {error.stage}: {text}"
    absent = re.match(r"Could not override '(?!hydra)([\w.]+)'", text)
    if absent:
        return f"{absent[1]} does not exist with the options that were chosen; --cfg job shows all"
    if type(error).__module__.startswith(("hydra.", "omegaconf.")):
        return text if len(text) <= 300 else text[:300] + "..."
    return f"{type(error).__name__}: {text} (debug=true shows where)"
