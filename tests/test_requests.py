"""Cases from a user's file, their split, and the shapes of a workload."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from engine.errors import UsageError
from engine.requests import Case, Request, Shape, read_cases, shapes_of, split, turns


def written(folder: Path, *lines: str) -> Path:
    path = folder / "prompts.txt"
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return path


def test_plain_lines_are_prompts_and_json_lines_say_more(tmp_path: Path) -> None:
    Image.new("RGB", (8, 8)).save(tmp_path / "start.png")
    row = {"prompt": "two", "negative_prompt": "blurry", "seed": 7, "image": "start.png"}
    path = written(tmp_path, "one", "", json.dumps(row), "three", "four")
    cases = read_cases(path)
    picture = str((tmp_path / "start.png").resolve())
    assert cases == [Case("one"), Case("two", "blurry", 7, picture), Case("three"), Case("four")]


def test_a_prompt_that_stands_twice_counts_once(tmp_path: Path) -> None:
    assert len(read_cases(written(tmp_path, "a", "b", "a", "c", "d"))) == 4


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ('{"promt": "x"}', "line 2 has a field 'promt'; did you mean prompt"),
        ('{"prompt": ""}', "line 2 has no prompt"),
        ('{"prompt": "x"', "line 2 is no JSON object"),
        ('{"prompt": "x", "seed": "7"}', "seed is '7'; it takes a whole number"),
        ('{"prompt": "x", "seed": -1}', "seed is -1"),
        ('{"prompt": "x", "image": "no.png"}', "there is no image"),
    ],
)
def test_a_wrong_line_is_named(tmp_path: Path, line: str, words: str) -> None:
    with pytest.raises(UsageError, match=words):
        read_cases(written(tmp_path, "a", line, "b", "c"))


def test_too_few_prompts_and_a_missing_file_are_refused(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="has 3 different prompts; at least 4"):
        read_cases(written(tmp_path, "a", "b", "c", "c"))
    with pytest.raises(UsageError, match="cannot be read"):
        read_cases(tmp_path / "none.txt")


@pytest.mark.parametrize("count", [4, 5, 10, 60])
def test_the_parts_share_no_prompt_and_both_have_two(count: int) -> None:
    cases = [Case(f"prompt {i}") for i in range(count)]
    # The same prompt with two seeds must not stand in both parts.
    cases += [Case(f"prompt {i}", seed=i) for i in range(count)]
    parts = split(cases)
    prompts = {name: {case.prompt for case in part} for name, part in parts.items()}
    assert not prompts["search"] & prompts["acceptance"]
    assert min(map(len, prompts.values())) >= 2
    assert sum(map(len, parts.values())) == 2 * count


def test_the_split_does_not_depend_on_the_order_of_the_file() -> None:
    cases = [Case(f"prompt {i}") for i in range(20)]
    ours, theirs = split(cases), split(cases[::-1])
    assert {c.prompt for c in ours["search"]} == {c.prompt for c in theirs["search"]}


def test_every_shape_has_its_share_at_every_moment() -> None:
    small, large = Shape(64, 64, weight=3), Shape(96, 64, batch=2)
    drawn = turns([small, large], 40)
    for count in range(1, 41):
        assert abs(Counter(drawn[:count])[small] - 0.75 * count) <= 1
    assert turns([small, large], 10, first=30) == drawn[30:]


def test_a_request_says_only_what_it_sets() -> None:
    assert Request.of("a", 3).options() == {"prompt": "a"}
    both = (Case("a", "x"), Case("b"))
    asked = Request(both, 3, Shape(96, 64, batch=2)).options()
    assert asked == {
        "prompt": ["a", "b"],
        "negative_prompt": ["x", ""],
        "height": 96,
        "width": 64,
    }


def test_a_requests_pictures_are_pixels_and_come_for_all_cases_or_none(tmp_path: Path) -> None:
    path = tmp_path / "a.png"
    Image.new("RGB", (8, 16), (1, 2, 3)).save(path)
    (pixels,) = Request((Case("a", image=str(path)),), 0).pictures()
    assert pixels.shape == (16, 8, 3)
    assert np.unique(pixels.reshape(-1, 3), axis=0).tolist() == [[1, 2, 3]]
    with pytest.raises(UsageError, match="every case has an image or none"):
        Request((Case("a", image=str(path)), Case("b")), 0).pictures()


@pytest.mark.parametrize(
    ("row", "words"),
    [
        ({"hight": 64}, "did you mean height"),
        ({"height": 64.5}, "takes a whole number above 0"),
        ({"weight": 0}, "takes a number above 0"),
        ({"height": 60}, "multiples of 8"),
        ({"batch": 100}, "a batch at most 64"),
        ("64x64", "write {height"),
    ],
)
def test_a_wrong_shape_is_refused(row: object, words: str) -> None:
    with pytest.raises(UsageError, match=words):
        shapes_of([row], 64, 64)  # type: ignore[list-item]


def test_what_a_shape_leaves_out_is_the_models_own() -> None:
    assert shapes_of([{"weight": 3}, {"batch": 4}], 64, 96) == (
        Shape(64, 96, 1, 3),
        Shape(64, 96, 4, 1),
    )
