"""Several whole studies that differ in one thing each: the variants of an ablation, with seeds.

Every variant is a study of its own name, ``<study>-<variant>-<seed>``, and resumes as such; the
same command resumes all of them. Their comparison lies in ``<study>/`` beside them.
"""

from __future__ import annotations

import re
import statistics
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from engine import console
from engine.errors import GoalMissed, UsageError
from engine.strategy import nearest

if TYPE_CHECKING:
    from engine.report.studies import Study


@dataclass(frozen=True)
class Planned:
    """One study of an ablation with the overrides that make it."""

    variant: str
    seed: int
    study: str
    arguments: tuple[str, ...]


def planned(
    study: str,
    variants: Mapping[str, Sequence[str]],
    seeds: Sequence[int],
    only: Sequence[str] | None,
    arguments: Sequence[str],
) -> list[Planned]:
    """All studies: every variant with the first seed, then with the next one, so that a part of an
    ablation compares all variants.

    ``only`` names the variants that run; None takes all. ``arguments`` apply to each, and a
    variant's own overrides come after them. Raises UsageError for a variant that is no list of
    overrides or is not there, and for a seed that is no whole number.
    """
    if not variants or not seeds:
        raise UsageError("an ablation needs hydra.sweeper.variants and hydra.sweeper.seeds")
    for name, own in variants.items():
        if isinstance(own, str) or not all(isinstance(text, str) for text in own):
            raise UsageError(
                f"hydra.sweeper.variants.{name} is {own!r}; write a list of overrides, such as "
                "[search=random]"
            )
        if not re.fullmatch(r"[\w.-]+", name):
            raise UsageError(f"variant {name!r} is no name; use letters, digits, '.', '_', '-'")
    for seed in seeds:
        if isinstance(seed, bool) or not isinstance(seed, int) or seed < 0:
            raise UsageError(f"hydra.sweeper.seeds has {seed!r}; it takes whole numbers from 0")
    for name in only or ():
        if name not in variants:
            raise UsageError(f"there is no variant {name!r}{nearest(name, variants)}")
    chosen = variants if only is None else {name: variants[name] for name in only}
    kept = [text for text in arguments if not re.match(r"\+*(study|search\.seed)=", text)]
    return [
        Planned(name, seed, f"{study}-{name}-{seed}", (*kept, *own, *_own(study, name, seed)))
        for seed in dict.fromkeys(seeds)
        for name, own in chosen.items()
    ]


def _own(study: str, variant: str, seed: int) -> tuple[str, str]:
    return f"search.seed={seed}", f"study={study}-{variant}-{seed}"


def run(plans: Sequence[Planned], search: Callable[[Planned], None], sweeps: Path) -> None:
    """Run or resume every study with ``search``; then the table and the comparison.

    A study in which nothing kept the goal counts as it is. Raises what else ``search`` raises.
    """
    for number, plan in enumerate(plans, 1):
        console.say(f"study {number} of {len(plans)}: {plan.variant}, seed {plan.seed}")
        try:
            search(plan)
        except GoalMissed as missed:
            console.say(f"{plan.study}: {missed}")
    _compare(plans, sweeps)


def _compare(plans: Sequence[Planned], sweeps: Path) -> None:
    """What each variant found, over its seeds, and the page that shows every study."""
    from engine.listing import table
    from engine.report import compare, studies

    if len(plans) < 2:
        return
    found = studies.read_all([plan.study for plan in plans], sweeps)
    by_variant: dict[str, list[Study]] = {}
    for plan, study in zip(plans, found, strict=True):
        by_variant.setdefault(plan.variant, []).append(study)
    rows = [_row(variant, group) for variant, group in by_variant.items()]
    table(["variant", "seeds", "best within the goal", "mean gain over the allowed losses"], rows)
    out = sweeps / _common(plans)
    for path in compare.write(found, out):
        console.say(f"comparison: {path}")


def _common(plans: Sequence[Planned]) -> str:
    first = plans[0]
    return first.study.removesuffix(f"-{first.variant}-{first.seed}")


def _row(variant: str, group: Sequence[Study]) -> list[str]:
    best = [study.best.speedup for study in group if study.best and study.best.speedup]
    gains = [study.gain for study in group if study.gain is not None]
    return [variant, str(len(group)), _spread(best, "x"), _spread(gains, "")]


def _spread(values: Sequence[float], unit: str) -> str:
    """Mean with its standard error over the seeds."""
    if not values:
        return "none"
    mean = f"{statistics.mean(values):.2f}{unit}"
    if len(values) < 2:
        return mean
    error = statistics.stdev(values) / len(values) ** 0.5
    return f"{mean} (standard error {error:.2f}, {len(values)} studies)"
