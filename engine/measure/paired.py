"""Paired timing: two arms take turns on fresh requests, so that drift hits both.

A round is, in random order of the arms, A p1, B p1, B p2, A p2. The idle arm is stopped. A round
during which other programs used the processors is repeated on fresh pairs, as often as the budget
for it allows; what is left contaminated is counted and said.
"""

from __future__ import annotations

import contextlib
import os
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

import numpy as np

from engine.requests import Case, Request, Shape, turns

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from engine.worker.conversation import Answer

FOREIGN_SHARE = 0.10
"""Share of all processors' time used by other programs from which a round is contaminated."""
REPEATED_SHARE = 0.25
"""Rounds that may be repeated, as a share of the rounds asked for."""


class Arm(Protocol):
    """What is timed: a resident worker."""

    pid: int

    def generate(self, request: Request) -> Answer: ...
    def pause(self) -> None: ...
    def resume(self) -> None: ...


class Pairs:
    """Requests that no arm has seen: the cases in turn, each time with a fresh seed, in the shapes
    of the workload. A case with a seed of its own gets that one the first time."""

    keeps_pictures = False
    """Whether a round that is repeated keeps the requests and pictures of its first time, and takes
    only the seconds of the last."""

    def __init__(
        self, cases: Sequence[Case], rng: np.random.Generator, shapes: Sequence[Shape] = ()
    ) -> None:
        self._cases = list(cases)
        self._rng = rng
        self._shapes = list(shapes)
        self._next = 0
        self._drawn = 0
        self._used: set[Case] = set()

    def draw(self, count: int) -> list[Request]:
        shapes: list[Shape | None] = [None] * count
        if self._shapes:
            shapes = [*turns(self._shapes, count, self._drawn)]
        self._drawn += count
        return [self._request(shape) for shape in shapes]

    def _request(self, shape: Shape | None) -> Request:
        size = shape.batch if shape else 1
        picked = [self._cases[(self._next + i) % len(self._cases)] for i in range(size)]
        self._next += size
        seed = int(self._rng.integers(2**31))
        first = picked[0]
        if size == 1 and first.seed is not None and first not in self._used:
            seed = first.seed
        self._used.update(picked)
        return Request(tuple(picked), seed, shape)

    def again(self, requests: Sequence[Request]) -> list[Request]:
        """The same requests with other seeds, for a round that must be repeated."""
        return [replace(one, seed=int(self._rng.integers(2**31))) for one in requests]


@dataclass(frozen=True)
class Timed:
    """One timed request with its images; ``position`` is its place (0 to 3) in the round. One that
    is not ``clocked`` was drawn for its images alone: its seconds count for nothing."""

    arm: str
    round: int
    position: int
    request: Request
    seconds: float
    images: NDArray[np.uint8]
    clocked: bool = True


@dataclass(frozen=True)
class Series:
    """The kept rounds in order, and how many were repeated or kept in spite of other load."""

    timed: tuple[Timed, ...]
    repeated: int = 0
    contaminated: int = 0

    def of(self, arm: str) -> list[Timed]:
        """An arm's requests in order, which is the same for both arms."""
        mine = [t for t in self.timed if t.arm == arm]
        return sorted(mine, key=lambda t: (t.round, t.position // 2))

    def seconds(self, arm: str) -> list[float]:
        return [t.seconds for t in self.of(arm)]


def rounds_for(prompts: int) -> int:
    """Rounds that take at least so many prompts, two a round."""
    return (prompts + 1) // 2


def measure(
    base: Arm,
    candidate: Arm,
    pairs: Pairs,
    rounds: int,
    rng: np.random.Generator,
    *,
    first_round: int = 0,
    watch_load: bool = True,
) -> Series:
    """Time ``rounds`` rounds. Raises TrialError when an arm fails."""
    kept: list[Timed] = []
    repeated = contaminated = 0
    allowed = int(np.ceil(REPEATED_SHARE * rounds)) if watch_load else 0
    done = 0
    first: list[Timed] = []
    drawn = pairs.draw(2)
    while done < rounds:
        load = _OtherLoad([base.pid, candidate.pid])
        timed = _round(base, candidate, drawn, first_round + done, bool(rng.integers(2)))
        if watch_load and load.share() > FOREIGN_SHARE:
            if repeated < allowed:
                repeated += 1
                first = first or timed
                drawn = pairs.again(drawn)
                continue
            contaminated += 1
        kept += _shown(timed, first) if first and pairs.keeps_pictures else timed
        first = []
        done += 1
        if done < rounds:
            drawn = pairs.draw(2)
    return Series(tuple(kept), repeated, contaminated)


def _round(
    base: Arm, candidate: Arm, requests: list[Request], number: int, candidate_first: bool
) -> list[Timed]:
    arms = {"base": base, "candidate": candidate}
    order = ["base", "candidate", "candidate", "base"]
    if candidate_first:
        order = ["candidate", "base", "base", "candidate"]
    timed = []
    for position, name in enumerate(order):
        request = requests[position // 2]
        other = arms["candidate" if name == "base" else "base"]
        other.pause()
        arms[name].resume()
        answer = arms[name].generate(request)
        timed.append(Timed(name, number, position, request, answer.seconds, answer.images))
    return timed


def _shown(timed: list[Timed], first: list[Timed]) -> list[Timed]:
    """A round's seconds with the requests and pictures of another time that it ran."""
    shown = {(t.arm, t.position // 2): t for t in first}
    return [
        replace(t, request=other.request, images=other.images)
        for t in timed
        for other in (shown[t.arm, t.position // 2],)
    ]


class _OtherLoad:
    """Share of all processors' time that went to other programs since the start."""

    def __init__(self, pids: list[int]) -> None:
        self._pids = [*pids, os.getpid()]
        self._busy, self._all = _machine_seconds()
        self._own = self._own_seconds()

    def _own_seconds(self) -> float:
        import psutil

        total = 0.0
        for pid in self._pids:
            with contextlib.suppress(psutil.Error):
                times = psutil.Process(pid).cpu_times()
                total += times.user + times.system
        return total

    def share(self) -> float:
        busy, everything = _machine_seconds()
        elapsed = everything - self._all
        foreign = (busy - self._busy) - (self._own_seconds() - self._own)
        # The counters tick at 10 ms: over a very short round they say nothing.
        return foreign / elapsed if elapsed > 0.2 else 0.0


def _machine_seconds() -> tuple[float, float]:
    import psutil

    times = psutil.cpu_times()
    everything = float(sum(getattr(times, n) for n in times._fields if not n.startswith("guest")))
    idle = times.idle + getattr(times, "iowait", 0.0)
    return everything - idle, everything


@contextlib.contextmanager
def device_lock(device: str) -> Iterator[None]:
    """Keep two timed candidates on one device apart, also those of other studies."""
    user = os.getuid() if hasattr(os, "getuid") else 0
    path = Path(tempfile.gettempdir()) / f"diffagent-{user}-{device.replace(':', '-')}.lock"
    with path.open("w") as handle:
        if os.name == "posix":
            import fcntl

            fcntl.flock(handle, fcntl.LOCK_EX)
        yield
