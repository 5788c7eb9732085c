"""Pyramid attention broadcast: attention is computed every few calls and its output kept between.

What it does: in the middle of the denoising the output of an attention changes little from call to
call. There it is computed at every n-th call only and the kept output stands in for it; everything
else runs. diffusers' hook does it layer by layer.

When it pays: models in which attention is a large part of the time: video transformers, and images
of many tokens. For a small image a cache of whole blocks saves more.

Genes: ``every`` is the distance between computed attentions. ``cross`` is the same for attentions
to the prompt alone (PixArt), which change least. ``start`` and ``stop`` are the fractions of the
denoising between which outputs are kept; before and after them all are computed.

How it fails: layout drifts when the range begins early. The hook asks for the current timestep,
which only some pipelines keep and which is a noise level for others; here the calls are counted.
It knows one state for each layer, so a pipeline that calls its denoiser twice in a step, for
guidance in two calls, would mix both halves: that is refused while it runs. A batch that shrinks
when guidance stops starts afresh. Memory grows by one output for each attention.

Paper: Zhao et al., Pyramid Attention Broadcast, arXiv 2408.12588. diffusers, pull requests 9562
and 10163: CogVideoX 245.9 to 184.0 s, Latte 31.7 to 27.5 s on an A100. No figures for images.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from engine.strategy import KnownGood, Needs, gene, strategy


@strategy(
    slot="feature_cache",
    order=70,
    exact=False,
    needs=Needs(backbone=("transformer",)),
    known_good=(
        KnownGood(
            {"every": 2, "cross": 4, "start": 0.2, "stop": 0.9},
            "diffusers documentation, PAB: spatial range 2, timesteps 800 to 100",
        ),
    ),
)
@dataclass(frozen=True)
class Pab:
    """Genes of pyramid attention broadcast."""

    every: int = gene(2, "calls from one computed attention to the next", low=2, high=4, step=1)
    cross: int = gene(4, "the same for attention to the prompt alone", low=2, high=6, step=1)
    start: float = gene(0.2, "fraction of the calls before it begins", low=0.1, high=0.5, step=0.1)
    stop: float = gene(0.9, "fraction of the calls at which it ends", low=0.6, high=1.0, step=0.1)


class Broadcast:
    """Counts the calls of an image and the attentions that were computed in them."""

    def __init__(self, pipe: Any) -> None:
        self.pipe = pipe
        self.compute = pipe.transformer.forward
        self.clear()

    def clear(self) -> None:
        """Forget the last image."""
        self.calls = 0
        self.shape: Any = None
        self.asked = 0
        self.ran = 0

    def progress(self) -> float:
        """The fraction of the denoising calls that are done."""
        return self.calls / self.total()

    def total(self) -> int:
        times = self.pipe.scheduler.timesteps
        return getattr(self.pipe, "num_timesteps", None) or len(times)

    def counted(self, compute: Any, name: str) -> Any:
        def forward(*args: Any, **kwargs: Any) -> Any:
            setattr(self, name, getattr(self, name) + 1)
            return compute(*args, **kwargs)

        return forward

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        """The denoiser's forward; a batch or size that changes forgets what was kept."""
        from diffusers.hooks import HookRegistry

        if self.calls >= self.total():
            raise ValueError(
                f"{type(self.pipe).__name__} calls its denoiser more than once a step: pab would "
                "mix the calls"
            )
        sample = args[0] if args else kwargs["hidden_states"]
        if sample.shape != self.shape:
            self.shape = sample.shape
            registry = HookRegistry.check_if_exists_or_initialize(self.pipe.transformer)
            registry.reset_stateful_hooks()
        output = self.compute(*args, **kwargs)
        self.calls += 1
        return output


def apply(pipe: Any, ctx: Any, *, every: int, cross: int, start: float, stop: float) -> None:
    from diffusers import PyramidAttentionBroadcastConfig
    from diffusers.hooks import apply_pyramid_attention_broadcast

    state = Broadcast(pipe)
    attentions = {m: m.forward for m in pipe.transformer.modules() if hasattr(m, "processor")}
    for module, forward in attentions.items():
        module.forward = state.counted(forward, "ran")
    apply_pyramid_attention_broadcast(
        pipe.transformer,
        PyramidAttentionBroadcastConfig(
            spatial_attention_block_skip_range=every,
            cross_attention_block_skip_range=cross,
            # Progress runs upwards and is whole at both ends; the hook's bounds are open.
            spatial_attention_timestep_skip_range=(start - 1e-6, stop),
            cross_attention_timestep_skip_range=(start - 1e-6, stop),
            current_timestep_callback=state.progress,
        ),
    )
    for module in attentions:
        module.forward = state.counted(module.forward, "asked")
    pipe._pab_state = state
    pipe.transformer.forward = state.forward


def reset(pipe: Any) -> None:
    pipe._pab_state.clear()


def active(pipe: Any) -> str | None:
    """Whether attentions of the last image were answered with what was kept."""
    state = pipe._pab_state
    if state.ran == state.asked:
        return f"all {state.asked} attentions were computed: too few calls lie in the range"
    return None


def unfit(pipe: Any) -> str | None:
    """Why the hook finds no attention, or None."""
    from diffusers.hooks._common import _ATTENTION_CLASSES

    if not any(isinstance(module, _ATTENTION_CLASSES) for module in pipe.transformer.modules()):
        return f"{type(pipe.transformer).__name__} has no attention that diffusers' hook knows"
    return None
