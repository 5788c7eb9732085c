"""Inline SVG: frames with axes, drawn for a size and styled by the page's CSS classes.

Every plot is drawn for a size, so that its lettering stays readable on a phone: the page carries
a wide and a narrow drawing and shows one of them. Drawings escape their own text.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from html import escape
from typing import Any

WIDE = (760, 420)
NARROW = (340, 330)
Size = tuple[int, int]
Box = tuple[float, float, float, float]
"""Left, top, right, bottom."""


def ticks(low: float, high: float, count: int = 6) -> list[float]:
    """Round numbers (steps of 1, 2, 2.5 or 5) from at most ``low`` to at least ``high``."""
    span = max(high - low, 1e-9)
    power: float = 10.0 ** math.floor(math.log10(span / count))
    step = next(m * power for m in (1, 2, 2.5, 5, 10) if span / (m * power) <= count)
    first, last = math.floor(low / step + 1e-9), math.ceil(high / step - 1e-9)
    return [round(i * step, 10) for i in range(first, last + 1)]


@dataclass(frozen=True)
class Frame:
    """The plotting area: data ranges (from the ticks) on a drawing of a size."""

    size: Size
    xs: Sequence[float]
    ys: Sequence[float]
    left: int = 46
    right: int = 16
    top: int = 16
    bottom: int = 44

    def x(self, value: float) -> float:
        share = (value - self.xs[0]) / (self.xs[-1] - self.xs[0])
        return round(self.left + share * (self.size[0] - self.left - self.right), 1)

    def y(self, value: float) -> float:
        share = (value - self.ys[0]) / (self.ys[-1] - self.ys[0])
        base = self.size[1] - self.bottom
        return round(base - share * (base - self.top), 1)

    def axes(self, x_label: str, y_label: str) -> str:
        """Grid, tick labels and axis names."""
        width, height = self.size
        low, high = self.y(self.ys[0]), self.y(self.ys[-1])
        parts = []
        for tick in self.xs:
            x = self.x(tick)
            parts.append(f'<line class="grid" x1="{x}" x2="{x}" y1="{low}" y2="{high}"/>')
            parts.append(f'<text x="{x}" y="{low + 17}" text-anchor="middle">{tick:g}</text>')
        for tick in self.ys:
            y = self.y(tick)
            parts.append(
                f'<line class="grid" x1="{self.left}" x2="{width - self.right}" y1="{y}" y2="{y}"/>'
            )
            parts.append(f'<text x="{self.left - 7}" y="{y + 4}" text-anchor="end">{tick:g}</text>')
        middle = (self.left + width - self.right) / 2
        parts.append(
            f'<text class="axis" x="{middle}" y="{height - 6}" text-anchor="middle">'
            f"{escape(x_label)}</text>"
        )
        parts.append(
            f'<text class="axis" transform="translate(12 {(low + high) / 2}) rotate(-90)" '
            f'text-anchor="middle">{escape(y_label)}</text>'
        )
        return "".join(parts)


def both(draw: Callable[[Size], str]) -> str:
    """The wide and the narrow drawing; CSS shows the one that fits."""
    return f'<div class="plot wide">{draw(WIDE)}</div><div class="plot narrow">{draw(NARROW)}</div>'


def svg(size: Size, title: str, body: str) -> str:
    return (
        f'<svg viewBox="0 0 {size[0]} {size[1]}" role="img" aria-label="{escape(title)}">'
        f"<title>{escape(title)}</title>{body}</svg>"
    )


def markup(drawing: str) -> Any:
    """A drawing as something that a template does not escape again."""
    from markupsafe import Markup

    return Markup(drawing)
