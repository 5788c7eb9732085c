"""Every miniature that ships: its class opens it, it heeds its input, its card tells the truth."""

from __future__ import annotations

import json
import logging
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch

from engine.minis import cards, edges, folders, judge, pipelines, scenes
from engine.minis.pipelines import FAMILIES, NAMES
from engine.minis.train import CHECKPOINTS

SHIPPED = [name for name in NAMES if (CHECKPOINTS / name / "model_index.json").is_file()]
OTHERS = [name for name in SHIPPED if name != "sd-mini"]
needs_pixart = pytest.mark.skipif("pixart-mini" not in SHIPPED, reason="pixart-mini is not made")
needs_controlnet = pytest.mark.skipif(
    "sd-mini-controlnet" not in SHIPPED, reason="sd-mini-controlnet is not made"
)


def complaints(load: Callable[[], Any]) -> list[str]:
    """What diffusers and transformers say while they load; their loggers do not propagate."""
    found: list[str] = []
    handler = logging.Handler(logging.WARNING)
    handler.emit = lambda record: found.append(record.getMessage())  # type: ignore[method-assign]
    loggers = [logging.getLogger(name) for name in ("diffusers", "transformers")]
    for logger in loggers:
        logger.addHandler(handler)
    try:
        load()
    finally:
        for logger in loggers:
            logger.removeHandler(handler)
    return found


def training_of(name: str) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((CHECKPOINTS / name / "training.json").read_text("utf-8"))
    return found


@pytest.fixture(scope="module", params=OTHERS)
def shipped(request: pytest.FixtureRequest) -> tuple[str, Any]:
    return request.param, pipelines.open_pipeline(request.param, CHECKPOINTS / request.param)


def test_its_published_class_opens_the_folder_without_a_complaint(
    shipped: tuple[str, Any],
) -> None:
    name, pipeline = shipped
    assert type(pipeline).__name__ == FAMILIES[name].pipeline
    heard = complaints(lambda: pipelines.open_pipeline(name, CHECKPOINTS / name))
    # DiT's class wants whole numbers for keys, which JSON cannot write; it reads them all the same.
    assert [text for text in heard if "id2label" not in text] == []


def test_weights_without_a_place_would_be_complained_of() -> None:
    from transformers import CLIPTextModelWithProjection

    whole = CHECKPOINTS / "clip"
    assert complaints(lambda: CLIPTextModelWithProjection.from_pretrained(whole))


def test_another_caption_gives_another_image(shipped: tuple[str, Any]) -> None:
    _, pipeline = shipped
    images = [
        judge.draw(pipeline, [caption], 2)[0].astype(float)
        for caption in ("a red circle on a white background", "a blue ring on a black background")
    ]
    assert np.abs(images[0] - images[1]).max() > 1


def test_its_card_says_whether_it_was_trained(shipped: tuple[str, Any]) -> None:
    name, _ = shipped
    card = json.loads((CHECKPOINTS / name / "card.json").read_text("utf-8"))
    readme = (CHECKPOINTS / name / "README.md").read_text("utf-8")
    assert card["random"] == training_of(name)["random"]
    assert readme == cards.text(name, training_of(name), card)
    assert ("Quality: not measured" in readme) == card["random"]
    assert ("checker accuracy" in readme) != card["random"]


def test_its_folder_names_no_place_of_the_machine_that_made_it(shipped: tuple[str, Any]) -> None:
    name, _ = shipped
    for file in (CHECKPOINTS / name).rglob("*.json"):
        assert "_name_or_path" not in file.read_text("utf-8"), file


@needs_pixart
def test_pixart_sigma_opens_the_folder_of_pixart_alpha() -> None:
    from diffusers import PixArtSigmaPipeline

    pipeline: Any = PixArtSigmaPipeline.from_pretrained(
        CHECKPOINTS / "pixart-mini", dtype=torch.float32
    )
    pipeline.set_progress_bar_config(disable=True)
    assert judge.draw(pipeline, ["a red circle on a white background"], 2)[0].shape == (64, 64, 3)


def test_all_distinct_weights_stay_within_thirty_megabytes() -> None:
    assert sum(folders.distinct(CHECKPOINTS).values()) < 30e6


def test_what_is_shared_is_stored_once() -> None:
    """The autoencoder, the CLIP, its text tower, the tower's projection and the T5; and of each
    miniature its own network."""
    assert len(folders.distinct(CHECKPOINTS)) == 5 + len(SHIPPED)


@pytest.mark.slow
@pytest.mark.parametrize("name", OTHERS)
def test_a_trained_one_draws_what_its_card_promises(name: str) -> None:
    if training_of(name)["random"]:
        pytest.skip(f"{name} has random weights and promises nothing")
    promised = json.loads((CHECKPOINTS / name / "card.json").read_text("utf-8"))["pipeline"]
    pipeline = pipelines.open_pipeline(name, CHECKPOINTS / name)
    captions = cards.captions_for(name, 300)[::8]
    images = judge.draw(pipeline, captions, FAMILIES[name].steps)
    # Another 38 images: three standard errors of a share.
    margin = 3 * (0.25 / len(captions)) ** 0.5
    assert judge.judged(images, captions)["accuracy"] > promised["accuracy"] - margin
    if FAMILIES[name].control:
        found = cards.followed(images, captions, "")
        assert found["followed"] > promised["followed"] - margin


@pytest.mark.slow
@needs_controlnet
def test_a_trained_controlnet_moves_the_objects_to_the_edges() -> None:
    name = "sd-mini-controlnet"
    if training_of(name)["random"]:
        pytest.skip(f"{name} has random weights and promises nothing")
    pipeline = pipelines.open_pipeline(name, CHECKPOINTS / name)
    captions = scenes.evaluation_captions(20, np.random.default_rng(5))
    held = cards.followed(judge.draw(pipeline, captions, 20), captions, "")
    free = judge.draw(pipeline, captions, 20, controlnet_conditioning_scale=0.0)
    assert held["overlap"] > cards.followed(free, captions, "")["overlap"] + 0.1
    assert edges.of(edges.placed(captions[0], 0)).max() == 1
