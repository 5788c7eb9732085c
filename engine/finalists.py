"""Which of a search's trials are measured again on the held-out prompts."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from engine import goal as goals
from engine import handover
from engine.results import Genome, Result
from engine.schema import GoalConfig
from engine.search import archive

SINGLES = 2
"""Best single techniques that are measured again, to compare the compositions with."""
ACCEPTED = 6
"""Points of the front that are measured again, or those that seem to keep what was asked for."""
LOOKS = 3
"""Most measurements of a point that keeps what the goal asks for, but not yet for sure."""
FURTHER = 6
"""More points that may be measured again while faster ones than the best seem to keep the goal."""


@dataclass(frozen=True)
class Choice:
    """Chooses for a goal; what differs from the baseline in one technique is a single one."""

    goal: GoalConfig
    baseline: Genome

    def finalists(self, told: Sequence[Result], searched: Sequence[Result]) -> list[Result]:
        """The front's points and the best single techniques, without those that were measured again
        already. ``searched`` are the trials as the search saw them."""
        near = [
            r
            for r in searched
            # What was left after a few prompts was left for good.
            if r.rung >= 1
            if (r.speedup or 0.0) > 1 and (r.loss or 0.0) <= archive.SLACK * self.goal.most_loss
        ]
        chosen = archive.front(near, memory=self.goal.names_memory)[:ACCEPTED]
        inside = sorted((r for r in near if self._keeps(r)), key=lambda r: -(r.speedup or 0.0))
        single = [r for r in inside if self._single(r)][:SINGLES]
        for extra in [*single, *inside]:
            if extra not in chosen and (extra in single or len(chosen) < ACCEPTED):
                chosen.append(extra)
        done = {r.trial for r in told if r.ok and r.rung == 2}
        return [r for r in chosen if r.trial not in done]

    def outdone(self, candidate: Result, told: Sequence[Result]) -> bool:
        """Whether measuring the candidate again would not bring it to the front, since a point that
        keeps the goal on the held-out prompts is so much better. A single technique is compared
        with, so it never is. Where the goal asks for speed, faster is better and nothing else."""
        if self.goal.names_memory:
            return False
        accepted = [r for r in told if r.ok and r.rung == 2]
        if goals.asks_speed(self._goal):
            limits = self._goal | {"speedup": None, "seconds": None}
            least = archive.OUTDONE * (candidate.speedup or 0.0)
            keeping = [r for r in accepted if goals.within_goal(r, limits)]
            return any((r.speedup or 0.0) > least for r in keeping)
        if self._single(candidate):
            return False
        return archive.outdone(candidate, [r for r in accepted if self._keeps(r)])

    def likely(self, told: Sequence[Result]) -> Result | None:
        """The trial that seems to keep most surely what the goal asks for and was not measured
        again; None where one that was keeps it as surely or for sure, and where the goal asks for
        nothing.

        What the search saw flatters the trial that it chooses, so a measurement on the held-out
        prompts is not repeated with one that even so looks less sure.
        """
        if not goals.asks(self._goal) or self.met(told) is not None:
            return None
        likely = goals.recommended([r for r in told if r.rung == 1], self._goal)
        known = self.kept(told)
        if likely is None or known is None:
            return likely
        return likely if goals.slack(likely, self._goal) > goals.slack(known, self._goal) else None

    def kept(self, told: Sequence[Result]) -> Result | None:
        """The trial that keeps most surely what the goal asks for, on the held-out prompts. None
        also where it asks for nothing."""
        if not goals.asks(self._goal):
            return None
        return goals.recommended([r for r in told if r.rung == 2], self._goal)

    def met(self, told: Sequence[Result]) -> Result | None:
        """The first trial that keeps for sure all that the goal asks for: nothing more needs to be
        measured then. None also where it asks for nothing."""
        if not goals.asks(self._goal):
            return None
        return next((r for r in told if r.rung == 2 and goals.surely_within(r, self._goal)), None)

    def further(self, told: Sequence[Result]) -> Result | None:
        """The fastest point that seemed to keep the goal, was not measured again, and is faster
        than all that do keep it: what led the search by luck must not end without a successor."""
        keeping = [r for r in told if r.ok and self._keeps(r)]
        best = max((r.speedup or 0.0 for r in keeping if r.rung == 2), default=0.0)
        faster = [r for r in keeping if r.rung < 2 and (r.speedup or 0.0) > best]
        return max(faster, key=lambda r: r.speedup or 0.0, default=None)

    def _keeps(self, result: Result) -> bool:
        return goals.within_goal(result, self._goal)

    @property
    def _goal(self) -> dict[str, Any]:
        return dataclasses.asdict(self.goal)

    def _single(self, result: Result) -> bool:
        return handover.is_single(result.genome, self.baseline)
