"""Stopping classifier-free guidance early."""

from __future__ import annotations

from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from engine.strategy import find
from engine.worker.probe import inapplicable
from strategies import guidance, tgate
from tests.strategies import tiny
from tests.strategies.tiny import tiny_flux


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


def test_an_interval_without_a_single_call_is_reported(ready: Callable[..., Any]) -> None:
    made = ready({"guidance": {"start": 0.2, "stop": 0.3}})
    batches = computed(made)
    made.latents(num_inference_steps=6)
    assert batches == [1] * 6
    assert str(made.reasons()["guidance"]).startswith("no denoiser call was left with guidance")


@pytest.mark.parametrize("name", ["guidance", "split_guidance", "tgate"])
def test_distilled_guidance_has_no_half_to_leave_out(name: str) -> None:
    reason = str(inapplicable(find(name), tiny_flux(), "transformer", "cpu"))
    assert "distilled guidance has one half only" in reason or "no Basic" in reason


def test_a_start_behind_the_stop_is_refused(fresh: Callable[[], Any]) -> None:
    with pytest.raises(ValueError, match=r"start=0.3 must be below stop=0.2"):
        guidance.apply(fresh(), None, start=0.3, stop=0.2)


def computed(made: Any) -> list[int]:
    """Batches that reach the denoiser's own layers."""
    batches: list[int] = []
    network = tiny.denoiser(made.pipe)
    first = network.conv_in if hasattr(network, "conv_in") else network.pos_embed
    first.register_forward_pre_hook(lambda _, args: batches.append(args[0].shape[0]))
    return batches


@pytest.mark.parametrize("model", ["sdxl", "sd3", "pixart", "dit"])
def test_guidance_runs_within_its_interval_on_every_guided_architecture(
    ready: Callable[..., Any], model: str
) -> None:
    made = ready(
        {"guidance": {"start": 0.2, "stop": 0.6}}, steps=5, pipe=tiny.ARCHITECTURES[model]()
    )
    batches = computed(made)
    made.latents()
    assert batches == [1, 2, 2, 1, 1]
    assert made.reasons() == {"guidance": None}
    batches.clear()
    made.latents(["one", "another"])
    assert batches == [2, 4, 4, 2, 2]


@pytest.mark.parametrize("model", ["pixart", "dit"])
def test_without_guidance_a_pipeline_without_a_switch_runs_whole(
    ready: Callable[..., Any], model: str
) -> None:
    plain, made = (
        ready(genome, steps=4, pipe=tiny.ARCHITECTURES[model]())
        for genome in ({}, {"guidance": {"stop": 0.5}})
    )
    two = ["one", "another"]
    images = [each.latents(two, guidance_scale=1.0) for each in (plain, made)]
    assert torch.equal(*images)
    assert "ran with one half" in str(made.reasons()["guidance"])


@pytest.mark.parametrize("model", ["pixart", "dit"])
def test_the_half_that_stays_is_the_one_with_the_prompt(
    ready: Callable[..., Any], model: str
) -> None:
    """A guidance of one is the conditional half alone, so both must draw the same."""
    make = tiny.ARCHITECTURES[model]
    made = ready({"guidance": {"stop": 0.2}}, steps=4, pipe=make())
    seen: list[Any] = []
    tiny.denoiser(made.pipe).register_forward_hook(lambda _, args, output: seen.append(output))
    made.latents()
    last = seen[-1][0] if isinstance(seen[-1], tuple) else seen[-1].sample
    torch.testing.assert_close(*last.chunk(2), atol=0, rtol=0)
    alone = ready({}, steps=4, pipe=make())
    caught: list[Any] = []
    network = tiny.denoiser(alone.pipe)
    network.register_forward_pre_hook(
        lambda _, args, kwargs: caught.append((args, kwargs)), with_kwargs=True
    )
    alone.latents(guidance_scale=1.0)
    words = caught[0][1].get("encoder_hidden_states", caught[0][1].get("class_labels"))
    inner: list[Any] = []
    made = ready({"guidance": {"stop": 0.2}}, steps=4, pipe=make())
    made.pipe.transformer.register_forward_pre_hook(
        lambda _, args, kwargs: inner.append(kwargs), with_kwargs=True
    )
    made.latents()
    kept = inner[-1].get("encoder_hidden_states", inner[-1].get("class_labels"))
    assert torch.equal(kept, words)


@pytest.mark.parametrize("module", [guidance, tgate])
def test_only_doubled_tensors_are_halved(module: Any) -> None:
    single, doubled = torch.arange(2.0), torch.arange(4.0)
    tensors = {"latents": torch.zeros(2), "prompt_embeds": doubled, "add_time_ids": single}
    module.drop_guidance(SimpleNamespace(), tensors)
    assert torch.equal(tensors["prompt_embeds"], doubled[2:])
    assert torch.equal(tensors["add_time_ids"], single)
