"""The captions on which quality is judged, in two parts that share none.

*Validation* is what an agent may measure on and what the labeller searches with; *test* belongs to
the scorer and to the confirmation of labels. They are the parts ``search`` and ``acceptance`` that
every study has (:mod:`engine.models`, :mod:`engine.requests`):

- miniatures: scene captions; those of the test part were held out from training too;
- real models: our own set, ``prompts/sets/general.txt``, of DiT the class names in ``classes.txt``;
- a local copy of COCO's captions, which do not ship with this project (``bench.captions=FILE``):
  one caption an image, so that no image stands in both parts.
"""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

from engine.errors import UsageError
from engine.requests import FEWEST

PARTS = {"validation": "search", "test": "acceptance"}
"""A part of the benchmark to that of a study."""
MOST = 2000
"""Captions that are taken of a file; COCO's hold many thousands, and a task needs 36."""


def from_coco(file: Path, most: int = MOST) -> list[str]:
    """Captions of a file in COCO's format, such as ``captions_val2014.json``: the first of each
    image by its number, in an order that hangs on the image's number alone, none twice.

    Raises UsageError in one line for a file that has no such captions.
    """
    where = f"bench.captions={file}"
    try:
        data = json.loads(file.expanduser().read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise UsageError(
            f"{where} cannot be read as JSON ({error}); type the path of COCO's "
            "annotations/captions_val2014.json"
        ) from None
    rows = data.get("annotations") if isinstance(data, dict) else None
    first: dict[int, tuple[int, str]] = {}
    for row in rows if isinstance(rows, list) else []:
        image, number, caption = _row(row, where)
        if caption and number < first.get(image, (number + 1, ""))[0]:
            first[image] = (number, caption)
    order = sorted(first, key=lambda image: hashlib.sha256(str(image).encode()).hexdigest())
    found = list(dict.fromkeys(first[image][1] for image in order))[:most]
    if len(found) < FEWEST:
        raise UsageError(
            f"{where} has {len(found)} captions; it takes COCO's format, "
            '{"annotations": [{"image_id": 1, "id": 2, "caption": "..."}]}, with at least '
            f"{FEWEST} images"
        )
    return found


def _row(row: Any, where: str) -> tuple[int, int, str]:
    """Image, number and caption on one line."""
    try:
        return int(row["image_id"]), int(row["id"]), " ".join(str(row["caption"]).split())
    except (KeyError, TypeError, ValueError):
        raise UsageError(
            f'{where} has an annotation {str(row)[:80]!r} without "image_id", "id" or "caption"'
        ) from None


def as_data(file: Path, folder: Path) -> Path:
    """COCO's captions as a file that ``data=`` takes, written to ``folder``, named
    after what it holds.

    A study splits it by the captions' hashes, so that its parts are those of this module.
    """
    lines = "".join(f"{json.dumps({'prompt': text})}\n" for text in from_coco(file))
    path = folder / f"captions-{hashlib.sha256(lines.encode()).hexdigest()[:12]}.jsonl"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(lines, encoding="utf-8")
    return path
