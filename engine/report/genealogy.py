"""Where a composition came from: its ancestors, what changed at each step, and a drawing."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from html import escape
from textwrap import wrap

from engine.report import text
from engine.report.drawing import NARROW, Size, svg
from engine.results import Genome, Result

MOST = 16
"""Compositions in one drawing; the nearest generations come first."""
LINE = 16
"""Height in pixels of a line of text."""
TITLE = 32
"""Most letters of a plan's title."""
LETTER = 6.3
"""Mean width in pixels of a letter of the drawing's text."""


@dataclass(frozen=True)
class Family:
    """A composition and its nearest ancestors, youngest first."""

    members: tuple[Result, ...]
    left_out: int
    """Ancestors that are known and not drawn."""
    missing: tuple[int, ...]
    """Parents whose results are not there (any more)."""


def family(known: Mapping[int, Result], start: int) -> Family:
    """The ancestors of a trial, generation by generation; a parent is always an earlier trial."""
    found = {start: known[start]}
    missing: set[int] = set()
    frontier = [start]
    while frontier:
        above = {p for child in frontier for p in known[child].parents if 0 <= p < child}
        parents = sorted((p for p in above if p not in found), reverse=True)
        missing |= {p for p in parents if p not in known}
        frontier = [p for p in parents if p in known]
        found |= {p: known[p] for p in frontier}
    kept = list(found.values())[:MOST]
    left_out = len(found) - len(kept)
    members = sorted(kept, key=lambda r: -r.trial)
    return Family(tuple(members), left_out, tuple(sorted(missing)))


def changes(before: Genome, after: Genome) -> list[str]:
    """What turns one composition into another: ``steps 10 to 7``, ``+ tome``, ``without tgate``."""
    words = []
    for name, genes in after.items():
        if name not in before:
            words.append(f"+ {text.describe({name: genes})}")
            continue
        for gene, value in genes.items():
            old = before[name].get(gene)
            if old != value:
                words.append(f"{name} {gene} {text.value(old)} to {text.value(value)}")
    return words + [f"without {name}" for name in before if name not in after]


def nearest_parent(child: Result, known: Mapping[int, Result]) -> Result | None:
    """The parent from which the fewest changes lead to the child."""
    parents = [known[p] for p in child.parents if p in known]
    return min(parents, key=lambda p: len(changes(p.genome, child.genome)), default=None)


def step(child: Result, known: Mapping[int, Result]) -> str:
    """The step to a composition in words."""
    parent = nearest_parent(child, known)
    if parent is None:
        return text.describe(child.genome)
    words = ", ".join(changes(parent.genome, child.genome)) or "the same"
    return f"from #{parent.trial}: {words}"


def drawing(found: Family, known: Mapping[int, Result], size: Size) -> str:
    """The family as a list with lines from child to parents: youngest on top, one lane for each
    line of descent, so that it reads on a phone as well."""
    numbers = [r.trial for r in found.members]
    rows = _lanes(found.members)
    lanes = 1 + max(max(lane, *open_lanes.values(), 0) for lane, open_lanes in rows)
    gap = min(20.0, 80.0 / lanes) if size == NARROW else min(24.0, 220.0 / lanes)
    left = 14 + gap * (lanes - 1) + 18
    letters = int((size[0] - left - 4) / LETTER)
    parts: list[str] = []
    words: list[str] = []
    where: dict[int, tuple[float, float]] = {}
    y = 14.0
    for result, (lane, _) in zip(found.members, rows, strict=True):
        where[result.trial] = (14 + gap * lane, y)
        lines = wrap(step(result, known), letters, break_on_hyphens=False)
        words.append(_entry(result, lines, left, y))
        y += LINE * (1 + len(lines)) + 12
    for result, (_, open_lanes) in zip(found.members, rows, strict=True):
        x, top = where[result.trial]
        for parent in result.parents:
            if parent in where:
                bottom = where[parent][1]
                via = 14 + gap * open_lanes[parent]
                parts.append(_edge(x, top, via, where[parent][0], bottom))
    dots = [
        f'<circle class="point{" best" if number == numbers[0] else ""}" cx="{x:.1f}" '
        f'cy="{top:.1f}" r="5"/>'
        for number, (x, top) in where.items()
    ]
    title = f"Ancestors of #{numbers[0]}"
    return svg((size[0], round(y)), title, "".join([*parts, *dots, *words]))


def _edge(x: float, top: float, via: float, end: float, bottom: float) -> str:
    """Out of the child into the lane, down, and into the parent."""
    bend = min(14.0, (bottom - top) / 2)
    return (
        f'<path class="descent" d="M{x:.1f} {top:.1f}'
        f"C{x:.1f} {top + bend:.1f} {via:.1f} {top:.1f} {via:.1f} {top + bend:.1f}"
        f"V{bottom - bend:.1f}"
        f'C{via:.1f} {bottom:.1f} {end:.1f} {bottom - bend:.1f} {end:.1f} {bottom:.1f}"/>'
    )


def _entry(result: Result, lines: Sequence[str], x: float, y: float) -> str:
    figures = f"{text.ratio(result.speedup)}, loss {text.percent(result.loss)}"
    if not result.ok:
        figures = f"failed at {result.stage}"
    head = (
        f'<text x="{x:.1f}" y="{y + 4:.1f}"><tspan class="label">#{result.trial} {figures}'
        f"</tspan> {escape(_origin(result))}</text>"
    )
    return head + "".join(
        f'<text x="{x:.1f}" y="{y + 4 + LINE * (1 + i):.1f}">{escape(line)}</text>'
        for i, line in enumerate(lines)
    )


def _origin(result: Result) -> str:
    """Where a composition came from, and the title of its plan."""
    if not result.note:
        return result.origin
    short = result.note if len(result.note) <= TITLE else result.note[: TITLE - 1] + "\u2026"
    return f"{result.origin}: {short}"


def _lanes(members: Sequence[Result]) -> list[tuple[int, dict[int, int]]]:
    """For each member its lane, and the lane in which each of its parents is awaited."""
    drawn = {r.trial for r in members}
    awaited: dict[int, int] = {}
    rows = []
    for result in members:
        lane = awaited.pop(result.trial, None)
        if lane is None:
            lane = _free(awaited)
        for parent in result.parents:
            if parent in drawn and parent not in awaited:
                taken = set(awaited.values())
                awaited[parent] = lane if lane not in taken else _free(awaited)
        rows.append((lane, {p: awaited[p] for p in result.parents if p in awaited}))
    return rows


def _free(awaited: Mapping[int, int]) -> int:
    taken = set(awaited.values())
    return next(lane for lane in range(len(taken) + 1) if lane not in taken)
