"""MagCache: calls are skipped where the size of what a transformer adds is known to be steady.

What it does: what all blocks together add to the image changes in size from call to call by a
ratio that hardly depends on the prompt. The ratios are measured once on this model with this
sampler and written into the program as plain numbers. A call is skipped, and the last sum is
added again, while the error that the ratios predict stays below a threshold. diffusers' own
hooks do this; they are placed here by hand, so that they also serve models without
``enable_cache`` and pipelines that open no ``cache_context``.

When it pays: transformers at 20 steps or more, guided or distilled. Unlike a first-block cache it
computes nothing at all in a skipped call and waits for no decision from the GPU.

Genes: ``quantile`` sets the threshold as a quantile of the errors that skipping would bring on this
model; published thresholds are 0.06 to 0.24. ``skips`` is the most calls in a row that may be
skipped. ``retention`` is the fraction of the calls, from the first one, that always run.

How it fails: the ratios belong to a checkpoint, a sampler and its steps; a fine-tune needs its own.
Quality varies with the prompt (MagCache issue 27). diffusers' hook takes the number of steps once
and starts over when it is reached, which is wrong for an initial image or another number of
steps: here every image starts afresh and the ratios are laid over the calls that it makes. Halves
of guidance in two calls, and sizes and batches, keep states of their own. A threshold that never
or always skips is reported as inactive.

Paper: Ma et al., MagCache, arXiv 2506.09045. Figures from the authors' repository: HunyuanVideo
2.8x at PSNR 26.8 (TeaCache 2.3x at 22.8), Wan 2.1 14B 3.0x at 23.7 (TeaCache 2.3x at 13.7).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from engine.strategy import KnownGood, Needs, gene, strategy

# Lists of blocks as the models of diffusers call them.
LISTS = ("transformer_blocks", "single_transformer_blocks", "blocks", "layers")


@strategy(
    slot="feature_cache",
    order=70,
    exact=False,
    needs=Needs(backbone=("transformer",)),
    known_good=(
        KnownGood(
            {"quantile": 0.5, "skips": 3, "retention": 0.2},
            "diffusers, MagCacheConfig: its defaults; the quantile lies near its threshold of 0.06",
        ),
        KnownGood(
            {"quantile": 0.7, "skips": 4, "retention": 0.2},
            "MagCache, arXiv 2506.09045: the fast setting, at most four skips",
        ),
    ),
)
@dataclass(frozen=True)
class MagCache:
    """Genes of MagCache."""

    quantile: float = gene(
        0.5, "quantile of the predicted errors below which calls are skipped",
        low=0.1, high=0.9, step=0.05,
    )  # fmt: skip
    skips: int = gene(3, "most calls skipped in a row", low=1, high=4, step=1)
    retention: float = gene(
        0.2, "fraction of the calls that run before the first skip", low=0.1, high=0.4, step=0.05
    )


def known_blocks(network: Any) -> list[Any]:
    """The transformer blocks in the order of their use, as far as diffusers' hooks know them."""
    from diffusers.hooks._helpers import TransformerBlockRegistry

    found = []
    for name, child in network.named_children():
        for block in child if name in LISTS else ():
            try:
                TransformerBlockRegistry.get(type(block))
            except ValueError:
                return []
            found.append(block)
    return found


class Magnitudes:
    """Keeps the calls of one image apart, lays the ratios over them and counts what was skipped."""

    def __init__(self, pipe: Any, manager: Any, config: Any) -> None:
        self.pipe = pipe
        self.manager = manager
        self.config = config
        self.ratios = config.mag_ratios
        self.compute = pipe.transformer.forward
        self.clear()

    def clear(self) -> None:
        """Forget the last image."""
        self.manager.reset()
        self.steps = 0
        self.seen = -1
        self.turn = 0
        # Pipelines may empty the manager at the end of an image, so the states are counted here.
        self.names: set[str] = set()
        self.calls = 0
        self.skipped = 0

    def lay_out(self) -> None:
        """Stretch the ratios over the calls of this image."""
        from diffusers.hooks.mag_cache import nearest_interp

        times = self.pipe.scheduler.timesteps
        count = getattr(self.pipe, "num_timesteps", None) or len(times)
        if self.ratios is not None:
            self.config.mag_ratios = nearest_interp(self.ratios, count)
        # One more, so that the hook never starts over within an image.
        self.config.num_inference_steps = count + 1

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        """The denoiser's forward, with the state of this kind of call."""
        from diffusers.hooks.hooks import CacheContext

        if self.calls == 0:
            self.lay_out()
        sample = args[0] if args else kwargs["hidden_states"]
        # A second call within one step is the other half of guidance.
        self.turn = self.turn + 1 if self.seen == self.steps else 0
        self.seen = self.steps
        outer = self.manager._context
        name = f"{outer.name if outer else ''} {self.turn} {tuple(sample.shape)}"
        self.names.add(name)
        self.manager.set_context(CacheContext(name))
        try:
            output = self.compute(*args, **kwargs)
            self.calls += 1
            self.skipped += not self.manager.get_state().should_compute
        finally:
            self.manager.set_context(outer)
        return output


