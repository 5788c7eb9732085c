"""What is scored and not timed: both arms answer the same requests, the baseline only once."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pytest

from engine.accounts import Accounts
from engine.drawn import Drawn
from engine.measure.paired import Timed
from engine.requests import Request
from engine.worker.conversation import Answer

REQUESTS = [Request.of(f"prompt {i}", 10 + i) for i in range(3)]


@dataclass
class Painter:
    """An arm whose pictures follow from the seed and its own shade."""

    shade: int
    pid: int = 0
    asked: list[int] = field(default_factory=list)
    awake: bool = False

    def generate(self, request: Request) -> Answer:
        assert self.awake, "a stopped arm was asked"
        self.asked.append(request.seed)
        images = np.full((1, 16, 16, 3), self.shade + request.seed, np.uint8)
        return Answer(images, 1.0)

    def pause(self) -> None:
        self.awake = False

    def resume(self) -> None:
        self.awake = True


def shades(timed: list[Timed], arm: str) -> list[int]:
    return [int(t.images[0, 0, 0, 0]) for t in timed if t.arm == arm]


def test_both_arms_draw_the_same_requests_and_no_time_is_told_of_it(tmp_path: Path) -> None:
    base, candidate = Painter(0), Painter(100)
    found = Drawn(tmp_path, REQUESTS, Accounts()).both(base, candidate, 4)
    assert shades(found, "base") == [10, 11, 12]
    assert shades(found, "candidate") == [110, 111, 112]
    assert not any(t.clocked for t in found)
    places = {(t.arm, t.round, t.position) for t in found}
    assert len(places) == 6
    assert {t.round for t in found} == {4, 5}
    assert not base.awake, "the baseline must rest while others are timed"


def test_the_baseline_draws_once_also_for_other_processes(tmp_path: Path) -> None:
    base = Painter(0)
    drawn = Drawn(tmp_path, REQUESTS, Accounts())
    first = drawn.both(base, Painter(50), 4)
    drawn.both(base, Painter(60), 1)
    other = Drawn(tmp_path, REQUESTS, Accounts()).both(base, Painter(70), 4)
    assert base.asked == [10, 11, 12]
    assert shades(other, "base") == shades(first, "base")
    assert [t.seconds for t in other if t.arm == "base"] == [1.0] * 3


@pytest.mark.parametrize("damage", ["other requests", "a picture is gone"])
def test_stored_pictures_of_something_else_are_drawn_again(tmp_path: Path, damage: str) -> None:
    base = Painter(0)
    Drawn(tmp_path, REQUESTS, Accounts()).both(base, Painter(50), 4)
    requests = REQUESTS
    if damage == "other requests":
        requests = [*REQUESTS[:2], Request.of("prompt 2", 99)]
    else:
        (tmp_path / "001-0.png").unlink()
    found = Drawn(tmp_path, requests, Accounts()).both(base, Painter(50), 4)
    assert shades(found, "base") == [r.seed for r in requests]


def test_no_further_requests_cost_nothing(tmp_path: Path) -> None:
    base, candidate = Painter(0), Painter(1)
    assert Drawn(tmp_path, [], Accounts()).both(base, candidate, 4) == []
    assert base.asked == candidate.asked == []
