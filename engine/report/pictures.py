"""Baseline and candidate side by side: pairs of samples, and their embedded thumbnails."""

from __future__ import annotations

import base64
import io
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from engine.results import Sample

WORST = 4
"""How many of the largest score drops are shown first."""
SHOWN = 8
"""How many further pairs are shown before the rest is folded away."""
LARGEST = 256
"""Longest side of a thumbnail in pixels."""
PIXELATED = 128
"""Pictures up to this size are embedded as they are and enlarged with visible pixels."""


@dataclass(frozen=True)
class Pair:
    """The two arms' pictures of one prompt and seed."""

    base: Sample
    candidate: Sample

    @property
    def drop(self) -> float | None:
        """The baseline's score minus the candidate's; None without both scores."""
        if self.base.score is None or self.candidate.score is None:
            return None
        return self.base.score - self.candidate.score

    def harm(self, fidelity: bool) -> float | None:
        """How much worse the candidate is: by the score, or by its distance from the baseline."""
        if not fidelity:
            return self.drop
        return None if self.candidate.ssim is None else 1 - self.candidate.ssim


@dataclass(frozen=True)
class Comparison:
    """The pairs of a point, in three parts; none of them twice."""

    worst: tuple[Pair, ...]
    shown: tuple[Pair, ...]
    rest: tuple[Pair, ...]


def pairs(samples: Sequence[Sample]) -> tuple[Pair, ...]:
    """Samples of the same prompt, seed, size and place in the batch from both arms, in the order
    of the candidate's."""
    base = {_request(s): s for s in samples if s.arm == "base"}
    candidate = {_request(s): s for s in samples if s.arm == "candidate"}
    return tuple(Pair(base[key], own) for key, own in candidate.items() if key in base)


def _request(sample: Sample) -> tuple[object, ...]:
    size = (sample.height, sample.width, sample.batch, sample.index)
    return (sample.prompt, sample.seed, *size)


def compare(samples: Sequence[Sample], *, fidelity: bool = False) -> Comparison:
    """The worst pairs first, then the others in the order of measurement.

    The worst are the largest drops of the score or, where ``fidelity`` is what counts, the
    pictures that are least like the baseline's.
    """
    every = pairs(samples)
    harms = {i: h for i, pair in enumerate(every) if (h := pair.harm(fidelity)) is not None}
    worst = sorted(harms, key=lambda i: -harms[i])[:WORST]
    others = [pair for i, pair in enumerate(every) if i not in worst]
    return Comparison(tuple(every[i] for i in worst), tuple(others[:SHOWN]), tuple(others[SHOWN:]))


@dataclass(frozen=True)
class Thumbnail:
    """One embedded picture; ``name`` is its id in the page."""

    name: str
    uri: str
    width: int
    height: int
    pixelated: bool


@dataclass
class Gallery:
    """Collects thumbnails; identical ones are embedded once and referred to by name.

    Pictures must lie under ``root``: a report never shows files from elsewhere.
    """

    root: Path
    thumbnails: dict[str, Thumbnail] = field(default_factory=dict)

    def add(self, path: Path) -> Thumbnail | None:
        """The thumbnail of a picture, or None if there is no readable picture."""
        from PIL import Image, UnidentifiedImageError

        path = path.resolve()
        if not path.is_relative_to(self.root.resolve()):
            return None
        try:
            with Image.open(path) as opened:
                picture = opened.convert("RGB")
        except (OSError, UnidentifiedImageError, Image.DecompressionBombError, ValueError):
            return None
        pixelated = max(picture.size) <= PIXELATED
        stream = io.BytesIO()
        if pixelated:
            picture.save(stream, "PNG", optimize=True)
        else:
            picture.thumbnail((LARGEST, LARGEST))
            picture.save(stream, "WEBP", quality=82)
        kind = "png" if pixelated else "webp"
        uri = f"data:image/{kind};base64,{base64.b64encode(stream.getvalue()).decode()}"
        if uri not in self.thumbnails:
            name = f"picture-{len(self.thumbnails)}"
            self.thumbnails[uri] = Thumbnail(name, uri, *picture.size, pixelated)
        return self.thumbnails[uri]
