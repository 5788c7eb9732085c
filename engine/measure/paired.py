"""Paired timing: two arms take turns on fresh (prompt, seed) pairs, so that drift hits both.

A round is, in random order of the arms, A p1, B p1, B p2, A p2. The idle arm is stopped. A round
during which other programs used the processors is repeated on fresh pairs, as often as the budget
for it allows; what is left contaminated is counted and said.
"""

from __future__ import annotations

import contextlib
import os
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from engine.worker.pool import Answer

Pair = tuple[str, int]
"""Prompt and seed."""

FOREIGN_SHARE = 0.10
"""Share of all processors' time used by other programs from which a round is contaminated."""
REPEATED_SHARE = 0.25
"""Rounds that may be repeated, as a share of the rounds asked for."""


class Arm(Protocol):
    """What is timed: a resident worker."""

    pid: int

    def generate(self, prompt: str, seed: int) -> Answer: ...
    def pause(self) -> None: ...
    def resume(self) -> None: ...


class Pairs:
    """Pairs that no arm has seen: the prompts in turn, each time with a fresh seed."""

    def __init__(self, prompts: list[str], rng: np.random.Generator) -> None:
        self._prompts = prompts
        self._rng = rng
        self._next = 0

    def draw(self, count: int) -> list[Pair]:
        picked = [self._prompts[(self._next + i) % len(self._prompts)] for i in range(count)]
        self._next += count
        return self.again(picked)

    def again(self, prompts: list[str]) -> list[Pair]:
        """The same prompts with other seeds, for a round that must be repeated."""
        return [(prompt, int(self._rng.integers(2**31))) for prompt in prompts]


@dataclass(frozen=True)
class Timed:
    """One timed image; ``position`` is its place (0 to 3) in the round."""

    arm: str
    round: int
    position: int
    prompt: str
    seed: int
    seconds: float
    image: NDArray[np.uint8]


@dataclass(frozen=True)
class Series:
    """The kept rounds in order, and how many were repeated or kept in spite of other load."""

    timed: tuple[Timed, ...]
    repeated: int = 0
    contaminated: int = 0

    def of(self, arm: str) -> list[Timed]:
        """An arm's images in the order of the pairs, which is the same for both arms."""
        mine = [t for t in self.timed if t.arm == arm]
        return sorted(mine, key=lambda t: (t.round, t.position // 2))

    def seconds(self, arm: str) -> list[float]:
        return [t.seconds for t in self.of(arm)]


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
    drawn = pairs.draw(2)
    while done < rounds:
        load = _OtherLoad([base.pid, candidate.pid])
        timed = _round(base, candidate, drawn, first_round + done, bool(rng.integers(2)))
        if watch_load and load.share() > FOREIGN_SHARE:
            if repeated < allowed:
                repeated += 1
                drawn = pairs.again([prompt for prompt, _ in drawn])
                continue
            contaminated += 1
        kept += timed
        done += 1
        if done < rounds:
            drawn = pairs.draw(2)
    return Series(tuple(kept), repeated, contaminated)


def _round(
    base: Arm, candidate: Arm, pairs: list[Pair], number: int, candidate_first: bool
) -> list[Timed]:
    arms = {"base": base, "candidate": candidate}
    order = ["base", "candidate", "candidate", "base"]
    if candidate_first:
        order = ["candidate", "base", "base", "candidate"]
    timed = []
    for position, name in enumerate(order):
        prompt, seed = pairs[position // 2]
        other = arms["candidate" if name == "base" else "base"]
        other.pause()
        arms[name].resume()
        answer = arms[name].generate(prompt, seed)
        timed.append(Timed(name, number, position, prompt, seed, answer.seconds, answer.image))
    return timed


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
