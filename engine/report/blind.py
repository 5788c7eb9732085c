"""A page on which people vote for pictures without knowing which program drew them.

Which side is the candidate stands in the page only as a scrambled key, so that a glance at the
page, its file or the saved votes tells nothing. It is no secret from somebody who wants to know.
"""

from __future__ import annotations

import base64
import hashlib
import io
import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from engine.errors import UsageError
from engine.report import pictures, text
from engine.report.material import Material, recommended
from engine.report.page import environment
from engine.results import Result

FORMAT = 1
"""Version of the page's data and of the saved votes."""
LARGEST = 1024
"""Longest side of an embedded picture in pixels."""
_MASK = 0xFFFFFFFF


@dataclass(frozen=True)
class Ballot:
    """Pairs in the order of the page, with the side on which the candidate is."""

    page: str
    """Names this page, the same each time it is made from the same pictures."""
    study: str
    trial: int
    pairs: tuple[pictures.Pair, ...]
    candidate_left: tuple[bool, ...]

    @property
    def key(self) -> str:
        return scrambled(self.candidate_left, self.page)


def choose(material: Material, number: int | None) -> Result:
    """The trial to vote on: the one asked for, else the recommended or else the fastest point.

    Raises UsageError when it does not exist or has no pairs of stored pictures.
    """
    able = [t.trial for t in material.trials if pairs(material, t)]
    if not able:
        raise UsageError(f"no trial in {material.folder} has stored pictures of both programs")
    if number is None:
        point = recommended(material.points) or next(iter(material.points), None)
        if point is None:
            raise UsageError(
                f"study {material.folder.name} has no front; name a trial with --trial N "
                f"({_some(able)})"
            )
        number = point.trial
    result = material.trial(number)
    if result is None or number not in able:
        what = "there is no trial" if result is None else "no pairs of pictures are stored of trial"
        raise UsageError(
            f"{what} {number} in {material.folder}; pictures are stored of {_some(able)}"
        )
    return result


def _some(numbers: Sequence[int]) -> str:
    shown = ", ".join(map(str, numbers[:20]))
    return shown + (f" and {len(numbers) - 20} more" if len(numbers) > 20 else "")


def pairs(material: Material, result: Result) -> list[pictures.Pair]:
    """The pairs of a trial whose two pictures are both stored."""
    folder = material.folders[result.trial]
    return [
        pair
        for pair in pictures.pairs(result.samples)
        if all(s.image and (folder / s.image).is_file() for s in (pair.base, pair.candidate))
    ]


def ballot(material: Material, result: Result) -> Ballot:
    """The pairs in random order, each with the candidate on a random side.

    The order follows from the pictures, so that the same page can be made again and votes that a
    browser kept still fit it.
    """
    found = pairs(material, result)
    study = str(material.study.get("study") or material.folder.name)
    digest = hashlib.sha256(f"{FORMAT} {study} {result.trial} {result.key}".encode())
    folder = material.folders[result.trial]
    for pair in found:
        for sample in (pair.base, pair.candidate):
            digest.update((folder / str(sample.image)).read_bytes())
    page = digest.hexdigest()[:16]
    rng = random.Random(page)
    rng.shuffle(found)
    # As many on each side as possible: a habit of one side then cannot look like a preference.
    sides = [i % 2 == 0 for i in range(len(found))]
    rng.shuffle(sides)
    return Ballot(page, study, result.trial, tuple(found), tuple(sides))


def scrambled(sides: Sequence[bool], page: str) -> str:
    """Sides as text that tells nothing at a glance; ``unscrambled`` and the page's script read it.

    A byte for each pair: bit 0 is the side, the other bits are filling, all of it combined with a
    stream of xorshift32 that starts from the page's name.
    """
    filling = random.Random(f"{page} filling")
    stream = _stream(page, len(sides))
    coded = [
        ((filling.getrandbits(7) << 1) | side) ^ m for side, m in zip(sides, stream, strict=True)
    ]
    return base64.b64encode(bytes(coded)).decode()


def unscrambled(key: str, page: str) -> tuple[bool, ...]:
    """The sides of a key; raises ValueError when it is damaged."""
    coded = base64.b64decode(key, validate=True)
    return tuple(bool((c ^ m) & 1) for c, m in zip(coded, _stream(page, len(coded)), strict=True))


def _stream(page: str, count: int) -> list[int]:
    state = int(page[:8], 16) or 1
    found = []
    for _ in range(count):
        state ^= (state << 13) & _MASK
        state ^= state >> 17
        state ^= (state << 5) & _MASK
        found.append((state >> 11) & 0xFF)
    return found


def render(material: Material, result: Result) -> str:
    """The page's text, with its pictures and its script inside."""
    drawn = ballot(material, result)
    folder = material.folders[result.trial]
    rows = []
    for pair, left in zip(drawn.pairs, drawn.candidate_left, strict=True):
        base, own = (
            _embedded(folder / str(s.image), material.folder) for s in (pair.base, pair.candidate)
        )
        sides = (own, base) if left else (base, own)
        rows.append({"caption": pair.candidate.prompt, "left": sides[0], "right": sides[1]})
    data: Mapping[str, Any] = {
        "format": FORMAT,
        "page": drawn.page,
        "study": drawn.study,
        "trial": drawn.trial,
        "key": drawn.key,
        "pairs": rows,
    }
    made = environment()
    script = (Path(__file__).parent / "templates" / "blind.js").read_text(encoding="utf-8")
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    model = (material.study.get("model") or {}).get("name", "model")
    baseline = (material.study.get("baseline") or {}).get("label", "the baseline")
    view = {
        "title": f"{model}: which picture is better?",
        "count": len(rows),
        "data": data,
        "script": script,
        "digest": digest,
        "baseline": baseline,
        "candidate": text.describe(result.genome),
    }
    return made.get_template("blind.html.jinja").render(view)


def _embedded(path: Path, root: Path) -> str:
    """A picture as a data URI: encoded anew, so that neither arm's file betrays it."""
    from PIL import Image, UnidentifiedImageError

    if not path.resolve().is_relative_to(root.resolve()):
        raise UsageError(f"{path} lies outside {root}; a study's pictures must lie in its folder")
    try:
        with Image.open(path) as opened:
            picture = opened.convert("RGB")
    except (OSError, UnidentifiedImageError, Image.DecompressionBombError, ValueError) as error:
        raise UsageError(f"{path} is no readable picture ({error}); measure again") from None
    stream = io.BytesIO()
    if max(picture.size) <= pictures.PIXELATED:
        kind = "png"
        picture.save(stream, "PNG", optimize=True)
    else:
        kind = "webp"
        picture.thumbnail((LARGEST, LARGEST))
        picture.save(stream, "WEBP", quality=95)
    return f"data:image/{kind};base64,{base64.b64encode(stream.getvalue()).decode()}"
