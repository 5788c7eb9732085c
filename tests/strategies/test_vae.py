"""Decoding in pieces: sizes fit, nothing passes for tiled that is not."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch

from strategies import vae

TWO = ["a red circle on a white background", "a blue ring on a black background"]


def image_of(made: Any, prompt: Any = TWO[0], **extra: Any) -> Any:
    return made.latents(prompt, output_type="pt", **extra)


def test_single_images_of_a_batch_are_exact(ready: Callable[..., Any]) -> None:
    pieces, whole = ready({"vae": {"tiles": 1}}, steps=2), ready({}, steps=2)
    torch.testing.assert_close(image_of(pieces, TWO), image_of(whole, TWO), atol=1e-5, rtol=0)
    assert pieces.reasons() == {"vae": None}


def test_single_images_do_nothing_for_a_batch_of_one(ready: Callable[..., Any]) -> None:
    made = ready({"vae": {"tiles": 1}}, steps=2)
    image_of(made)
    assert "decoded whole" in str(made.reasons()["vae"])


@pytest.mark.parametrize("tiles", [2, 4])
def test_tiles_change_pixels_and_no_size(ready: Callable[..., Any], tiles: int) -> None:
    made, whole = ready({"vae": {"tiles": tiles}}, steps=2), ready({}, steps=2)
    image, expected = image_of(made), image_of(whole)
    assert image.shape == expected.shape
    assert 1e-3 < (image - expected).abs().mean() < 0.2
    assert made.reasons() == {"vae": None}
    assert made.pipe._vae_state.passes >= tiles


def test_an_image_below_a_tile_is_reported(ready: Callable[..., Any]) -> None:
    made = ready({"vae": {"tiles": 2}}, steps=2)
    image_of(made, TWO, height=32, width=32)
    assert made.reasons() == {"vae": "the image has no more than the 12 x 12 latents of a tile"}


def test_latents_alone_are_reported(ready: Callable[..., Any]) -> None:
    made = ready({"vae": {"tiles": 2}}, steps=2)
    made.latents()
    assert made.reasons() == {"vae": "nothing was decoded"}


@pytest.mark.parametrize("latents", [13, 16, 18, 48, 64, 96, 100, 128])
@pytest.mark.parametrize("tiles", [2, 4])
def test_every_size_is_decoded_to_itself(
    fresh: Callable[[], Any], latents: int, tiles: int
) -> None:
    """The library loses or repeats rows where the side of a tile is no multiple of four."""
    side = vae.tile_side(latents, tiles)
    assert side % 4 == 0
    assert side < latents
    assert -(-latents // (side * 3 // 4)) <= tiles
    if latents <= 18:
        pipe = fresh()
        ctx = type("Context", (), {"height": 4 * latents, "width": 4 * latents})
        vae.apply(pipe, ctx, tiles=tiles)
        with torch.no_grad():
            decoded = pipe.vae.decode(torch.zeros(1, 4, latents, latents)).sample
        assert decoded.shape == (1, 3, 4 * latents, 4 * latents)


def test_an_autoencoder_without_tiles_is_refused(fresh: Callable[[], Any]) -> None:
    from diffusers import AutoencoderTiny

    pipe = fresh()
    pipe.vae = AutoencoderTiny()
    ctx = type("Context", (), {"height": 64, "width": 64})
    with pytest.raises(ValueError, match="AutoencoderTiny does not decode images in tiles"):
        vae.apply(pipe, ctx, tiles=2)
