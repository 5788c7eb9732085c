"""Looks at an untrusted program: does it load, does it draw, what is seen meanwhile, and does it
answer the same when it is asked again."""

from __future__ import annotations

import time
from collections.abc import Collection, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from engine import pixels
from engine.errors import TrialError
from engine.honesty import Again
from engine.requests import Request
from engine.worker.evidence import Evidence

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from engine.arms import Arms
    from engine.worker.conversation import Worker


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


def look_request(
    arms: Arms, purpose: str, number: int = 0, besides: Collection[str] = ()
) -> Request:
    """A request of the workload's first shape that no program can know, with none of the prompts
    ``besides`` as far as there are others."""
    request, _ = arms.asked.trials(arms.secret.number(purpose, number), besides)[0]
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


@dataclass(frozen=True)
class Before:
    """A request that was answered: its image, a seed to ask it with too, and the seconds that it
    took where they were measured."""

    request: Request
    image: NDArray[np.uint8]
    seed: int
    seconds: float | None = None


def asked_again(worker: Worker, before: Sequence[Before]) -> Again:
    """Requests once more, and once with another seed, which comes first: what is kept by prompt is
    answered at once. Means over all of them."""
    rows = []
    for one in before:
        other = worker.generate(replace(one.request, seed=one.seed))
        same = worker.generate(one.request)
        apart = [pixels.distance(answer.images[0], one.image) for answer in (same, other)]
        first_s = same.seconds if one.seconds is None else one.seconds
        rows.append((*apart, first_s, other.seconds))
    repeated, reseeded, first_s, other_s = (sum(r) / len(r) for r in zip(*rows, strict=True))
    return Again(repeated, reseeded, (first_s, other_s))
