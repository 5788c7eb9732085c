"""What was measured, in lines that a planner can use: not one number but where it came from."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from engine import goal as goals
from engine.agent.prompts import one_line
from engine.genome import describe
from engine.results import Result

WORST = 2
"""Prompts that a report names."""
NOTABLE = 0.02
"""Loss on one prompt from which it is named."""
REASON = 200
"""Most characters of a failed trial's reason."""


@dataclass(frozen=True)
class Base:
    """The baseline's own figures: denoiser forwards and operations of one image; ``timed`` is
    whether seconds may be told, which they may not where costs are counted, since they would make
    two equal searches ask different questions."""

    forwards: int
    flops: int | None
    timed: bool


def line(result: Result, base: Base, goal: Mapping[str, Any], titles: Mapping[int, str]) -> str:
    """A measured trial on one line, with what it did per step."""
    words = [f"#{result.trial}: {result.speedup:.2f}x", _loss(result)]
    if base.timed and result.speedup_low is not None:
        words[0] += f" ({result.speedup_low:.2f} to {result.speedup_high:.2f})"
    words.append("keeps the goal" if goals.within_goal(result, dict(goal)) else "breaks the goal")
    words += _work(result, base)
    text = ", ".join(word for word in words if word) + f"; {describe(result.genome)}"
    title = titles.get(result.trial)
    return f"- {text}" + (f' ("{title}")' if title else "")


def report(result: Result, base: Base, goal: Mapping[str, Any], titles: Mapping[int, str]) -> str:
    """The line of a trial and below it what lost quality, for a plan that is to be refined."""
    lines = [line(result, base, goal, titles)]
    lines += [f"  - loses {100 * loss:.0f} % on: {one_line(p, 120)}" for p, loss in worst(result)]
    if result.accuracy is not None and result.accuracy_base is not None:
        lines.append(
            f"  - the named shapes and colours are right in {100 * result.accuracy:.0f} % of the "
            f"pictures, in the baseline's in {100 * result.accuracy_base:.0f} %"
        )
    lines += [f"  - {one_line(note, 200)}" for note in result.notes[:2]]
    return "\n".join(lines)


def failures(results: Sequence[Result], most: int = 6) -> str:
    """A line for each of the newest failed trials: stage and reason."""
    failed = [r for r in results if not r.ok][-most:]
    return "\n".join(
        f"- #{r.trial} at {r.stage}: {one_line(str(r.reason), REASON)}; {describe(r.genome)}"
        for r in failed
    )


def worst(result: Result) -> list[tuple[str, float]]:
    """The prompts that lost most of the baseline's score, with the share, worst first."""
    scores: dict[str, dict[str, list[float]]] = defaultdict(lambda: {"base": [], "candidate": []})
    for sample in result.samples:
        if sample.score is not None:
            scores[sample.prompt][sample.arm].append(sample.score)
    found = []
    for prompt, arms in scores.items():
        if arms["base"] and arms["candidate"]:
            base = sum(arms["base"]) / len(arms["base"])
            own = sum(arms["candidate"]) / len(arms["candidate"])
            if base > 0 and (base - own) / base >= NOTABLE:
                found.append((prompt, (base - own) / base))
    return sorted(found, key=lambda f: (-f[1], f[0]))[:WORST]


def _loss(result: Result) -> str:
    return "" if result.loss is None else f"loss {100 * result.loss:.1f} %"


def _work(result: Result, base: Base) -> list[str]:
    """Steps, work and, where time was measured, seconds of a step."""
    words = []
    if result.forwards:
        words.append(f"{result.forwards} denoiser calls (baseline {base.forwards})")
    if result.forwards and result.cost_flops and base.flops and base.forwards:
        share = (result.cost_flops / result.forwards) / (base.flops / base.forwards)
        words.append(f"work of a call {100 * share:.0f} % of the baseline's")
    if base.timed and result.seconds_per_image and result.forwards:
        words.append(f"{1000 * result.seconds_per_image / result.forwards:.0f} ms a call")
    if base.timed and result.seconds_per_image:
        words.append(f"{result.seconds_per_image:.3f} s an image")
    return words
