"""What is asked of a program: cases (prompt and what belongs to it), shapes, and requests of both.

A study's own prompts come from a file: one prompt a line, or JSON lines with the fields of
:class:`Case`. The file is split once into a part for the search and one for acceptance, which
share no prompt.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from engine.errors import UsageError
from engine.strategy import nearest

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

FIELDS = ("prompt", "negative_prompt", "seed", "image")
SEARCHED = 0.4
"""Share of a user's prompts that a search may see; the rest is kept for acceptance."""
FEWEST = 4
"""Prompts below which a file cannot be split into two parts of two."""


@dataclass(frozen=True)
class Case:
    """One prompt with what the user fixed for it. ``image`` is the path of an init or control
    image; without a ``seed`` each measurement draws its own."""

    prompt: str
    negative_prompt: str | None = None
    seed: int | None = None
    image: str | None = None


@dataclass(frozen=True)
class Shape:
    """Size of the images in pixels and how many are asked for at once; ``weight`` is its share of
    the requests relative to the other shapes'."""

    height: int
    width: int
    batch: int = 1
    weight: float = 1.0

    @property
    def name(self) -> str:
        size = f"{self.height}x{self.width}"
        return size if self.batch == 1 else f"{self.batch} of {size}"


@dataclass(frozen=True)
class Request:
    """One call of a program: as many cases as the shape's batch, one seed. The images of a batch
    have the seeds ``seed``, ``seed + 1`` and so on."""

    cases: tuple[Case, ...]
    seed: int
    shape: Shape | None = None
    """None asks for the program's own size, one image."""

    @classmethod
    def of(cls, prompt: str, seed: int) -> Request:
        """One image of the program's own size."""
        return cls((Case(prompt),), seed)

    @property
    def prompts(self) -> list[str]:
        return [case.prompt for case in self.cases]

    def options(self) -> dict[str, Any]:
        """Keywords of the program's ``generate``, as far as the request sets them. Images stay
        out: they travel as pixels."""
        single = len(self.cases) == 1
        found: dict[str, Any] = {"prompt": self.prompts[0] if single else self.prompts}
        negatives = [case.negative_prompt for case in self.cases]
        if any(text is not None for text in negatives):
            texts = [text or "" for text in negatives]
            found["negative_prompt"] = texts[0] if single else texts
        if self.shape is not None:
            found |= {"height": self.shape.height, "width": self.shape.width}
        return found

    def pictures(self) -> list[NDArray[np.uint8]]:
        """The init or control images as pixels (height x width x 3), one a case; empty if none."""
        import numpy as np
        from PIL import Image

        paths = [case.image for case in self.cases if case.image is not None]
        if len(paths) not in (0, len(self.cases)):
            raise UsageError("data: either every case has an image or none has")
        return [np.asarray(Image.open(path).convert("RGB"), np.uint8) for path in paths]


def turns(shapes: Sequence[Shape], count: int, first: int = 0) -> list[Shape]:
    """The shapes of ``count`` requests beginning with number ``first``: at every moment each has
    had its share of the requests, as nearly as whole numbers allow, so that a short measurement
    sees the whole mix."""
    whole = sum(shape.weight for shape in shapes)
    given = [0] * len(shapes)
    found: list[Shape] = []
    for number in range(first + count):
        due = [(number + 1) * s.weight / whole - g for s, g in zip(shapes, given, strict=True)]
        index = max(range(len(shapes)), key=lambda i: due[i])
        given[index] += 1
        found.append(shapes[index])
    return found[first:]


def read_cases(path: Path) -> list[Case]:
    """The cases of a file: JSON lines with the fields of :class:`Case`, or one prompt a line.

    Relative paths of images start at the file's folder. Raises UsageError that names the line.
    """
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise UsageError(
            f"data={path} cannot be read ({error}); type data=FILE with one prompt a line, or "
            'JSON lines such as {"prompt": "a red circle", "seed": 7}'
        ) from None
    cases = [_case(text, path, number) for number, text in enumerate(lines, 1) if text.strip()]
    unique = list(dict.fromkeys(cases))
    if len({case.prompt for case in unique}) < FEWEST:
        raise UsageError(
            f"data={path} has {len({case.prompt for case in unique})} different prompts; at least "
            f"{FEWEST} are needed, two for the search and two for acceptance"
        )
    return unique


def _case(text: str, path: Path, number: int) -> Case:
    if not text.lstrip().startswith("{"):
        return Case(text.strip())
    where = f"data={path}, line {number}"
    try:
        row = json.loads(text)
    except json.JSONDecodeError as error:
        raise UsageError(f"{where} is no JSON object ({error.msg})") from None
    for name in row:
        if name not in FIELDS:
            raise UsageError(f"{where} has a field {name!r}{nearest(name, FIELDS)}")
    kinds = {"prompt": str, "negative_prompt": str, "seed": int, "image": str}
    for name, value in row.items():
        if value is not None and (not isinstance(value, kinds[name]) or isinstance(value, bool)):
            raise UsageError(f"{where}: {name} is {value!r}; it takes {_words(kinds[name])}")
    if not (row.get("prompt") or "").strip():
        raise UsageError(f'{where} has no prompt; write {{"prompt": "..."}}')
    if row.get("seed") is not None and not 0 <= row["seed"] < 2**31:
        raise UsageError(f"{where}: seed is {row['seed']}; it takes 0 to {2**31 - 1}")
    if row.get("image") is not None:
        picture = (path.parent / row["image"]).resolve()
        if not picture.is_file():
            raise UsageError(f"{where}: there is no image {picture}")
        row["image"] = str(picture)
    return Case(**row)


def _words(kind: type) -> str:
    return "a whole number" if kind is int else "a text"


def split(cases: Sequence[Case]) -> dict[str, list[Case]]:
    """Search and acceptance parts that share no prompt, chosen by the prompts alone, so that a
    file that grows at its end keeps most of its old split."""
    import hashlib

    def place(case: Case) -> str:
        return hashlib.sha256(case.prompt.encode()).hexdigest()

    prompts = sorted({case.prompt for case in cases}, key=lambda p: place(Case(p)))
    count = min(max(2, round(SEARCHED * len(prompts))), len(prompts) - 2)
    searched = set(prompts[:count])
    return {
        "search": [case for case in cases if case.prompt in searched],
        "acceptance": [case for case in cases if case.prompt not in searched],
    }


def shapes_of(rows: Sequence[Mapping[str, Any]], height: int, width: int) -> tuple[Shape, ...]:
    """The shapes of ``workload.shapes``; what a row leaves out is the model's own size, a batch of
    1 and a weight of 1. Raises UsageError for what is no shape."""
    found = []
    for number, row in enumerate(rows):
        where = f"workload.shapes[{number}]"
        if not isinstance(row, Mapping):
            raise UsageError(f"{where} is {row!r}; write {{height: 512, width: 512, batch: 1}}")
        names = ("height", "width", "batch", "weight")
        for name, value in row.items():
            if name not in names:
                raise UsageError(f"{where} has a key {name!r}{nearest(str(name), names)}")
            whole = name != "weight"
            number_like = isinstance(value, int if whole else int | float)
            if isinstance(value, bool) or not number_like or value <= 0:
                kind = "a whole number" if whole else "a number"
                raise UsageError(f"{where}.{name} is {value!r}; it takes {kind} above 0")
        shape = Shape(**({"height": height, "width": width} | dict(row)))
        if shape.height % 8 or shape.width % 8 or shape.batch > 64:
            raise UsageError(
                f"{where} is {shape.name}; sides must be multiples of 8, a batch at most 64"
            )
        found.append(shape)
    return tuple(found)
