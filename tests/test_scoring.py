"""Timed requests to samples: what is scored, and what random weights leave out."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from engine.measure.paired import Timed
from engine.requests import Request
from engine.schema import Config
from engine.scoring import Scoring


@pytest.mark.parametrize("measured", [True, False])
def test_random_weights_are_neither_scored_nor_checked_nor_compared(
    composed: Callable[..., Config], tmp_path: Path, measured: bool
) -> None:
    request = Request.of("a red circle on a white background", 1)
    image = np.zeros((1, 64, 64, 3), np.uint8)
    timed = [Timed(arm, 0, i, request, 0.1, image) for i, arm in enumerate(("base", "candidate"))]
    scoring = Scoring(composed().model, miniature=True, measured=measured)
    found = scoring.samples(timed, tmp_path)
    assert [s.score is not None for s in found] == [measured, measured]
    assert [s.correct is not None for s in found] == [measured, measured]
    assert [s.ssim is not None for s in found] == [False, measured]
    assert [s.psnr is not None for s in found] == [False, measured]
    assert all((tmp_path / str(s.image)).is_file() for s in found)


def test_a_class_is_scored_as_a_sentence_and_a_caption_as_it_is(
    composed: Callable[..., Config],
) -> None:
    published, mini, text = (
        composed(f"model={name}").model for name in ("dit", "dit-mini", "sd15")
    )
    assert Scoring(published, miniature=False).text("zebra") == "A photo of a zebra."
    assert Scoring(mini, miniature=True).text("a red ring on white") == "a red ring on white"
    assert Scoring(text, miniature=False).text("a cat") == "a cat"
