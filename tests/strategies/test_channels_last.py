"""The channels-last layout."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch

from strategies import channels_last


def test_denoiser_and_vae_change_their_layout_and_keep_their_values(
    ready: Callable[..., Any], fresh: Callable[[], Any]
) -> None:
    plain, made = fresh(), ready({"channels_last": {}})
    for part in ("unet", "vae"):
        weights = dict(getattr(plain, part).named_parameters())
        for name, weight in getattr(made.pipe, part).named_parameters():
            assert torch.equal(weight, weights[name])
            if weight.dim() == 4:
                assert weight.is_contiguous(memory_format=torch.channels_last)


def test_the_decoded_picture_is_the_same_up_to_rounding(ready: Callable[..., Any]) -> None:
    images = [
        ready({name: {} for name in names}).latents(output_type="pt")
        for names in ((), ("channels_last",))
    ]
    torch.testing.assert_close(*images, atol=1e-3, rtol=0)


def test_a_plain_pipeline_counts_as_inactive(fresh: Callable[[], Any]) -> None:
    assert channels_last.active(fresh()) == "no convolution weight lies in channels-last order"


def test_weights_of_video_convolutions_are_left_alone() -> None:
    from types import SimpleNamespace

    part = torch.nn.Sequential(torch.nn.Conv3d(2, 2, 3), torch.nn.Conv2d(2, 2, 3))
    pipe = SimpleNamespace(transformer=part)
    channels_last.apply(pipe, None)
    assert next(part[0].parameters()).is_contiguous()
    assert channels_last.active(pipe) is None
