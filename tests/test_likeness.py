"""What the pictures of two programs say of each other."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from engine.honesty import Declared, suspicions
from engine.likeness import measured


def plain(level: int) -> NDArray[np.uint8]:
    return np.full((8, 8, 3), level, np.uint8)


PROMPTS = ["a ring", "a triangle", "a square"]


def test_one_picture_for_two_prompts_is_suspect_where_the_baseline_tells_them_apart() -> None:
    told = measured(
        None, [plain(250), plain(250), plain(9)], [plain(9), plain(99), plain(1)], PROMPTS
    )
    assert told.distances == (0.0, "a ring", "a triangle")
    (found,) = suspicions(None, None, Declared(), told)
    assert found.code == "D3"


def test_pictures_that_the_baseline_leaves_blank_too_are_no_cheat() -> None:
    blank = [plain(250), plain(250), plain(9)]
    told = measured(None, blank, blank, PROMPTS)
    assert told.distances == (241.0, "a ring", "a square")
    assert suspicions(None, None, Declared(), told) == ()


def test_pictures_that_the_baseline_hardly_tells_apart_are_no_cheat() -> None:
    told = measured(
        None, [plain(250), plain(250), plain(9)], [plain(250), plain(248), plain(9)], PROMPTS
    )
    assert told.distances == (241.0, "a ring", "a square")
    assert suspicions(None, None, Declared(), told) == ()


def test_where_the_baseline_tells_nothing_apart_nothing_is_said() -> None:
    blank = [plain(250)] * 3
    assert measured(None, blank, blank, PROMPTS).distances is None
