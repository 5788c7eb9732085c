"""Traps of token merging."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch


def test_merging_does_not_depend_on_the_global_random_state(ready: Callable[..., Any]) -> None:
    images = []
    for state in (1, 2):
        torch.manual_seed(state)
        images.append(ready({"tome": {}}).latents())
    assert torch.equal(*images)


def test_random_matching_is_still_random_within_an_image(ready: Callable[..., Any]) -> None:
    made = ready({"tome": {}})
    made.latents()
    used = made.pipe.unet._tome_info["args"]["generator"].get_state()
    assert not torch.equal(used, torch.Generator().manual_seed(0).get_state())


def test_an_odd_batch_merges_without_random_numbers(ready: Callable[..., Any]) -> None:
    made = ready({"tome": {}})
    made.latents(guidance_scale=1.0)
    assert made.batches == [1] * 6
    assert made.reasons() == {"tome": None}
    used = made.pipe.unet._tome_info["args"]["generator"].get_state()
    assert torch.equal(used, torch.Generator().manual_seed(0).get_state())


@pytest.mark.parametrize(("reach", "effect"), [(1, False), (2, True)])
def test_sdxl_without_attention_at_the_allowed_level_is_reported(
    ready: Callable[..., Any], sdxl: Callable[[], Any], reach: int, effect: bool
) -> None:
    plain = ready({}, pipe=sdxl())
    made = ready({"tome": {"max_downsample": reach}}, pipe=sdxl())
    call = {"prompt": None, **made.pipe.embeddings}
    assert torch.equal(plain.latents(**call), made.latents(**call)) is not effect
    reason = made.reasons()["tome"]
    assert (reason is None) if effect else ("max_downsample=1" in str(reason))


def test_further_reach_merges_more_calls(ready: Callable[..., Any]) -> None:
    merged = []
    for reach in (1, 2, 4):
        made = ready({"tome": {"max_downsample": reach}})
        made.latents()
        merged.append(made.pipe._tome_state.merged)
    assert merged[0] < merged[1] < merged[2] == made.pipe._tome_state.calls
