"""TaylorSeer: between full passes the features of a transformer are forecast, not reused.

What it does: a full pass stores the outputs of some layers and their differences to the last full
pass. In the calls between, these layers answer with the polynomial through the stored values
(a Taylor series by finite differences) and compute nothing. diffusers' hook does it layer by layer.

When it pays: transformers at 20 steps or more. Forecasts follow a trend, so longer intervals are
possible than with plain reuse; memory grows with the layers that are stored.

Genes: ``interval`` is the distance between full passes. ``warmup`` is the number of calls that are
computed first. ``order`` is the degree of the polynomial: 1 is a line; 2 needs three full passes
and follows noise as well. ``layers``: ``attention`` forecasts the output of each attention, so
only attention is saved; ``model`` forecasts the last layer of the whole transformer and skips
its blocks, which saves nearly everything and stores one tensor.

How it fails: detail is lost and shapes double at long intervals; with ``attention`` every block
keeps ``order + 1`` tensors for its whole batch (the authors report more than 50 GB for FLUX). The
hook needs the pipeline to say which half of guidance it computes and breaks off where it says
nothing; here a context is set for every call, one for each call of a step and each size and
batch, so that halves are not mixed and a batch that shrinks starts afresh with its warm-up. Lite
mode of the hook itself looks for ``proj_out``, which DiT calls otherwise, and asks the missing
text of Stable Diffusion 3's last block for its shape; both are handled here. Forecasts are kept
in the model's own dtype, where the hook would take bfloat16. Compilation takes the parts that
no hook has wrapped.

Paper: Liu et al., From Reusing to Forecasting, arXiv 2503.06923: FLUX 3.53x in latency,
HunyuanVideo 4.65x at interval 5 to 6 and order 1 to 2, by the authors' own measure.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from engine.strategy import KnownGood, Needs, gene, strategy

# Lists of blocks as the models of diffusers call them, and their last layers.
LISTS = ("transformer_blocks", "single_transformer_blocks", "blocks", "layers")
LAST = ("proj_out", "proj_out_2")


@strategy(
    slot="feature_cache",
    order=70,
    exact=False,
    needs=Needs(backbone=("transformer",)),
    known_good=(
        KnownGood(
            {"interval": 5, "warmup": 3, "order": 1, "layers": "model"},
            "diffusers, TaylorSeerCacheConfig: its defaults in lite mode",
        ),
        KnownGood(
            {"interval": 3, "warmup": 3, "order": 1, "layers": "attention"},
            "arXiv 2503.06923: the shortest interval for FLUX",
        ),
    ),
)
@dataclass(frozen=True)
class TaylorSeer:
    """Genes of TaylorSeer."""

    interval: int = gene(3, "denoiser calls from one full pass to the next", low=2, high=7, step=1)
    warmup: int = gene(3, "full passes before the first forecast", low=2, high=10, step=1)
    order: int = gene(1, "degree of the polynomial", low=1, high=2, step=1)
    layers: str = gene("model", "what is forecast", choices=("attention", "model"))


def chosen(network: Any, layers: str) -> tuple[list[str], list[str]]:
    """Names of the layers that are forecast and of those that are skipped meanwhile."""
    lists = {name: child for name, child in network.named_children() if name in LISTS}
    if layers == "attention":
        forecast = [
            f"{path}.{index}.{name}"
            for path, blocks in lists.items()
            for index, block in enumerate(blocks)
            for name, child in block.named_children()
            if name.startswith("attn") and child is not None
        ]
        return forecast, []
    # The last block of Stable Diffusion 3 has no text to answer with, so it runs on.
    skipped = [
        f"{path}.{index}"
        for path, blocks in lists.items()
        for index, block in enumerate(blocks)
        if not getattr(block, "context_pre_only", False)
    ]
    last = [name for name in LAST if getattr(network, name, None) is not None]
    return last[-1:], skipped


class Forecast:
    """Sets a context for every denoiser call, and counts those that were forecast."""

    def __init__(self, network: Any, hooks: list[Any]) -> None:
        self.compute = network.forward
        self.hooks = hooks
        self.clear()

    def clear(self) -> None:
        """Forget the last image."""
        for hook in self.hooks:
            hook.state_manager.reset()
        self.steps = 0
        self.seen = -1
        self.turn = 0
        self.names: set[str] = set()
        self.calls = 0
        self.forecast = 0

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        """The denoiser's forward, with the state of this kind of call."""
        from diffusers.hooks.hooks import CacheContext

        sample = args[0] if args else kwargs["hidden_states"]
        # A second call within one step is the other half of guidance.
        self.turn = self.turn + 1 if self.seen == self.steps else 0
        self.seen = self.steps
        outer = self.hooks[0].state_manager._context
        name = f"{outer.name if outer else ''} {self.turn} {tuple(sample.shape)}"
        self.names.add(name)
        for hook in self.hooks:
            hook.state_manager.set_context(CacheContext(name))
        try:
            output = self.compute(*args, **kwargs)
            state = self.hooks[0].state_manager.get_state()
            self.calls += 1
            self.forecast += state.last_update_step != state.current_step
        finally:
            for hook in self.hooks:
                hook.state_manager.set_context(outer)
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


def apply(pipe: Any, ctx: Any, *, interval: int, warmup: int, order: int, layers: str) -> None:
    import re

    from diffusers import TaylorSeerCacheConfig
    from diffusers.hooks import apply_taylorseer_cache

    network = pipe.transformer
    forecast, skipped = chosen(network, layers)
    apply_taylorseer_cache(
        network,
        TaylorSeerCacheConfig(
            cache_interval=interval,
            disable_cache_before_step=warmup,
            max_order=order,
            taylor_factors_dtype=network.dtype,
            cache_identifiers=[re.escape(name) for name in forecast],
            skip_predict_identifiers=[re.escape(name) for name in skipped],
        ),
    )
    hooks = [
        network.get_submodule(name)._diffusers_hook.get_hook("taylorseer_cache")
        for name in (*forecast, *skipped)
    ]
    pipe._taylorseer_state = Forecast(network, hooks)
    network.forward = pipe._taylorseer_state.forward
    count_steps(pipe.scheduler, pipe._taylorseer_state)


def reset(pipe: Any) -> None:
    pipe._taylorseer_state.clear()


def active(pipe: Any) -> str | None:
    """Whether a call of the last image was forecast."""
    state = pipe._taylorseer_state
    if state.forecast == 0:
        return f"none of {state.calls} denoiser calls was forecast: all fell into the warm-up"
    return None


def unfit(pipe: Any) -> str | None:
    """Why its layers cannot be forecast, or None."""
    for layers in ("attention", "model"):
        forecast, skipped = chosen(pipe.transformer, layers)
        if not forecast or (layers == "model" and len(skipped) < 2):
            return f"{type(pipe.transformer).__name__} has no blocks and last layer that are known"
    return None
