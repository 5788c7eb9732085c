"""How many tasks there are of what: the paper's counts, and one way to keep all of them.

The paper gives three sets of totals: by level, by pipeline and by the methods that the requests
name (paper.md "DiffBench"; its Fig. 2). It does not say how they cross. What is free is chosen
here once, in the tables marked "ours"; everything else follows from the totals, and
:func:`slots` raises ValueError where a table leaves no way to keep them.

Which methods exist for which pipeline is no choice: DeepCache and ToMe need a U-Net, T-GATE needs
cross-attention and is asked for with the pipelines of its package (SD, SDXL, PixArt), FP16 is for
all. So a task with several methods on PixArt combines T-GATE with FP16, and DiT has FP16 alone.
FP16 counts as a method, as in the paper's text, and has no total, as in its figure. A sampler is
no acceleration method here, although the figure lists it beside them: a request of any of the
first three levels may name one.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass

from engine.diffbench.chance import dealt, shuffled

LEVELS = {1: 41, 2: 116, 3: 261, 4: 93, 5: 93}
"""Tasks by level (paper.md, table of the levels)."""
PIPELINES = {
    "SD1.5": 166,
    "SD2.1": 166,
    "SDXL": 166,
    "PixArt-alpha": 35,
    "PixArt-Sigma": 35,
    "ControlNet": 26,
    "DiT": 10,
}
"""Tasks by pipeline (the paper's Fig. 2)."""
METHODS = {"deepcache": 276, "tome": 248, "tgate": 186}
"""Tasks whose request names the method (the paper's Fig. 2)."""
SAMPLERS = {"ddim": 120, "dpmpp_2m": 120, "unipc": 120}
"""Tasks whose request names the sampler, by our name for it (the paper's Fig. 2: DDIM, DPM-Solver,
UniPC)."""
DIFFICULTIES = ("easy", "medium", "hard")
FP16 = "float16"
"""Half precision as a method of a task."""

STABLE = ("SD1.5", "SD2.1", "SDXL")
PIXART = ("PixArt-alpha", "PixArt-Sigma")

# --- ours: what the totals leave open

BASELINES = {
    "SD1.5": 9,
    "SD2.1": 8,
    "SDXL": 8,
    "PixArt-alpha": 2,
    "PixArt-Sigma": 2,
    "ControlNet": 1,
    "DiT": 1,
}
"""Of the 31 baselines; each has three difficulties on both L4 and L5. About in proportion."""
PLAIN = dict(zip(PIPELINES, (9, 9, 9, 4, 4, 3, 3), strict=True))
"""Tasks of L1 by pipeline."""
SINGLE = dict(zip(PIPELINES, (27, 29, 29, 10, 10, 10, 1), strict=True))
"""Tasks of L2 by pipeline. L3 has what is then left of each."""
ONE: dict[tuple[str, ...], dict[str, int]] = {
    STABLE: {"deepcache": 40, "tome": 22, "tgate": 13, FP16: 10},
    PIXART: {"tgate": 14, FP16: 6},
    ("ControlNet",): {"deepcache": 4, "tome": 4, FP16: 2},
    ("DiT",): {FP16: 1},
}
"""The method of L2's tasks, by group of pipelines."""
HALVED = 2
"""Tasks of L3 on Stable Diffusion that combine FP16 with each of the three methods alone."""
FP16_TOO = 4
"""One in so many of L3's tasks with two or three of the methods asks for FP16 as well."""
CONTROLLED = {("deepcache", "tome"): 5, ("deepcache", "tome", FP16): 2}
"""Methods of L3's tasks with a ControlNet."""


_Row = tuple[str, tuple[str, ...]]
"""Pipeline and methods."""


@dataclass(frozen=True)
class Slot:
    """A place in the benchmark that a task fills: what the totals count, and nothing else.

    ``number`` counts from one within the level. ``methods`` are deepcache, tome, tgate, float16.
    ``baseline`` is the baseline's place among those of its pipeline.
    """

    level: int
    number: int
    pipeline: str
    methods: tuple[str, ...] = ()
    sampler: str | None = None
    difficulty: str | None = None
    baseline: int | None = None

    @property
    def id(self) -> str:
        return f"L{self.level}-{self.number:03d}"


def slots() -> list[Slot]:
    """All 604, by level and number."""
    first = _without_target()
    hard = [slot for level in (4, 5) for slot in _with_target(level)]
    return [*first, *hard]


def combinations(tasks: int, totals: Mapping[str, int]) -> dict[tuple[str, ...], int]:
    """How many of ``tasks`` combine what, so that each of the three methods is named as often as
    ``totals`` says and every task has two or more methods, FP16 included.

    ``HALVED`` tasks take each method with FP16. Of the others, those with all three follow from
    the sum of the totals, those with two from the three totals. Raises ValueError if some number
    would be negative or broken.
    """
    names = tuple(METHODS)
    left = {name: totals[name] - HALVED for name in names}
    several = tasks - HALVED * len(names)
    all_three = sum(left.values()) - 2 * several
    pairs = {name: left[name] - all_three for name in names}
    found: dict[tuple[str, ...], int] = {(name, FP16): HALVED for name in names}
    for absent in names:
        both = tuple(name for name in names if name != absent)
        count, odd = divmod(sum(pairs.values()) - 2 * pairs[absent], 2)
        if odd or count < 0:
            raise ValueError(f"no way to name {dict(totals)} in {tasks} tasks: {both} {count}")
        found[both] = count
    if all_three < 0:
        raise ValueError(f"no way to name {dict(totals)} in {tasks} tasks: {names} {all_three}")
    return found | {names: all_three}


def _without_target() -> list[Slot]:
    """L1 to L3."""
    plain: list[_Row] = [(name, ()) for name in dealt(PLAIN, "L1")]
    listed = {1: plain, 2: _singles(), 3: _several()}
    places = [(level, entry) for level, rows in listed.items() for entry in rows]
    unnamed = {"": len(places) - sum(SAMPLERS.values())}
    samplers = dealt(SAMPLERS | unnamed, "samplers")
    numbers: Counter[int] = Counter()
    found = []
    for (level, (pipeline, methods)), sampler in zip(places, samplers, strict=True):
        numbers[level] += 1
        found.append(Slot(level, numbers[level], pipeline, methods, sampler or None))
    return found


def _singles() -> list[_Row]:
    rows: list[_Row] = []
    for group, counts in ONE.items():
        places = dealt({name: SINGLE[name] for name in group}, "L2", group)
        methods = dealt(counts, "L2 methods", group)
        rows += [(name, (method,)) for name, method in zip(places, methods, strict=True)]
    return shuffled(rows, "L2")


def _several() -> list[_Row]:
    left = {
        name: PIPELINES[name] - PLAIN[name] - SINGLE[name] - 6 * BASELINES[name]
        for name in PIPELINES
    }
    rows: list[_Row] = [(name, ("tgate", FP16)) for name in PIXART for _ in range(left[name])]
    rows += [("ControlNet", methods) for methods in dealt(CONTROLLED, "L3 ControlNet")]
    named = Counter(method for _, methods in [*_singles(), *rows] for method in methods)
    totals = {name: METHODS[name] - named[name] for name in METHODS}
    places = dealt({name: left[name] for name in STABLE}, "L3")
    methods = dealt(combinations(len(places), totals), "L3 methods")
    for index, (name, chosen) in enumerate(zip(places, methods, strict=True)):
        too = FP16 not in chosen and index % FP16_TOO == 0
        rows.append((name, (*chosen, FP16) if too else chosen))
    return shuffled(rows, "L3")


def _with_target(level: int) -> list[Slot]:
    """L4 or L5: each baseline at each difficulty, side by side."""
    places = [(name, index) for name, count in BASELINES.items() for index in range(count)]
    rows = [(place, difficulty) for place in places for difficulty in DIFFICULTIES]
    return [
        Slot(level, number, name, difficulty=difficulty, baseline=index)
        for number, ((name, index), difficulty) in enumerate(rows, 1)
    ]
