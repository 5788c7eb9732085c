"""First-block cache: when the first block of a transformer changes little, the rest is reused.

What it does: each denoiser call computes the first block. If what that block adds differs by less
than a threshold from what it added at the last full pass, what all later blocks added then is
added again instead of being computed. diffusers' own hooks do this block by block; they are placed
here by hand, so that they also serve models without ``enable_cache`` (Stable Diffusion 3, PixArt,
DiT) and pipelines that open no ``cache_context`` (FLUX image to image).

When it pays: transformers at 20 steps or more; the gain is nearly the share of calls that reuse.
At 4 steps neighbouring calls differ too much.

Genes: ``quantile`` sets the threshold: it is that quantile of the changes from one call to the
next, measured on this model with this sampler before the program is written, which then holds the
plain number. 0.5 lets half of the calls that follow a full pass be reused. Published thresholds
for FLUX are 0.05 to 0.2.

How it fails: reuse adds up, so faces and text drift at high quantiles. One decision is taken for
the whole batch, both halves of guidance included, since they share their call; so an image may
differ a little with its neighbours in a batch. Guidance in two calls a step keeps a state for each
of them, and another size or batch starts afresh; both are told apart here, as diffusers' hooks
would mix them where the pipeline says nothing. The last block of Stable Diffusion 3 gives no text,
on which diffusers' hook breaks off; it is left out and always runs. Each decision waits for the
GPU. Compilation takes the parts of the blocks, not the whole. A threshold that never or always
reuses is reported as inactive.

Published: ParaAttention, README: FLUX.1-dev on an L20, 28 steps: threshold 0.08 26.36 to 17.01 s
(1.55x), 0.12 13.78 s (1.91x); HunyuanVideo 1.62x. unsloth 6703: 1.40x on top of compilation on a
B200 at LPIPS 0.08.
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
        KnownGood({"quantile": 0.35}, "README of ParaAttention: FLUX on an L20 1.55x at 0.08"),
        KnownGood({"quantile": 0.5}, "README of ParaAttention: FLUX on an L20 1.91x at 0.12"),
    ),
)
@dataclass(frozen=True)
class FirstBlockCache:
    """Genes of the first-block cache."""

    quantile: float = gene(
        0.4,
        "quantile of the measured changes that calls may reuse",
        low=0.1,
        high=0.9,
        step=0.05,
    )


def known_blocks(network: Any) -> list[Any]:
    """The transformer blocks in the order in which they run, as far as diffusers' hooks know them.

    A last block that gives no text stays out.
    """
    from diffusers.hooks._helpers import TransformerBlockRegistry

    found = []
    for name, child in network.named_children():
        for block in child if name in LISTS else ():
            try:
                TransformerBlockRegistry.get(type(block))
            except ValueError:
                return []
            found.append(block)
    if found and getattr(found[-1], "context_pre_only", False):
        found.pop()
    return found


class FirstBlock:
    """Keeps the calls of one image apart and counts those that reused."""

    def __init__(self, manager: Any, compute: Any) -> None:
        self.manager = manager
        self.compute = compute
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
        self.reused = 0

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        """The denoiser's forward, with the state of this kind of call."""
        from diffusers.hooks.hooks import CacheContext

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
            self.reused += not self.manager.get_state().should_compute
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


def apply(pipe: Any, ctx: Any, *, threshold: float) -> None:
    from diffusers.hooks import HookRegistry
    from diffusers.hooks.first_block_cache import (
        FBCBlockHook,
        FBCHeadBlockHook,
        FBCSharedBlockState,
    )
    from diffusers.hooks.hooks import StateManager

    manager = StateManager(FBCSharedBlockState, (), {})
    blocks = known_blocks(pipe.transformer)
    for place, block in enumerate(blocks):
        last = place == len(blocks) - 1
        hook = FBCBlockHook(manager, last) if place else FBCHeadBlockHook(manager, threshold)
        HookRegistry.check_if_exists_or_initialize(block).register_hook(hook, "first_block_cache")
    pipe._first_block_cache_state = FirstBlock(manager, pipe.transformer.forward)
    pipe.transformer.forward = pipe._first_block_cache_state.forward
    count_steps(pipe.scheduler, pipe._first_block_cache_state)


def reset(pipe: Any) -> None:
    pipe._first_block_cache_state.clear()


def active(pipe: Any) -> str | None:
    """Whether some calls of the last image reused the later blocks and some did not."""
    state = pipe._first_block_cache_state
    if state.reused == 0:
        return f"none of {state.calls} denoiser calls changed little enough to reuse the blocks"
    if state.reused == state.calls - len(state.names):
        return f"all {state.calls} denoiser calls but the first reused the blocks"
    return None


def unfit(pipe: Any) -> str | None:
    """Why its blocks cannot be skipped, or None."""
    found = known_blocks(pipe.transformer)
    if len(found) < 3:
        return f"{type(pipe.transformer).__name__} has no blocks that diffusers' hooks know"
    return None


def calibrate(pipe: Any, ctx: Any, runs: Sequence[Callable[[], Any]]) -> dict[str, Any]:
    """How much the first block's share changes from one call to the next, relative to its size."""
    apply(pipe, ctx, threshold=-1.0)
    state = pipe._first_block_cache_state
    last: dict[str, Any] = {}
    changes: list[float] = []

    def note(*_: Any) -> None:
        for name, kept in state.manager._state_cache.items():
            before, now = last.get(name), kept.head_block_residual
            if before is not None and now is not before:
                changes.append(float((now - before).abs().mean() / before.abs().mean()))
            last[name] = now

    pipe.transformer.register_forward_hook(note)
    for run in runs:
        reset(pipe)
        last.clear()
        run()
    return {"changes": changes}


def calibrated(measured: dict[str, Any], *, quantile: float) -> dict[str, Any]:
    """The threshold that this quantile of the measured changes is."""
    from statistics import quantiles

    changes = measured["changes"]
    if len(changes) < 2:
        raise ValueError("an image of a single denoiser call has no changes to measure")
    cuts = quantiles(changes, n=100, method="inclusive")
    return {"threshold": float(f"{cuts[round(100 * quantile) - 1]:.4g}")}
