"""Solvers of the flow keep the model's own noise levels, whatever its pipeline hands over."""

from __future__ import annotations

from collections.abc import Callable
from importlib import import_module
from typing import Any

import pytest
import torch

from engine.worker.probe import inapplicable, prediction
from strategies import flow_sampler
from tests.strategies.tiny import tiny_flux, tiny_sd3

# Imported by name: the library has no types.
diffusers: Any = import_module("diffusers")
NAMES = ("euler", "heun", "dpmpp_2m", "unipc")
MODELS: dict[str, Callable[[], Any]] = {
    "sd3": tiny_sd3,
    "flux-dev": tiny_flux,
    "flux-schnell": lambda: tiny_flux(guided=False),
}
Ready = Callable[..., Any]


def levels(scheduler: Any) -> Any:
    """The noise levels of the last image, each once."""
    return torch.unique_consecutive(scheduler.sigmas.to("cpu"))


@pytest.mark.parametrize("model", MODELS)
def test_euler_at_the_same_steps_draws_the_models_own_picture(ready: Ready, model: str) -> None:
    plain = ready({}, steps=5, pipe=MODELS[model]())
    made = ready({"flow_sampler": {"name": "euler", "steps": 5}}, pipe=MODELS[model]())
    torch.testing.assert_close(made.latents(), plain.latents(), atol=1e-5, rtol=1e-5)
    assert made.reasons() == {"flow_sampler": None}


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("model", MODELS)
def test_every_solver_stands_on_the_models_own_levels(ready: Ready, model: str, name: str) -> None:
    plain = ready({}, steps=5, pipe=MODELS[model]())
    made = ready({"flow_sampler": {"name": name, "steps": 5}}, pipe=MODELS[model]())
    plain.latents()
    assert torch.isfinite(made.latents()).all()
    scheduler = made.pipe.scheduler
    torch.testing.assert_close(levels(scheduler), levels(plain.pipe.scheduler), atol=2e-6, rtol=0)
    # The denoiser sees the same times, not whole numbers.
    times = torch.unique_consecutive(scheduler.timesteps)
    torch.testing.assert_close(times, plain.pipe.scheduler.timesteps, atol=1e-3, rtol=0)
    assert len(made.batches) == (9 if name == "heun" else 5)
    assert made.reasons() == {"flow_sampler": None}


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("steps", [1, 2, 3, 50])
def test_any_number_of_steps_lies_within_the_levels(name: str, steps: int) -> None:
    own = diffusers.FlowMatchEulerDiscreteScheduler(shift=6.0)
    scheduler = flow_sampler.solver_for(own.config, name, 1.0)
    scheduler.set_timesteps(steps)
    assert len(levels(scheduler)) == steps + 1
    assert float(scheduler.sigmas[-1]) == 0
    assert len(set(scheduler.timesteps.tolist())) == steps


@pytest.mark.parametrize("name", NAMES)
def test_a_shift_above_one_moves_every_level_towards_noise(name: str) -> None:
    own = diffusers.FlowMatchEulerDiscreteScheduler(shift=3.0)
    more, same = (flow_sampler.solver_for(own.config, name, shift) for shift in (2.0, 1.0))
    more.set_timesteps(8)
    same.set_timesteps(8)
    inner = slice(1, -1)
    assert (levels(more)[inner] > levels(same)[inner]).all()
    # Twice a shift of three is a shift of six.
    six = diffusers.FlowMatchEulerDiscreteScheduler(shift=6.0)
    six.set_timesteps(sigmas=torch.linspace(1, 0.125, 8).tolist())
    more.set_timesteps(sigmas=torch.linspace(1, 0.125, 8).tolist())
    torch.testing.assert_close(levels(more), levels(six), atol=2e-6, rtol=0)


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("dynamic", [False, True])
def test_levels_and_the_shift_for_a_size_may_come_from_the_pipeline(
    name: str, dynamic: bool
) -> None:
    own = diffusers.FlowMatchEulerDiscreteScheduler(use_dynamic_shifting=dynamic)
    given = [1.0, 0.7, 0.2]
    own.set_timesteps(sigmas=given, mu=0.9)
    scheduler = flow_sampler.solver_for(own.config, name, 1.0)
    scheduler.set_timesteps(sigmas=given, mu=0.9)
    torch.testing.assert_close(levels(scheduler), levels(own), atol=2e-6, rtol=0)


@pytest.mark.parametrize("kind", ["UniPCMultistepScheduler", "DPMSolverMultistepScheduler"])
def test_models_published_with_another_solver_keep_its_levels(kind: str) -> None:
    own = getattr(diffusers, kind)(
        use_flow_sigmas=True, prediction_type="flow_prediction", flow_shift=5.0
    )
    own.set_timesteps(6)
    scheduler = flow_sampler.solver_for(own.config, "euler", 1.0)
    scheduler.set_timesteps(6)
    # DPM-Solver starts at 0.999 by itself.
    torch.testing.assert_close(levels(scheduler), levels(own), atol=3e-3, rtol=0)


