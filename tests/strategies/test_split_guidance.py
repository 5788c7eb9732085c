"""The halves of guidance run one after the other and give what they give together."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch

from engine.errors import UsageError
from engine.genome import canonical
from strategies import split_guidance
from tests.strategies.tiny import ARCHITECTURES

Ready = Callable[..., Any]


def seen_batches(made: Any) -> list[int]:
    """Batches that reach the denoiser's first layer."""
    batches: list[int] = []
    made.pipe.unet.conv_in.register_forward_pre_hook(
        lambda _, args: batches.append(args[0].shape[0])
    )
    return batches


def test_every_guided_call_becomes_two_of_half_the_batch(ready: Ready) -> None:
    made = ready({"split_guidance": {}}, steps=3)
    inner = seen_batches(made)
    made.latents(["a red circle on a white background"] * 2)
    assert made.batches == [4] * 3
    assert inner == [2] * 6


def test_after_guidance_has_stopped_nothing_is_split(ready: Ready) -> None:
    made = ready({"split_guidance": {}, "guidance": {"stop": 0.5}}, steps=4)
    inner = seen_batches(made)
    prompts = ["a red circle on a white background"] * 2
    made.latents(prompts)
    assert inner == [2] * 6
    assert made.batches == [4, 4, 2, 2]
    plain = ready({"guidance": {"stop": 0.5}}, steps=4)
    torch.testing.assert_close(made.latents(prompts), plain.latents(prompts), atol=1e-4, rtol=1e-4)


def test_an_unguided_image_is_reported_as_unchanged(ready: Ready) -> None:
    made = ready({"split_guidance": {}}, steps=2)
    made.latents()
    assert made.reasons() == {"split_guidance": None}
    made.latents(guidance_scale=1.0)
    assert "none of 2 denoiser calls" in str(made.reasons()["split_guidance"])


def test_sdxl_splits_its_additional_embeddings_too(ready: Ready, sdxl: Callable[[], Any]) -> None:
    plain, made = (
        ready({}, pipe=sdxl(), steps=3),
        ready({"split_guidance": {}}, pipe=sdxl(), steps=3),
    )
    arguments = {"prompt": None, **plain.pipe.embeddings}
    torch.testing.assert_close(
        made.latents(**arguments), plain.latents(**arguments), atol=1e-4, rtol=1e-4
    )
    assert made.reasons() == {"split_guidance": None}


def test_results_come_back_in_the_form_of_the_denoiser(fresh: Callable[[], Any]) -> None:
    pipe = fresh()
    pipe._guidance_scale = 5.0
    arguments = {
        "sample": torch.randn(2, 4, 16, 16),
        "timestep": torch.tensor([7, 7]),
        "encoder_hidden_states": torch.randn(2, 5, 128),
    }
    with torch.no_grad():
        expected = pipe.unet(**arguments)
        split_guidance.apply(pipe, None)
        by_name = pipe.unet(**arguments)
        in_tuple = pipe.unet(*arguments.values(), return_dict=False)
    assert type(by_name) is type(expected)
    torch.testing.assert_close(by_name.sample, expected.sample, atol=1e-5, rtol=1e-5)
    assert isinstance(in_tuple, tuple)
    assert torch.equal(in_tuple[0], by_name.sample)
    assert pipe._split_guidance_state.split == 2


@pytest.mark.parametrize("model", ["pixart", "dit", "sd3"])
def test_transformers_split_with_and_without_a_switch(ready: Ready, model: str) -> None:
    plain = ready({}, pipe=ARCHITECTURES[model](), steps=3)
    made = ready({"split_guidance": {}}, pipe=ARCHITECTURES[model](), steps=3)
    torch.testing.assert_close(made.latents(), plain.latents(), atol=1e-3, rtol=1e-3)
    assert made.pipe._split_guidance_state.split == 3
    two = ["one", "another"]
    made.latents(two, guidance_scale=1.0)
    assert made.pipe._split_guidance_state.split == 0


@pytest.mark.parametrize("other", ["deepcache", "tgate", "pab", "faster_cache"])
def test_techniques_that_keep_results_between_calls_are_refused(other: str) -> None:
    with pytest.raises(UsageError, match=other):
        canonical({"split_guidance": {}, other: {}})
