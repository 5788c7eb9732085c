"""Stopping classifier-free guidance early."""

from __future__ import annotations

from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from strategies import guidance, tgate


@pytest.mark.parametrize(
    ("stop", "steps", "guided"), [(0.5, 6, 3), (0.2, 3, 1), (0.95, 6, 5), (0.58, 50, 29)]
)
def test_late_calls_run_half_the_batch(
    ready: Callable[..., Any], stop: float, steps: int, guided: int
) -> None:
    made = ready({"guidance": {"stop": stop}}, steps=steps)
    made.latents()
    assert made.batches == [2] * guided + [1] * (steps - guided)


def test_late_calls_see_the_prompt_and_not_the_empty_caption(ready: Callable[..., Any]) -> None:
    made = ready({"guidance": {"stop": 0.5}}, steps=2)
    seen: list[Any] = []
    made.pipe.unet.register_forward_pre_hook(
        lambda _, args, kwargs: seen.append(kwargs["encoder_hidden_states"]), with_kwargs=True
    )
    made.latents()
    assert torch.equal(seen[1], seen[0][1:])
    assert not torch.equal(seen[1], seen[0][:1])


def test_several_prompts_and_pictures_each_keep_their_half(ready: Callable[..., Any]) -> None:
    made = ready({"guidance": {"stop": 0.5}})
    made.latents(["a red circle on a white background"] * 3, num_images_per_prompt=2)
    assert made.batches == [12] * 3 + [6] * 3


def test_the_next_image_is_guided_again(ready: Callable[..., Any]) -> None:
    made = ready({"guidance": {"stop": 0.5}})
    made.latents()
    made.latents()
    assert made.batches == [2] * 3 + [1] * 3


def test_sdxl_runs_with_half_of_all_embeddings(
    ready: Callable[..., Any], sdxl: Callable[[], Any]
) -> None:
    made = ready({"guidance": {"stop": 0.5}}, pipe=sdxl())
    made.latents(prompt=None, **made.pipe.embeddings)
    assert made.batches == [2] * 3 + [1] * 3


def test_a_gate_that_comes_first_leaves_nothing_to_stop(ready: Callable[..., Any]) -> None:
    made = ready({"guidance": {"stop": 0.8}, "tgate": {"gate": 0.4}})
    made.latents()
    assert made.reasons()["guidance"] == "guidance was already off when its stop came"
    assert made.reasons()["tgate"] is None


def test_a_stop_with_the_last_call_is_reported(ready: Callable[..., Any]) -> None:
    made = ready({"guidance": {}})
    made.latents(num_inference_steps=1)
    assert made.reasons()["guidance"] == "no denoiser call was left after guidance stopped"


def test_a_pipeline_without_the_switch_is_refused() -> None:
    with pytest.raises(ValueError, match="no switch for classifier-free guidance"):
        guidance.apply(SimpleNamespace(), None, stop=0.5)


@pytest.mark.parametrize("module", [guidance, tgate])
def test_only_doubled_tensors_are_halved(module: Any) -> None:
    single, doubled = torch.arange(2.0), torch.arange(4.0)
    tensors = {"latents": torch.zeros(2), "prompt_embeds": doubled, "add_time_ids": single}
    module.drop_guidance(SimpleNamespace(), tensors)
    assert torch.equal(tensors["prompt_embeds"], doubled[2:])
    assert torch.equal(tensors["add_time_ids"], single)
