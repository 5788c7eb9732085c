"""Captions: validation and test share none, whatever they are taken from."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from engine.asked import Asked
from engine.diffbench import captions
from engine.errors import UsageError
from engine.inputs import Inputs
from engine.schema import Config


def _coco(path: Path, rows: list[dict[str, Any]]) -> Path:
    path.write_text(json.dumps({"images": [], "annotations": rows}), encoding="utf-8")
    return path


def _annotations(images: int) -> list[dict[str, Any]]:
    """Three captions an image, as COCO has five."""
    return [
        {"image_id": image, "id": 10 * image + n, "caption": f" a  photo {n} of thing {image}\n"}
        for image in range(images)
        for n in (2, 0, 1)
    ]


def test_one_caption_an_image_the_first_by_its_number(tmp_path: Path) -> None:
    found = captions.from_coco(_coco(tmp_path / "c.json", _annotations(8)))
    assert sorted(found) == [f"a photo 0 of thing {image}" for image in range(8)]


def test_the_order_does_not_hang_on_the_file_and_a_longer_list_begins_with_the_shorter(
    tmp_path: Path,
) -> None:
    rows = _annotations(40)
    whole = captions.from_coco(_coco(tmp_path / "a.json", rows))
    assert captions.from_coco(_coco(tmp_path / "b.json", rows[::-1])) == whole
    assert captions.from_coco(tmp_path / "a.json", 7) == whole[:7]
    assert whole != sorted(whole)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("no json", "cannot be read as JSON"),
        ("[]", "has 0 captions"),
        ('{"annotations": [{"image_id": 1, "caption": "a"}]}', 'without "image_id", "id"'),
        ('{"annotations": [{"image_id": 1, "id": 1, "caption": "a"}]}', "at least 4 images"),
    ],
)
def test_what_is_no_file_of_captions_is_refused_in_one_line(
    text: str, message: str, tmp_path: Path
) -> None:
    file = tmp_path / "captions.json"
    file.write_text(text, encoding="utf-8")
    with pytest.raises(UsageError, match=r"bench\.captions=") as error:
        captions.from_coco(file)
    assert message in str(error.value)
    assert "\n" not in str(error.value)


def test_a_missing_file_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"captions_val2014\.json"):
        captions.from_coco(tmp_path / "absent.json")


def _parts(config: Config, folder: Path, count: int) -> dict[str, set[str]]:
    asked = Asked(config, Inputs(config.model, folder))
    return {
        part: {case.prompt for case in asked.cases(count, theirs)}
        for part, theirs in captions.PARTS.items()
    }


def test_coco_captions_become_two_parts_that_share_none(
    tmp_path: Path, composed: Callable[..., Config]
) -> None:
    rows = _annotations(120)
    rows[0]["caption"] = "{a caption with a brace}"
    data = captions.as_data(_coco(tmp_path / "c.json", rows), tmp_path)
    assert captions.as_data(tmp_path / "c.json", tmp_path) == data
    found = _parts(composed("model=sd15", f"data='{data}'"), tmp_path, 36)
    assert len(found["validation"]) == len(found["test"]) == 36
    assert not found["validation"] & found["test"]


@pytest.mark.parametrize("model", ["sd-mini", "sd15", "dit"])
def test_captions_that_ship_are_in_two_parts_that_share_none(
    model: str, tmp_path: Path, composed: Callable[..., Config]
) -> None:
    found = _parts(composed(f"model={model}"), tmp_path, 36)
    assert not found["validation"] & found["test"]
    assert len(found["test"]) == 36
    assert len(found["validation"]) >= 24
