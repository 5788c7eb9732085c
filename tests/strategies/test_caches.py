"""Caches of transformers: what is reused, what keeps states apart, what is reported."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from importlib import import_module
from typing import Any

import pytest
import torch

from engine.errors import TrialError
from engine.genome import canonical
from engine.strategy import find
from strategies import faster_cache, first_block_cache, magcache, pab, taylorseer
from tests.strategies.conftest import Ready, accelerated
from tests.strategies.tiny import ARCHITECTURES, tiny_flux, tiny_sd3

# Imported by name: the library has no types.
diffusers: Any = import_module("diffusers")
TRANSFORMERS = ("pixart", "dit", "sd3", "flux")
TWO = ["one", "another"]
Make = Callable[..., Ready]


def with_keywords(pipe: Any, module: Any, steps: int, **keywords: Any) -> Ready:
    """A pipeline with one cache applied as a program does it, its numbers written out."""
    made = accelerated(pipe, {}, steps)
    module.apply(made.pipe, made.ctx, **keywords)
    return made


def shown(made: Ready, module: Any, prompt: Any = "one", **extra: Any) -> Any:
    module.reset(made.pipe)
    return made.latents(prompt, **extra)


def watched(module: Any) -> list[int]:
    """Batches with which a module is entered from now on."""
    found: list[int] = []

    def note(_: Any, args: Any, kwargs: Mapping[str, Any]) -> None:
        tensors = [v for v in (*args, *kwargs.values()) if isinstance(v, torch.Tensor)]
        found.append(tensors[0].shape[0])

    # Inside of whatever wraps the module's forward: a layer of its own. Not the first one of a
    # block: DiT's head reads the embedding in there as well.
    module = getattr(module, "attn1", None) or getattr(module, "attn", None) or module
    inner = next(m for m in module.modules() if isinstance(m, torch.nn.Linear))
    inner.register_forward_pre_hook(note, with_kwargs=True)
    return found


@pytest.mark.parametrize("model", TRANSFORMERS)
def test_a_first_block_that_always_changes_too_much_changes_no_picture(model: str) -> None:
    made = with_keywords(ARCHITECTURES[model](), first_block_cache, 4, threshold=0.0)
    plain = accelerated(ARCHITECTURES[model](), {}, 4).latents("one")
    torch.testing.assert_close(shown(made, first_block_cache), plain, atol=1e-5, rtol=1e-5)
    assert "none of 4 denoiser calls" in str(first_block_cache.active(made.pipe))


@pytest.mark.parametrize("model", TRANSFORMERS)
def test_a_first_block_that_may_always_reuse_runs_alone(model: str) -> None:
    made = with_keywords(ARCHITECTURES[model](), first_block_cache, 4, threshold=1e9)
    blocks = made.pipe.transformer.transformer_blocks
    first, second = watched(blocks[0]), watched(blocks[1])
    assert torch.isfinite(shown(made, first_block_cache)).all()
    assert len(first) == 4
    assert len(second) == 1
    assert first_block_cache.active(made.pipe) == (
        "all 4 denoiser calls but the first reused the blocks"
    )


def test_the_last_block_of_stable_diffusion_3_always_runs() -> None:
    made = with_keywords(tiny_sd3(), first_block_cache, 4, threshold=1e9)
    last = watched(made.pipe.transformer.transformer_blocks[-1])
    shown(made, first_block_cache)
    assert len(last) == 4


@pytest.mark.parametrize(
    ("module", "keywords"),
    [
        (first_block_cache, {"threshold": 1e9}),
        (magcache, {"ratios": (1.0,) * 5, "threshold": 9.0, "skips": 4, "retention": 0.1}),
        (taylorseer, {"interval": 3, "warmup": 2, "order": 1, "layers": "model"}),
    ],
)
def test_guidance_in_two_calls_keeps_its_halves_apart(
    module: Any, keywords: dict[str, Any]
) -> None:
    """Equal halves make guidance void, so nothing of one may show in the other."""
    made = with_keywords(tiny_flux(), module, 5, **keywords)
    given = made.pipe.embeddings
    negative = {f"negative_{k}": v for k, v in given.items() if "embeds" in k}
    alone = shown(made, module)
    both = shown(made, module, true_cfg_scale=4.0, **negative)
    torch.testing.assert_close(both, alone, atol=1e-4, rtol=1e-4)
    other = {k: torch.randn_like(v) for k, v in negative.items()}
    shown(made, module, true_cfg_scale=4.0, **other)
    state = next(v for k, v in vars(made.pipe).items() if k.endswith("_state"))
    assert len(state.names) == 2


@pytest.mark.parametrize(
    ("module", "keywords"),
    [
        (first_block_cache, {"threshold": 1e9}),
        (magcache, {"ratios": (1.0,) * 4, "threshold": 9.0, "skips": 4, "retention": 0.1}),
        (taylorseer, {"interval": 3, "warmup": 2, "order": 1, "layers": "attention"}),
    ],
)
def test_pipelines_that_open_no_context_are_served(module: Any, keywords: dict[str, Any]) -> None:
    base = tiny_flux()
    pipe = diffusers.FluxImg2ImgPipeline(**base.components)
    pipe.set_progress_bar_config(disable=True)
    pipe.embeddings = base.embeddings
    made = with_keywords(pipe, module, 8, **keywords)
    picture = torch.zeros(1, 3, 64, 64)
    image = shown(made, module, image=picture, strength=0.5)
    assert torch.isfinite(image).all()
    assert len(made.batches) == 4
    state = next(v for k, v in vars(made.pipe).items() if k.endswith("_state"))
    assert getattr(state, "reused", getattr(state, "skipped", getattr(state, "forecast", 0))) > 0


@pytest.mark.parametrize("name", ["first_block_cache", "magcache", "taylorseer", "pab"])
@pytest.mark.parametrize("model", ["sd3", "pixart"])
def test_a_batch_that_shrinks_with_guidance_starts_afresh(
    ready: Make, name: str, model: str
) -> None:
    genome: dict[str, Any] = {name: {}, "guidance": {"stop": 0.5}}
    if name == "taylorseer":
        genome[name] = {"warmup": 2, "interval": 2}
    used, new = (ready(genome, steps=8, pipe=ARCHITECTURES[model]()) for _ in range(2))
    inner = watched(used.pipe.transformer.transformer_blocks[0])
    used.latents(TWO, seed=5)
    assert {2, 4} == set(inner)
    torch.testing.assert_close(used.latents(), new.latents(), atol=1e-4, rtol=1e-4)
    assert set(used.reasons().values()) == {None}


def test_a_threshold_is_the_quantile_of_what_was_measured() -> None:
    measured = {"changes": [i / 100 for i in range(101)]}
    for quantile in (0.1, 0.5, 0.9):
        found = first_block_cache.calibrated(measured, quantile=quantile)
        assert found["threshold"] == pytest.approx(quantile, abs=0.011)
    with pytest.raises(ValueError, match="no changes to measure"):
        first_block_cache.calibrated({"changes": []}, quantile=0.5)


def test_changes_are_measured_between_neighbouring_calls(ready: Make) -> None:
    made = accelerated(tiny_flux(), {}, 5)
    runs = [lambda seed=seed: made.latents(seed=seed) for seed in range(2)]
    found = first_block_cache.calibrate(made.pipe, made.ctx, runs)["changes"]
    assert len(found) == 2 * 4
    assert all(0 < change < 10 for change in found)


def test_a_higher_quantile_reuses_more(ready: Make) -> None:
    reused = []
    for quantile in (0.1, 0.5, 0.9):
        made = ready({"first_block_cache": {"quantile": quantile}}, steps=12, pipe=tiny_flux())
        made.latents()
        reused.append(made.pipe._first_block_cache_state.reused)
    assert reused[0] < reused[1] < reused[2]


def test_predicted_errors_add_up_over_skips() -> None:
    errors = magcache.predicted_errors([1.0, 1.0, 0.9, 0.9, 1.0], 2, 0.4)
    # From the third call: 0.1, then 0.1 + 0.19; from the fourth twice 0.1; from the last nothing.
    assert errors == pytest.approx([0.1, 0.29, 0.1, 0.2, 0.0])
    measured = {"ratios": [1.0, 1.0, 0.9, 0.9, 1.0]}
    found = magcache.calibrated(measured, quantile=0.5, skips=2, retention=0.4)
    assert found == {
        "ratios": (1.0, 1.0, 0.9, 0.9, 1.0),
        "threshold": pytest.approx(0.1),
        "skips": 2,
        "retention": 0.4,
    }
    with pytest.raises(ValueError, match="too few to skip"):
        magcache.calibrated({"ratios": [1.0]}, quantile=0.5, skips=2, retention=0.1)


@pytest.mark.parametrize("model", TRANSFORMERS)
def test_ratios_are_measured_for_every_call(model: str) -> None:
    made = accelerated(ARCHITECTURES[model](), {}, 5)
    runs = [lambda: made.latents(seed=1), lambda: made.latents(seed=2)]
    ratios = magcache.calibrate(made.pipe, made.ctx, runs)["ratios"]
    assert len(ratios) == 5
    assert ratios[0] == 1.0
    assert all(0.1 < ratio < 10 for ratio in ratios)


def test_ratios_are_laid_over_the_calls_of_the_image() -> None:
    ratios = (1.0, 1.0, 1.0, 1.0, 1.0, 1.0, 5.0, 5.0)
    keywords = {"threshold": 0.5, "skips": 4, "retention": 0.1}
    made = with_keywords(tiny_flux(), magcache, 8, ratios=ratios, **keywords)
    ran = watched(made.pipe.transformer.transformer_blocks[0])
    for steps in (8, 4, 8):
        ran.clear()
        shown(made, magcache, num_inference_steps=steps)
        # The last quarter of the calls is steep, whatever their number.
        assert made.pipe._magcache_state.config.mag_ratios.tolist()[-steps // 4 :] == [5.0] * (
            steps // 4
        )
        assert made.pipe._magcache_state.skipped + len(ran) == steps
        assert 0 < made.pipe._magcache_state.skipped < steps - 1


@pytest.mark.parametrize("model", TRANSFORMERS)
def test_forecasts_skip_every_block_between_full_passes(model: str) -> None:
    keywords = {"interval": 3, "warmup": 2, "order": 1, "layers": "model"}
    made = with_keywords(ARCHITECTURES[model](), taylorseer, 9, **keywords)
    first = watched(made.pipe.transformer.transformer_blocks[0])
    assert torch.isfinite(shown(made, taylorseer)).all()
    # 0 and 1 warm up, 3 and 6 refresh.
    assert made.pipe._taylorseer_state.forecast == 5
    assert len(first) == 4
    assert taylorseer.active(made.pipe) is None


@pytest.mark.parametrize("model", TRANSFORMERS)
def test_forecasts_of_attention_leave_the_rest_running(model: str) -> None:
    keywords = {"interval": 3, "warmup": 2, "order": 2, "layers": "attention"}
    made = with_keywords(ARCHITECTURES[model](), taylorseer, 9, **keywords)
    block = made.pipe.transformer.transformer_blocks[0]
    attention = watched(getattr(block, "attn1", None) or block.attn)
    rest = watched(block.ff)
    assert torch.isfinite(shown(made, taylorseer)).all()
    assert len(attention) < len(rest) == 9
    assert len(attention) == 4


def test_a_forecast_continues_a_line() -> None:
    """On a denoiser whose last layer moves evenly a forecast is as good as the truth."""
    from diffusers.hooks.taylorseer_cache import TaylorSeerState

    state = TaylorSeerState(taylor_factors_dtype=torch.float32, max_order=1)
    for step in range(3):
        state.current_step = step
        state.update((torch.full((2,), 3.0 * step),))
    state.current_step = 5
    assert state.predict()[0].tolist() == [15.0, 15.0]


def test_a_warm_up_as_long_as_the_image_is_reported() -> None:
    keywords = {"interval": 3, "warmup": 10, "order": 1, "layers": "model"}
    made = with_keywords(tiny_flux(), taylorseer, 4, **keywords)
    shown(made, taylorseer)
    assert "all fell into the warm-up" in str(taylorseer.active(made.pipe))


@pytest.mark.parametrize("model", TRANSFORMERS)
def test_attention_is_broadcast_in_its_range_only(model: str) -> None:
    keywords = {"every": 2, "cross": 4, "start": 0.2, "stop": 0.6}
    made = with_keywords(ARCHITECTURES[model](), pab, 10, **keywords)
    block = made.pipe.transformer.transformer_blocks[0]
    attention = watched(getattr(block, "attn1", None) or block.attn)
    assert torch.isfinite(shown(made, pab)).all()
    # Of the calls 2 to 5 the odd ones are left out.
    assert len(attention) == 8
    if model == "pixart":
        cross = watched(block.attn2)
        shown(made, pab)
        # Of the calls 2 to 5 only call 4 is computed.
        assert len(cross) == 7
    assert pab.active(made.pipe) is None


@pytest.mark.parametrize(
    ("module", "keywords"),
    [
        (pab, {"every": 2, "cross": 2, "start": 0.2, "stop": 0.9}),
        (faster_cache, {"start": 0.3, "uncond": 3, "weight": 0.5}),
    ],
)
def test_two_calls_a_step_are_refused_where_they_would_be_mixed(
    module: Any, keywords: dict[str, Any]
) -> None:
    made = with_keywords(tiny_flux(), module, 4, **keywords)
    given = made.pipe.embeddings
    negative = {f"negative_{k}": v for k, v in given.items() if "embeds" in k}
    with pytest.raises(ValueError, match="calls its denoiser more than once a step"):
        shown(made, module, true_cfg_scale=4.0, **negative)


def test_the_unconditional_half_is_left_out_behind_the_start() -> None:
    keywords = {"start": 0.4, "uncond": 3, "weight": 0.5}
    made = with_keywords(tiny_sd3(), faster_cache, 10, **keywords)
    inner = watched(made.pipe.transformer.transformer_blocks[0].ff)
    assert torch.isfinite(shown(made, faster_cache)).all()
    # Behind the fourth call every third one is whole.
    assert inner == [2, 2, 2, 2, 1, 1, 2, 1, 1, 2]
    assert faster_cache.active(made.pipe) is None


def test_attention_alone_is_estimated_where_guidance_is_off() -> None:
    keywords = {"start": 0.4, "uncond": 3, "weight": 0.5}
    made = with_keywords(tiny_sd3(), faster_cache, 10, **keywords)
    assert torch.isfinite(shown(made, faster_cache, TWO, guidance_scale=1.0)).all()
    state = made.pipe._faster_cache_state
    assert state.hooks[0].is_guidance_distilled
    assert state.ran < state.asked


@pytest.mark.parametrize("model", ["pixart", "dit"])
def test_pipelines_that_hide_their_halves_are_refused(model: str) -> None:
    assert "does not say which half" in str(faster_cache.unfit(ARCHITECTURES[model]()))
    assert faster_cache.unfit(tiny_flux()) is None
    assert faster_cache.unfit(tiny_sd3()) is None


def test_unknown_blocks_are_refused_with_a_reason() -> None:
    pipe = tiny_sd3()
    pipe.transformer = torch.nn.Sequential(torch.nn.Linear(2, 2))
    for module in (first_block_cache, magcache, taylorseer, pab, faster_cache):
        assert str(module.unfit(pipe)).startswith("Sequential has no")


def test_caches_exclude_each_other() -> None:
    from engine.errors import UsageError

    names = ("first_block_cache", "magcache", "taylorseer", "pab", "faster_cache", "deepcache")
    assert {find(name).slot for name in names} == {"feature_cache"}
    with pytest.raises(UsageError, match="share the slot"):
        canonical({"magcache": {}, "pab": {}})


def test_a_program_is_refused_as_long_as_nothing_was_measured() -> None:
    from engine.calibration import keywords

    strategy = find("first_block_cache")
    with pytest.raises(TrialError, match="has measured nothing yet"):
        keywords(strategy, {"quantile": 0.5}, {})
    with pytest.raises(TrialError, match="no changes to measure"):
        keywords(strategy, {"quantile": 0.5}, {"first_block_cache": {"changes": []}})
