"""The comparison of searchers as Markdown, JSON and a plot."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from html import escape
from pathlib import Path
from typing import Any

CHECKPOINTS = (28, 100)
TARGET = 95.0
WIDTH, HEIGHT = 860, 460
LEFT, RIGHT, TOP, BOTTOM = 56, 210, 50, 48
COLOURS = ("#c2410c", "#1d4ed8", "#15803d", "#7e22ce", "#a16207", "#475569")
STYLE = (
    "text{font:13px system-ui,sans-serif;fill:#1f2937}"
    ".grid{stroke:#e5e7eb}.curve{fill:none;stroke-width:2.2}.off{stroke-dasharray:5 4;"
    "stroke-width:1.4}.title{font-weight:600}"
    "@media(prefers-color-scheme:dark){text{fill:#e5e7eb}.grid{stroke:#374151}}"
)
Summary = Mapping[str, Mapping[str, Any]]


def words(synthetic: bool, exact: bool, size: int, seeds: int) -> str:
    """What was compared, in a sentence."""
    table = "made-up" if synthetic else "recorded"
    noise = "all prompts in each trial" if exact else "24 prompts at random in each trial"
    return f"{size} genomes of the {table} table, {noise}, {seeds} seeds"


def markdown(found: Summary, about: str) -> str:
    """The table of all searchers."""
    lines = [
        f"Hypervolume in % of the whole table's ({about}); mean ± standard error.",
        "Ahead: by how many standard errors `genetic` leads, paired by seed.",
        "",
        "| search | at 28 | ahead | at 100 | ahead | 95 % after | of random's |",
        "|---|---|---|---|---|---|---|",
    ]
    for name, row in found.items():
        cells = [name]
        for at in CHECKPOINTS:
            cells.append(f"{row['mean'][at - 1]:.1f} ± {row['error'][at - 1]:.1f}")
            ahead = row["genetic_ahead"][str(at)]["errors"]
            cells.append("" if name == "genetic" or ahead is None else f"{ahead:+.1f}")
        cells.append(str(row["reaches"]) if row["reaches"] else f"over {len(row['mean'])}")
        cells.append("" if row["of_random"] is None else f"{row['of_random']:.2f}")
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines) + "\n"


def write(found: Summary, about: str, root: Path, synthetic: bool, exact: bool) -> None:
    """Results beside this file; the plot of the main comparison in docs/."""
    folder = root / "tests" / "benchmarks" / "results"
    folder.mkdir(parents=True, exist_ok=True)
    name = f"searchers{'-synthetic' if synthetic else ''}{'-exact' if exact else ''}"
    data = json.dumps({"about": about, "searchers": found}, indent=1) + "\n"
    (folder / f"{name}.json").write_text(data, encoding="utf-8")
    (folder / f"{name}.md").write_text(markdown(found, about), encoding="utf-8")
    drawing = plot(found, about)
    (folder / f"{name}.svg").write_text(drawing, encoding="utf-8")
    if not exact and not synthetic:
        (root / "docs" / "searchers.svg").write_text(drawing, encoding="utf-8")


def plot(found: Summary, about: str) -> str:
    """Mean curves: searchers in full lines with a band of two standard errors for ``genetic``,
    what is left of ``genetic`` without a mechanism in dashed lines."""
    title = "Share of the true hypervolume against evaluations"
    body = [_axes()]
    body.append(_band(found["genetic"]["mean"], found["genetic"]["error"]))
    shown = [(name, row["mean"]) for name, row in found.items()]
    for index, (name, mean) in enumerate(shown):
        points = " ".join(f"{_x(i + 1):.1f},{_y(v):.1f}" for i, v in enumerate(mean))
        kind = "curve off" if name.startswith("genetic ") else "curve"
        body.append(
            f'<polyline class="{kind}" stroke="{_colour(index)}" points="{points}">'
            f"<title>{escape(name)}</title></polyline>"
        )
    body += _legend(shown)
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {HEIGHT}" role="img" '
        f'aria-label="{title}"><style>{STYLE}</style><title>{title}</title>'
        f'<text class="title" x="{LEFT}" y="16">{title}</text>'
        f'<text x="{LEFT}" y="34">{escape(about)}</text>'
        f"{''.join(body)}</svg>\n"
    )


def _colour(index: int) -> str:
    return COLOURS[index % len(COLOURS)]


def _x(evaluation: float) -> float:
    return LEFT + evaluation / 100 * (WIDTH - LEFT - RIGHT)


def _y(share: float) -> float:
    return HEIGHT - BOTTOM - share / 100 * (HEIGHT - BOTTOM - TOP)


def _axes() -> str:
    parts = []
    for tick in range(0, 101, 20):
        x, y = _x(tick), _y(tick)
        parts.append(f'<line class="grid" x1="{LEFT}" x2="{WIDTH - RIGHT}" y1="{y}" y2="{y}"/>')
        parts.append(f'<text x="{LEFT - 8}" y="{y + 4}" text-anchor="end">{tick}</text>')
        parts.append(f'<text x="{x}" y="{HEIGHT - BOTTOM + 18}" text-anchor="middle">{tick}</text>')
    target = _y(TARGET)
    parts.append(
        f'<line class="grid" stroke-dasharray="2 3" x1="{LEFT}" x2="{WIDTH - RIGHT}" '
        f'y1="{target}" y2="{target}"/>'
    )
    middle = (LEFT + WIDTH - RIGHT) / 2
    parts.append(f'<text x="{middle}" y="{HEIGHT - 8}" text-anchor="middle">evaluations</text>')
    height = (TOP + HEIGHT - BOTTOM) / 2
    parts.append(
        f'<text transform="translate(14 {height}) rotate(-90)" text-anchor="middle">'
        "share of the true hypervolume, %</text>"
    )
    return "".join(parts)


def _band(mean: Sequence[float], error: Sequence[float]) -> str:
    upper = [(_x(i + 1), _y(min(m + 2 * e, 100))) for i, (m, e) in _numbered(mean, error)]
    lower = [(_x(i + 1), _y(m - 2 * e)) for i, (m, e) in _numbered(mean, error)]
    points = " ".join(f"{x:.1f},{y:.1f}" for x, y in [*upper, *reversed(lower)])
    return f'<polygon fill="{_colour(0)}" opacity="0.15" points="{points}"/>'


def _numbered(
    mean: Sequence[float], error: Sequence[float]
) -> list[tuple[int, tuple[float, float]]]:
    return list(enumerate(zip(mean, error, strict=True)))


def _short(name: str) -> str:
    return name.removeprefix("genetic ")


def _legend(shown: Sequence[tuple[str, Sequence[float]]]) -> list[str]:
    """Names in the order in which the curves end, each with its colour."""
    order = sorted(range(len(shown)), key=lambda i: -shown[i][1][-1])
    parts = []
    for place, index in enumerate(order):
        name, mean = shown[index]
        y = TOP + 8 + 21 * place
        kind = "curve off" if name.startswith("genetic ") else "curve"
        x = WIDTH - RIGHT + 12
        parts.append(
            f'<line class="{kind}" stroke="{_colour(index)}" x1="{x}" x2="{x + 22}" y1="{y}" '
            f'y2="{y}"/><text x="{x + 28}" y="{y + 4}">{escape(_short(name))} {mean[-1]:.0f}</text>'
        )
    return parts
