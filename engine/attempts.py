"""One look at an untrusted program: does it load, does it draw, and what is seen meanwhile."""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import TYPE_CHECKING

from engine.errors import TrialError
from engine.requests import Request
from engine.worker.evidence import Evidence

if TYPE_CHECKING:
    from engine.arms import Arms


@dataclass(frozen=True)
class Attempt:
    """What came of loading a program and drawing one image; ``stage`` is None when all went well.

    ``traceback`` are at most the last 60 lines of the program's own, empty where it raised nothing.
    """

    ok: bool
    stage: str | None
    reason: str | None
    traceback: str
    evidence: Evidence | None
    seconds: float


def attempt(arms: Arms, program: str) -> Attempt:
    """Load the program where untrusted programs run and draw one image.

    Its failures are told in the answer. Raises UsageError where the sandbox cannot start.
    """
    started = time.monotonic()
    evidence: Evidence | None = None
    failed: TrialError | None = None
    try:
        evidence = _look(arms, program)
    except TrialError as error:
        failed = error
    return Attempt(
        ok=failed is None,
        stage=failed.stage if failed else None,
        reason=failed.reason if failed else None,
        traceback=failed.traceback if failed else "",
        evidence=evidence,
        seconds=time.monotonic() - started,
    )


def _look(arms: Arms, program: str) -> Evidence:
    require_python(program)
    worker = arms.load({}, program, untrusted=True)
    try:
        with arms.accounts.on("generate"):
            return worker.evidence(look_request(arms, "attempt"))
    finally:
        worker.close()


def look_request(arms: Arms, purpose: str, number: int = 0) -> Request:
    """A request of the workload's first shape that no program can know."""
    request, _ = arms.asked.trials(arms.secret.number(purpose, number))[0]
    seed = int(arms.secret.rng(purpose, number).integers(2**31))
    return Request(request.cases, seed, request.shape)


def require_python(program: str) -> None:
    """Raises TrialError of the stage "compile" for a text that is no Python."""
    try:
        compile(program, "accelerated.py", "exec", dont_inherit=True)
    except (SyntaxError, ValueError, RecursionError, MemoryError, OverflowError) as error:
        line = getattr(error, "lineno", None)
        where = f", line {line}" if line else ""
        text = getattr(error, "text", None) or ""
        what = getattr(error, "msg", None) or str(error)
        raise TrialError(
            "compile", f"{type(error).__name__}: {what}{where}", text.rstrip()[:300]
        ) from None
