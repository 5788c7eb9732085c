"""Traps of reusing deep features."""

from __future__ import annotations

from collections.abc import Callable
from importlib import import_module
from typing import Any

import pytest
import torch


def deep_passes(made: Any) -> list[int]:
    """Indices of the denoiser calls in which the middle block really ran."""
    ran: list[int] = []
    key = ("mid", "mid_block", 0, 0)
    store = made.pipe._deepcache_state
    inner = store.helper.function_dict[key]

    def counted(*args: Any, **kwargs: Any) -> Any:
        ran.append(store.calls)
        return inner(*args, **kwargs)

    store.helper.function_dict[key] = counted
    return ran


@pytest.mark.parametrize("interval", [2, 3, 6])
def test_one_call_in_each_interval_is_a_full_pass(ready: Callable[..., Any], interval: int) -> None:
    made = ready({"deepcache": {"interval": interval}}, steps=8)
    ran = deep_passes(made)
    made.latents()
    assert ran == list(range(0, 8, interval))
    assert made.pipe._deepcache_state.skipped == 8 - len(ran)


def test_the_timestep_may_come_by_keyword(ready: Callable[..., Any]) -> None:
    by_position, by_keyword = (ready({"deepcache": {}}).pipe for _ in range(2))
    sample, text = torch.randn(1, 4, 16, 16), torch.randn(1, 16, 128)
    with torch.no_grad():
        for t in (torch.tensor(900), torch.tensor(800)):
            expected = by_position.unet(sample, t, text).sample
            found = by_keyword.unet(sample=sample, timestep=t, encoder_hidden_states=text).sample
            assert torch.equal(found, expected)
    assert by_keyword._deepcache_state.skipped == 1


def test_repeated_timesteps_count_as_calls_of_their_own(ready: Callable[..., Any]) -> None:
    made = ready({"deepcache": {"interval": 2}, "sampler": {"name": "pndm", "steps": 6}})
    ran = deep_passes(made)
    made.latents()
    assert ran == [0, 2, 4, 6]


def test_an_image_of_another_strength_starts_with_a_full_pass(
    ready: Callable[..., Any], fresh: Callable[[], Any]
) -> None:
    diffusers: Any = import_module("diffusers")
    pipe = diffusers.StableDiffusionImg2ImgPipeline(
        **fresh().components, requires_safety_checker=False
    )
    pipe.set_progress_bar_config(disable=True)
    made = ready({"deepcache": {"interval": 3}}, steps=10, pipe=pipe)
    ran = deep_passes(made)
    image = torch.rand(1, 3, 64, 64)
    for strength, expected in ((0.6, [0, 3]), (0.5, [0, 3]), (1.0, [0, 3, 6, 9])):
        ran.clear()
        made.latents(image=image, strength=strength)
        assert ran == expected


def test_a_change_of_batch_within_an_image_forces_a_full_pass(ready: Callable[..., Any]) -> None:
    made = ready({"deepcache": {"interval": 6}, "guidance": {"stop": 0.5}}, steps=8)
    ran = deep_passes(made)
    made.latents()
    assert made.batches == [2] * 4 + [1] * 4
    assert ran == [0, 4]


def test_reset_forgets_features_and_keeps_the_patch(ready: Callable[..., Any]) -> None:
    made = ready({"deepcache": {}})
    made.latents()
    state = made.pipe._deepcache_state
    assert state.helper.cached_output
    patched = dict(state.helper.function_dict)
    from strategies import deepcache

    deepcache.reset(made.pipe)
    assert state.helper.cached_output == {}
    assert state.helper.start_timestep is None
    assert state.helper.function_dict == patched


def test_too_few_steps_to_skip_any_are_reported(ready: Callable[..., Any]) -> None:
    made = ready({"deepcache": {}})
    made.latents(num_inference_steps=1)
    assert made.reasons()["deepcache"] == "none of 1 denoiser calls skipped the deep layers"


def test_deeper_branches_stay_closer_to_the_full_picture(ready: Callable[..., Any]) -> None:
    plain = ready({}).latents()
    gaps = [
        float((ready({"deepcache": {"branch": b}}).latents() - plain).abs().mean()) for b in (0, 1)
    ]
    assert gaps[1] < gaps[0]


def test_the_positional_call_of_sdxl_runs_and_skips(
    ready: Callable[..., Any], sdxl: Callable[[], Any]
) -> None:
    made = ready({"deepcache": {}, "tgate": {"gate": 0.5}}, pipe=sdxl())
    made.latents(prompt=None, **made.pipe.embeddings)
    assert set(made.reasons().values()) == {None}
    assert made.batches == [2] * 3 + [1] * 3
