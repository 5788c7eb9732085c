"""FasterCache: the unconditional half is estimated, attention is computed every other call.

What it does: behind a part of the denoising, most guided calls run the conditional half only; the
other is put together from it and the difference of both at the last full call, low and high
frequencies apart. In those calls every second attention is replaced by a line through its last two
outputs. A model with distilled guidance has one half, and only its attentions are saved. diffusers'
hooks do both.

When it pays: guided transformers (Stable Diffusion 3) at 20 steps or more: a skipped half saves
half of a call. FLUX gains little, as only its attentions are saved.

Genes: ``start`` is the fraction of the calls before it begins. ``uncond`` is the distance between
calls that compute the unconditional half; it has no effect on models with distilled guidance.
``weight`` is how far along the line an attention is continued: 0 repeats the last output.

How it fails: colours shift when it begins early. The hook needs the current timestep, which few
pipelines keep; here calls are counted and turned into the timesteps that its constants are made
for. It takes the second half of a batch for the conditional one and splits only what it knows by
name, hence only pipelines that say whether they guide; those that put the conditional half first
(DiT) or hand over sizes in a dictionary (PixArt) are refused. Memory grows by two outputs for each
attention (CogVideoX 24.4 to 40.7 GB). Where guidance begins or stops the batch changes, and it
starts afresh with a full call; with one half only the attentions are saved.

Paper: Lv et al., FasterCache, arXiv 2410.19355. diffusers, pull request 10163: CogVideoX 245.9 to
159.0 s on an A100. No figures for images.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from engine.strategy import KnownGood, Needs, gene, strategy

# What models of diffusers are handed in one batch of both halves.
DOUBLED = (
    "hidden_states",
    "encoder_hidden_states",
    "timestep",
    "pooled_projections",
    "attention_mask",
    "encoder_attention_mask",
)


@strategy(
    slot="feature_cache",
    order=70,
    exact=False,
    needs=Needs(backbone=("transformer",)),
    # It would be handed single halves.
    conflicts=("split_guidance",),
    known_good=(
        KnownGood(
            {"start": 0.35, "uncond": 5, "weight": 0.5},
            "diffusers, FasterCacheConfig: timesteps below 641 to 681, every fifth call",
        ),
    ),
)
@dataclass(frozen=True)
class FasterCache:
    """Genes of FasterCache."""

    start: float = gene(0.35, "fraction of the calls before it", low=0.2, high=0.6, step=0.05)
    uncond: int = gene(5, "calls from one unconditional half to the next", low=2, high=6, step=1)
    weight: float = gene(
        0.5, "how far attention is continued along its line", low=0.0, high=1.0, step=0.25
    )


class Estimates:
    """Counts the calls of an image and the attentions that were computed in them."""

    def __init__(self, pipe: Any) -> None:
        self.pipe = pipe
        self.hooks: list[Any] = []
        self.attentions = 0
        self.compute: Any = None
        self.clear()

    def clear(self) -> None:
        """Forget the last image."""
        self.calls = 0
        self.since = 0
        self.shape: Any = None
        self.asked = 0
        self.ran = 0

    def total(self) -> int:
        times = self.pipe.scheduler.timesteps
        return getattr(self.pipe, "num_timesteps", None) or len(times)

    def timestep(self) -> float:
        """The place of this call on the scale of a thousand timesteps, downwards; the beginning
        where nothing is kept yet, since the hooks would estimate from nothing."""
        return 1000 * (1 - self.calls / self.total()) if self.calls > self.since else 1000.0

    def counted(self, compute: Any, name: str) -> Any:
        def forward(*args: Any, **kwargs: Any) -> Any:
            rows = next(v for v in (*args, *kwargs.values()) if hasattr(v, "shape")).shape[0]
            setattr(self, name, getattr(self, name) + rows)
            return compute(*args, **kwargs)

        return forward

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        """The denoiser's forward; a batch or size that changes forgets what was kept."""
        if self.calls >= self.total():
            raise ValueError(
                f"{type(self.pipe).__name__} calls its denoiser more than once a step: "
                "faster_cache would mix the calls"
            )
        sample = args[0] if args else kwargs["hidden_states"]
        if sample.shape != self.shape:
            self.shape, self.since = sample.shape, self.calls
            for hook in self.hooks:
                hook.state.reset()
                hook.is_guidance_distilled = not guided(self.pipe)
        # A full call computes each attention for every row of its batch.
        self.asked += sample.shape[0] * self.attentions
        output = self.compute(*args, **kwargs)
        self.calls += 1
        return output


def guided(pipe: Any) -> bool:
    """Whether the denoiser is handed both halves of guidance now; before its interval begins
    ``guidance`` leaves one out, of which the pipeline knows nothing."""
    interval = getattr(pipe, "_guidance_state", None)
    left_out = interval is not None and interval.narrowed
    return bool(getattr(pipe, "do_classifier_free_guidance", False)) and not left_out


def apply(pipe: Any, ctx: Any, *, start: float, uncond: int, weight: float) -> None:
    from diffusers import FasterCacheConfig
    from diffusers.hooks import apply_faster_cache

    network, state = pipe.transformer, Estimates(pipe)
    attentions = [module for module in network.modules() if hasattr(module, "processor")]
    for module in attentions:
        module.forward = state.counted(module.forward, "ran")
    late = (-1, 1000 * (1 - start) + 1e-3)
    apply_faster_cache(
        network,
        FasterCacheConfig(
            spatial_attention_timestep_skip_range=late,
            unconditional_batch_timestep_skip_range=late,
            unconditional_batch_skip_range=uncond,
            attention_weight_callback=lambda module: weight,
            tensor_format="BCHW",
            current_timestep_callback=state.timestep,
            _unconditional_conditional_input_kwargs_identifiers=list(DOUBLED),
        ),
    )
    hooked = [module for module in (network, *attentions) if hasattr(module, "_diffusers_hook")]
    state.hooks = [
        hook
        for module in hooked
        for name, hook in module._diffusers_hook.hooks.items()
        if name.startswith("faster_cache")
    ]
    state.attentions = len(attentions)
    state.compute = network.forward
    pipe._faster_cache_state = state
    network.forward = state.forward


def reset(pipe: Any) -> None:
    pipe._faster_cache_state.clear()


def active(pipe: Any) -> str | None:
    """Whether attentions of the last image were estimated, or rows of its batch left out."""
    state = pipe._faster_cache_state
    if state.ran >= state.asked:
        return f"all {state.calls} denoiser calls were computed: too few lie behind its start"
    return None


def unfit(pipe: Any) -> str | None:
    """Why the halves of its guidance cannot be told apart or it has no attention to save."""
    import inspect
    import re

    from diffusers.hooks._common import _ATTENTION_CLASSES

    if not any(isinstance(module, _ATTENTION_CLASSES) for module in pipe.transformer.modules()):
        return f"{type(pipe.transformer).__name__} has no attention that diffusers' hook knows"
    doubles = re.search(r"torch\.cat\(\[\w+\] \* 2\)", inspect.getsource(type(pipe).__call__))
    if doubles and not hasattr(type(pipe), "do_classifier_free_guidance"):
        return f"{type(pipe).__name__} does not say which half of its batch is guided"
    return None