def distance(name: str, steps: int) -> float:
    """How far from the truth a solver ends where the flow is known: data of a normal law."""
    mean, spread = 2.0, 0.3
    noise = torch.tensor([-1.5, -0.2, 0.4, 2.0], dtype=torch.float64).reshape(1, 1, 2, 2)
    own = diffusers.FlowMatchEulerDiscreteScheduler(shift=3.0)
    scheduler = flow_sampler.solver_for(own.config, name, 1.0)
    scheduler.set_timesteps(sigmas=torch.linspace(1, 1 / steps, steps).tolist())
    sample = noise.clone()
    for time in scheduler.timesteps:
        level = float(time) / 1000
        signal = 1 - level
        gain = signal * spread**2 / (signal**2 * spread**2 + level**2)
        clean = mean + gain * (sample - signal * mean)
        flow = (sample - clean) / level
        sample = scheduler.step(flow, time, sample).prev_sample
    return float((sample - (mean + spread * noise)).abs().max())


@pytest.mark.parametrize("name", ["heun", "dpmpp_2m", "unipc"])
def test_solvers_of_higher_order_end_nearer_to_the_truth(name: str) -> None:
    assert distance(name, 10) < 0.95 * distance("euler", 10)
    assert distance(name, 100) < 0.25 * distance(name, 10)


@pytest.mark.parametrize("name", NAMES)
def test_an_image_that_broke_off_leaves_nothing_behind(ready: Ready, name: str) -> None:
    """The reason why the strategy has no reset."""

    def break_off(pipe: Any, step: int, *_: Any) -> dict[str, Any]:
        if step == 1:
            raise InterruptedError
        return {}

    genome = {"flow_sampler": {"name": name, "steps": 4}}
    used = ready(genome, pipe=tiny_sd3())
    with pytest.raises(InterruptedError):
        used.latents(seed=8, callback_on_step_end=break_off)
    new = ready(genome, pipe=tiny_sd3())
    # Two pipelines lie at other addresses, by which the matrix library rounds differently.
    torch.testing.assert_close(used.latents(), new.latents(), atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("name", NAMES)
def test_an_initial_image_is_mixed_with_noise_along_the_flow(name: str) -> None:
    own = diffusers.FlowMatchEulerDiscreteScheduler(shift=3.0)
    scheduler = flow_sampler.solver_for(own.config, name, 1.0)
    scheduler.set_timesteps(5)
    start = 4 if name == "heun" else 2
    scheduler.set_begin_index(start)
    image, noise = torch.ones(1, 4, 2, 2), torch.full((1, 4, 2, 2), 3.0)
    level = float(scheduler.sigmas[start])
    mixed = scheduler.scale_noise(image, scheduler.timesteps[start : start + 1], noise)
    torch.testing.assert_close(mixed, (1 - level) * image + level * noise)


def test_models_for_noise_and_for_flow_are_told_apart(fresh: Callable[[], Any]) -> None:
    from engine.strategy import find

    noisy, flow = fresh(), tiny_flux()
    assert (prediction(noisy), prediction(flow)) == ("v", "flow")
    wrong = inapplicable(find("flow_sampler"), noisy, "unet", "cpu")
    assert wrong == "it needs a prediction of flow, this model's is v"
    wrong = inapplicable(find("sampler"), flow, "transformer", "cpu")
    assert wrong == "it needs a prediction of noise or v, this model's is flow"
    assert inapplicable(find("flow_sampler"), flow, "transformer", "cpu") is None
    with pytest.raises(ValueError, match="is for noise or v predictions"):
        flow_sampler.solver_for(noisy.scheduler.config, "euler", 1.0)


def test_levels_that_run_the_other_way_are_refused() -> None:
    pipe = tiny_sd3()
    pipe.scheduler = diffusers.FlowMatchEulerDiscreteScheduler(invert_sigmas=True)
    assert "from image to noise" in str(flow_sampler.unfit(pipe))
    with pytest.raises(ValueError, match="from image to noise"):
        flow_sampler.solver_for(pipe.scheduler.config, "euler", 1.0)


def test_a_replaced_scheduler_and_other_steps_are_reported(ready: Ready) -> None:
    made = ready({"flow_sampler": {"steps": 4}}, pipe=tiny_sd3())
    made.latents(num_inference_steps=3)
    assert "3 steps instead of 4" in made.reasons()["flow_sampler"]
    made.pipe.scheduler = diffusers.FlowMatchEulerDiscreteScheduler()
    assert "took its place" in made.reasons()["flow_sampler"]
