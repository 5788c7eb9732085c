"""Saved votes of the blind page: reading them, and what they say."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from engine.errors import UsageError
from engine.measure.statistics import wilson
from engine.report import text
from engine.report.blind import FORMAT, unscrambled

CHOICES = ("left", "right", "none")


@dataclass(frozen=True)
class Votes:
    """One voter's votes on one page, counted by what was preferred."""

    source: str
    voter: str
    page: str
    study: str
    trial: int
    saved: str
    candidate: int
    baseline: int
    neither: int
    pairs: int

    @property
    def decided(self) -> int:
        return self.candidate + self.baseline


def read(path: Path) -> Votes:
    """A file that the page saved. Raises UsageError when it is none or is damaged."""
    try:
        data = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise UsageError(
            f"there is no file {path}; give what the page's save button wrote"
        ) from None
    except (OSError, ValueError) as error:
        raise UsageError(f"{path} cannot be read ({error}); save the votes again") from None
    if not isinstance(data, Mapping) or data.get("format") != FORMAT:
        raise UsageError(f"{path} holds no votes of format {FORMAT}; give what the page saved")
    try:
        return _counted(data, str(path))
    except (KeyError, TypeError, ValueError, IndexError, AttributeError) as error:
        raise UsageError(f"{path} is damaged ({error!r}); save the votes again") from None


def _counted(data: Mapping[str, Any], source: str) -> Votes:
    sides = unscrambled(data["key"], data["page"])
    counts = {"candidate": 0, "baseline": 0, "neither": 0}
    for number, choice in data["votes"].items():
        if choice not in CHOICES:
            raise ValueError(f"vote {choice!r}")
        if not 0 <= int(number) < len(sides):
            raise IndexError(f"pair {number}")
        if choice == "none":
            counts["neither"] += 1
        else:
            own = (choice == "left") == sides[int(number)]
            counts["candidate" if own else "baseline"] += 1
    return Votes(
        source=source,
        voter=str(data["voter"]),
        page=str(data["page"]),
        study=str(data["study"]),
        trial=int(data["trial"]),
        saved=str(data["saved"]),
        pairs=len(sides),
        **counts,
    )


def latest(found: Iterable[Votes]) -> list[Votes]:
    """Of each voter and page only what was saved last: a vote counts once."""
    kept: dict[tuple[str, str], Votes] = {}
    for votes in sorted(found, key=lambda v: v.saved):
        kept[(votes.page, votes.voter)] = votes
    return list(kept.values())


def result_words(votes: Votes) -> str:
    """What was preferred how often, with the interval, in a sentence."""
    low, high = wilson(votes.candidate, votes.decided)
    words = f"candidate {votes.candidate}, baseline {votes.baseline}, no difference {votes.neither}"
    if votes.decided == 0:
        return f"{words}; nobody preferred either"
    share = text.percent(votes.candidate / votes.decided)
    words += (
        f"; of {votes.decided} with a preference {share} chose the candidate "
        f"({text.percent_interval(low, high)})"
    )
    if low > 0.5:
        return f"{words}: the candidate is preferred"
    if high < 0.5:
        return f"{words}: the baseline is preferred"
    return f"{words}: no preference is shown"


def lines(paths: Sequence[Path]) -> list[str]:
    """The result of one or several files, grouped by study and trial."""
    given = [read(path) for path in paths]
    found = latest(given)
    lines = []
    if len(found) < len(given):
        lines.append(
            f"{len(given) - len(found)} of {len(given)} files left out: the same voter saved the "
            "same page again later"
        )
    for study, trial in dict.fromkeys((v.study, v.trial) for v in found):
        group = [v for v in found if (v.study, v.trial) == (study, trial)]
        for votes in group:
            done = votes.decided + votes.neither
            lines.append(f"{votes.source} ({done} of {votes.pairs} pairs): {result_words(votes)}")
        if len(group) > 1:
            lines.append(f"{study} #{trial}, {len(group)} voters: {result_words(_pooled(group))}")
            lines.append(
                "  The interval takes votes as independent; people who saw the same pictures are "
                "less so, and the true interval is wider."
            )
    return lines


def _pooled(group: Sequence[Votes]) -> Votes:
    return replace(
        group[0],
        candidate=sum(v.candidate for v in group),
        baseline=sum(v.baseline for v in group),
        neither=sum(v.neither for v in group),
    )
