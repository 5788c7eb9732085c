"""What ships: a plain pipeline that draws, a CLIP that sees damage, a card that tells the truth."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import pytest

from engine.measure.quality import ClipScorer
from engine.minis import card, judge, scenes
from engine.minis.checker import check
from engine.minis.train import CHECKPOINTS

FOLDER = CHECKPOINTS / "sd-mini"


@pytest.fixture(scope="module")
def scorer() -> ClipScorer:
    return ClipScorer(CHECKPOINTS / "clip")


@pytest.fixture(scope="module")
def clip(scorer: ClipScorer) -> dict[str, Any]:
    return card.scores_of_clip(scorer)


@pytest.fixture(scope="module")
def stated() -> dict[str, Any]:
    found: dict[str, Any] = json.loads((FOLDER / "card.json").read_text(encoding="utf-8"))
    return found


def test_each_kind_of_wrong_caption_costs_at_least_a_tenth(clip: dict[str, Any]) -> None:
    costs = clip["costs"]
    assert {kind: cost for kind, cost in costs.items() if cost < 0.1} == {}


def test_the_score_falls_with_every_step_of_noise_and_with_strong_blur(
    clip: dict[str, Any],
) -> None:
    noise = [cost for _, cost in clip["ladder"]["noise"]]
    assert noise == sorted(noise)
    assert noise[0] > 0
    assert clip["ladder"]["blur"][-1][1] > 0.1


def test_the_card_states_what_its_command_measures(
    clip: dict[str, Any], stated: dict[str, Any]
) -> None:
    assert stated["clip"]["matched"] == pytest.approx(clip["matched"], rel=0.01)
    assert stated["clip"]["costs"] == pytest.approx(clip["costs"], abs=0.01)


def test_it_opens_with_plain_diffusers_and_draws_what_the_card_promises(
    stated: dict[str, Any],
) -> None:
    import torch
    from diffusers import StableDiffusionPipeline

    pipeline: Any = StableDiffusionPipeline.from_pretrained(FOLDER, dtype=torch.float32)
    pipeline.set_progress_bar_config(disable=True)
    captions = scenes.evaluation_captions(40, np.random.default_rng(7))
    images = judge.draw(pipeline, captions, 20)
    right = np.mean([check(i, c).ok for i, c in zip(images, captions, strict=True)])
    # 40 images of 20 steps against 300 of 50: three standard errors of a share.
    promised = stated["pipeline"]["accuracy"]
    assert right > promised - 3 * (0.25 / 40) ** 0.5


def test_auc_counts_pairs_in_the_right_order() -> None:
    assert card.auc([3.0, 2.0, 1.0], [True, True, False]) == 1.0
    assert card.auc([1.0, 2.0], [True, False]) == 0.0
    assert card.auc([1.0, 1.0], [True, False]) == 0.5
    assert card.auc([1.0, 2.0], [True, True]) is None
