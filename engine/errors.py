"""Errors that a person can act on."""

from __future__ import annotations


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