def count_steps(scheduler: Any, state: Any) -> None:
    """Let the scheduler count its steps in ``state.steps``: calls between two of them belong
    together, and no tensor has to be read to see that."""
    from functools import wraps

    step = scheduler.step

    # Pipelines read its parameters.
    @wraps(step)
    def counted(*args: Any, **kwargs: Any) -> Any:
        state.steps += 1
        return step(*args, **kwargs)

    scheduler.step = counted


def place_hooks(pipe: Any, config: Any) -> None:
    """diffusers' hooks on all blocks, with one state for them all."""
    from diffusers.hooks import HookRegistry
    from diffusers.hooks.hooks import StateManager
    from diffusers.hooks.mag_cache import MagCacheBlockHook, MagCacheHeadHook, MagCacheState

    manager = StateManager(MagCacheState, (), {})
    blocks = known_blocks(pipe.transformer)
    for number, block in enumerate(blocks):
        last = number == len(blocks) - 1
        tail = MagCacheBlockHook(manager, last, config)
        hook = tail if number else MagCacheHeadHook(manager, config)
        HookRegistry.check_if_exists_or_initialize(block).register_hook(hook, "magcache")
    pipe._magcache_state = Magnitudes(pipe, manager, config)
    pipe.transformer.forward = pipe._magcache_state.forward
    count_steps(pipe.scheduler, pipe._magcache_state)


def apply(
    pipe: Any, ctx: Any, *, ratios: Any, threshold: float, skips: int, retention: float
) -> None:
    from diffusers import MagCacheConfig

    config = MagCacheConfig(
        threshold=threshold,
        max_skip_steps=skips,
        retention_ratio=retention,
        num_inference_steps=len(ratios),
        mag_ratios=list(ratios),
    )
    place_hooks(pipe, config)


def reset(pipe: Any) -> None:
    pipe._magcache_state.clear()


def active(pipe: Any) -> str | None:
    """Whether some calls of the last image were skipped and more than the first ones ran."""
    state = pipe._magcache_state
    if state.skipped == 0:
        return f"none of {state.calls} denoiser calls could be skipped below the threshold"
    if state.skipped == state.calls - len(state.names):
        return f"all {state.calls} denoiser calls but the first were skipped"
    return None


def unfit(pipe: Any) -> str | None:
    """Why its blocks cannot be skipped, or None."""
    if len(known_blocks(pipe.transformer)) < 2:
        return f"{type(pipe.transformer).__name__} has no blocks that diffusers' hooks know"
    return None


def calibrate(pipe: Any, ctx: Any, runs: Sequence[Callable[[], Any]]) -> dict[str, Any]:
    """The ratio of the size of what the blocks add to that of the call before, by call."""
    from diffusers import MagCacheConfig

    place_hooks(pipe, MagCacheConfig(calibrate=True))
    manager = pipe._magcache_state.manager
    lists: dict[str, list[float]] = {}

    def note(*_: Any) -> None:
        # Kept now, since pipelines may empty the manager at the end of an image.
        for name, state in manager._state_cache.items():
            lists[name] = state.calibration_ratios

    pipe.transformer.register_forward_hook(note)
    found: list[list[float]] = []
    for run in runs:
        reset(pipe)
        lists.clear()
        run()
        found += lists.values()
    count = max(map(len, found))
    whole = [ratios for ratios in found if len(ratios) == count]
    return {"ratios": [sum(column) / len(whole) for column in zip(*whole, strict=True)]}


def predicted_errors(ratios: Sequence[float], skips: int, retention: float) -> list[float]:
    """The errors that the method adds up when it skips one, two and more calls from any on."""
    found = []
    for start in range(max(1, int(retention * len(ratios) + 0.5)), len(ratios)):
        share, error = 1.0, 0.0
        for ratio in ratios[start : start + skips]:
            share *= ratio
            error += abs(1 - share)
            found.append(error)
    return found


def calibrated(
    measured: dict[str, Any], *, quantile: float, skips: int, retention: float
) -> dict[str, Any]:
    """The measured ratios, and the threshold that this quantile of the errors is."""
    from statistics import quantiles

    ratios = tuple(round(ratio, 5) for ratio in measured["ratios"])
    errors = predicted_errors(ratios, skips, retention)
    if len(errors) < 2:
        raise ValueError(f"{len(ratios)} denoiser calls are too few to skip any of them")
    cuts = quantiles(errors, n=100, method="inclusive")
    return {
        "ratios": ratios,
        "threshold": float(f"{cuts[round(100 * quantile) - 1]:.4g}"),
        "skips": skips,
        "retention": retention,
    }
