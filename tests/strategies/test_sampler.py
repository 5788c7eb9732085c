"""Traps of changing the scheduler."""

from __future__ import annotations

from collections.abc import Callable
from importlib import import_module
from pathlib import Path
from typing import Any

import pytest
import torch

from engine.strategy import registry
from tests.strategies.tiny import ARCHITECTURES, tiny_dit

# Imported by name: the library has no types.
diffusers: Any = import_module("diffusers")
NAMES = ("ddim", "dpmpp_2m", "dpmpp_sde", "unipc", "euler", "pndm")
SPACINGS = ("leading", "trailing")


def timesteps(pipe: Any, steps: int) -> list[float]:
    pipe.scheduler.set_timesteps(steps)
    return [float(t) for t in pipe.scheduler.timesteps]


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("spacing", SPACINGS)
def test_every_number_of_steps_gives_that_many_calls_within_the_schedule(
    ready: Callable[..., Any], fresh: Callable[[], Any], name: str, spacing: str
) -> None:
    pipe = ready({"sampler": {"name": name, "spacing": spacing}}).pipe
    for steps in map(int, registry()["sampler"].genes["steps"].values()):
        found = timesteps(pipe, steps)
        # PNDM takes its second step twice.
        assert len(found) == steps + (name == "pndm")
        assert len(set(found)) == steps
        assert 0 <= min(found) <= max(found) <= 999
        assert (max(found) == 999) == (spacing == "trailing")


@pytest.mark.parametrize("name", NAMES)
def test_the_prediction_type_of_the_model_survives(ready: Callable[..., Any], name: str) -> None:
    config = ready({"sampler": {"name": name}}).pipe.scheduler.config
    assert config.prediction_type == "v_prediction"
    assert config.beta_schedule == "scaled_linear"


@pytest.mark.parametrize("name", NAMES)
def test_a_pipeline_loaded_from_disk_gets_the_same_sampler(
    ready: Callable[..., Any], fresh: Callable[[], Any], name: str, tmp_path: Path
) -> None:
    """A saved config states defaults that an unsaved one leaves to the next class."""
    loaded = fresh()
    loaded.scheduler.save_pretrained(tmp_path)
    loaded.scheduler = type(loaded.scheduler).from_pretrained(tmp_path)
    genome = {"sampler": {"name": name, "steps": 5}}
    assert torch.equal(ready(genome).latents(), ready(genome, pipe=loaded).latents())


@pytest.mark.parametrize("name", NAMES)
def test_settings_of_an_earlier_scheduler_do_not_leak_in(
    ready: Callable[..., Any], fresh: Callable[[], Any], name: str
) -> None:
    other = fresh()
    other.scheduler = diffusers.DPMSolverMultistepScheduler.from_config(
        other.scheduler.config,
        use_karras_sigmas=True,
        solver_order=3,
        solver_type="heun",
        timestep_spacing="linspace",
        algorithm_type="sde-dpmsolver++",
        final_sigmas_type="sigma_min",
    )
    genome = {"sampler": {"name": name, "steps": 5}}
    assert torch.equal(ready(genome).latents(), ready(genome, pipe=other).latents())


def test_ddim_does_not_clip_latents_when_the_old_scheduler_had_no_such_setting(
    ready: Callable[..., Any], fresh: Callable[[], Any]
) -> None:
    pipe = fresh()
    pipe.scheduler = diffusers.EulerDiscreteScheduler(
        beta_schedule="scaled_linear", prediction_type="v_prediction"
    )
    config = ready({"sampler": {"name": "ddim"}}, pipe=pipe).pipe.scheduler.config
    assert config.clip_sample is False
    assert config.set_alpha_to_one is False


@pytest.mark.parametrize("name", NAMES)
def test_noise_comes_from_the_seed_of_the_call_alone(ready: Callable[..., Any], name: str) -> None:
    made = ready({"sampler": {"name": name, "steps": 4}})
    torch.manual_seed(1)
    first = made.latents(seed=3)
    torch.manual_seed(2)
    assert torch.equal(first, made.latents(seed=3))
    assert not torch.equal(first, made.latents(seed=4))


def test_the_sde_solver_adds_noise_of_its_own(ready: Callable[..., Any]) -> None:
    without, fresh_noise = (
        ready({"sampler": {"name": n, "steps": 4}}).latents() for n in ("dpmpp_2m", "dpmpp_sde")
    )
    assert not torch.allclose(without, fresh_noise, atol=1e-2)


@pytest.mark.parametrize("name", NAMES)
def test_an_image_that_broke_off_leaves_nothing_behind(
    ready: Callable[..., Any], name: str
) -> None:
    """The reason why the strategy has no reset."""

    def break_off(pipe: Any, step: int, *_: Any) -> dict[str, Any]:
        if step == 2:
            raise InterruptedError
        return {}

    genome = {"sampler": {"name": name, "steps": 5}}
    used = ready(genome)
    with pytest.raises(InterruptedError):
        used.latents(seed=8, callback_on_step_end=break_off)
    assert torch.equal(used.latents(), ready(genome).latents())


def test_a_flow_model_is_refused_with_a_reason(
    ready: Callable[..., Any], fresh: Callable[[], Any]
) -> None:
    pipe = fresh()
    pipe.scheduler = diffusers.FlowMatchEulerDiscreteScheduler()
    with pytest.raises(ValueError, match="flow matching"):
        ready({"sampler": {}}, pipe=pipe)


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("model", ["sdxl", "pixart"])
def test_other_architectures_run_with_every_solver(
    ready: Callable[..., Any], model: str, name: str
) -> None:
    made = ready({"sampler": {"name": name, "steps": 4}}, pipe=ARCHITECTURES[model]())
    assert torch.isfinite(made.latents()).all()
    assert made.reasons() == {"sampler": None}


@pytest.mark.parametrize("kind", ["learned", "learned_range"])
def test_a_learned_variance_is_left_to_the_pipeline(ready: Callable[..., Any], kind: str) -> None:
    """DPM-Solver would cut the noise of a latent of four channels to three."""
    expected = ready({"sampler": {"steps": 4}}, pipe=tiny_dit()).latents()
    pipe = tiny_dit()
    pipe.scheduler = diffusers.DDPMScheduler(variance_type=kind, clip_sample=False)
    found = ready({"sampler": {"steps": 4}}, pipe=pipe).latents()
    torch.testing.assert_close(found, expected)


def test_a_solver_that_needs_scaled_noise_is_refused_where_nothing_scales_it(
    ready: Callable[..., Any],
) -> None:
    with pytest.raises(ValueError, match="does not scale its first noise"):
        ready({"sampler": {"name": "euler"}}, pipe=tiny_dit())


@pytest.mark.parametrize("name", ["ddim", "dpmpp_2m", "unipc", "pndm"])
def test_class_to_image_follows_its_seed(ready: Callable[..., Any], name: str) -> None:
    made = ready({"sampler": {"name": name, "steps": 4}}, pipe=tiny_dit())
    torch.manual_seed(1)
    first = made.latents(seed=3)
    torch.manual_seed(2)
    assert torch.equal(first, made.latents(seed=3))
    assert made.reasons() == {"sampler": None}


def test_a_replaced_scheduler_and_other_steps_are_reported(ready: Callable[..., Any]) -> None:
    made = ready({"sampler": {"steps": 4}})
    made.latents(num_inference_steps=3)
    assert "3 steps instead of 4" in made.reasons()["sampler"]
    made.pipe.scheduler = type(made.pipe.scheduler).from_config(made.pipe.scheduler.config)
    assert "took its place" in made.reasons()["sampler"]
