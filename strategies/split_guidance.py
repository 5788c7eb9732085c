"""Split guidance: the two halves of classifier-free guidance run one after the other.

What it does: a guided call hands the denoiser a batch of two halves, without and with the prompt.
Here each half is a call of its own and the results are joined, so that activations of half the
batch are alive at a time. The values are the same up to rounding.

When it pays: where activations and not weights fill the memory (high resolution, many images at
once), or where memory decides whether an image fits at all. The operations are the same, so the
time is the same at best; a CPU without room in its caches can even gain a little.

Genes: none.

How it fails: GPUs are less busy with half the batch, so small pictures take longer. DeepCache
counts denoiser calls, T-GATE and the caches of attentions keep what the last call gave: all would
mix the halves, hence the conflicts. Models with distilled guidance run no halves and are refused.
Token merging pairs tokens at random in an even batch and without randomness in an odd one, so
beside it the picture changes, within what merging changes anyway. A compiled denoiser is compiled
block by block. After guidance has stopped nothing is split.

Published: none; the saving is arithmetic. Pipelines for transformers that call the model once for
each half (such as Wan's in diffusers) do the same.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from engine.strategy import Needs, strategy


@strategy(
    slot="split_guidance",
    order=82,
    exact=True,
    timed_only=True,
    for_memory=True,
    needs=Needs(guidance=True),
    # All keep results from one denoiser call to the next: the halves would be mixed.
    conflicts=("deepcache", "tgate", "pab", "faster_cache"),
)
@dataclass(frozen=True)
class SplitGuidance:
    """No genes: the halves run together or one after the other."""


def part_of(value: Any, batch: int, half: int) -> Any:
    """One half of every tensor of that batch, also inside lists and dictionaries."""
    import torch

    if isinstance(value, torch.Tensor):
        whole = value.dim() == 0 or value.shape[0] != batch
        return value if whole else value.chunk(2)[half]
    if isinstance(value, dict):
        return {key: part_of(item, batch, half) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return type(value)(part_of(item, batch, half) for item in value)
    return value


def joined(first: Any, second: Any) -> Any:
    """Both results as one, in the form that the denoiser gave them."""
    import torch

    if isinstance(first, torch.Tensor):
        return torch.cat([first, second])
    if isinstance(first, dict):
        return type(first)(**{key: joined(first[key], second[key]) for key in first})
    return tuple(joined(one, other) for one, other in zip(first, second, strict=True))


class Halves:
    """Stands before the denoiser's forward and counts the calls that it split."""

    def __init__(self, pipe: Any, compute: Any) -> None:
        self.pipe = pipe
        self.compute = compute
        self.clear()

    def clear(self) -> None:
        """Forget the last image."""
        self.calls = 0
        self.split = 0
        self.halves: dict[int, bool] = {}

    def doubled(self, sample: Any) -> bool:
        """Whether this call has both halves of guidance.

        A pipeline without a switch has them where the halves hold the same latents.
        """
        import torch

        if hasattr(type(self.pipe), "do_classifier_free_guidance"):
            return bool(self.pipe.do_classifier_free_guidance)
        rows = sample.shape[0]
        # Once for each size of a batch, as it waits for the device.
        if rows not in self.halves:
            self.halves[rows] = rows % 2 == 0 and torch.equal(*sample.chunk(2))
        return self.halves[rows]

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        # U-Nets and transformers name their first argument differently.
        sample: Any = args[0] if args else kwargs.get("sample", kwargs.get("hidden_states"))
        batch = sample.shape[0]
        self.calls += 1
        if not self.doubled(sample) or batch % 2:
            return self.compute(*args, **kwargs)
        self.split += 1
        return joined(
            *(
                self.compute(*part_of(args, batch, half), **part_of(kwargs, batch, half))
                for half in (0, 1)
            )
        )


def apply(pipe: Any, ctx: Any) -> None:
    denoiser = getattr(pipe, "unet", None) or pipe.transformer
    pipe._split_guidance_state = Halves(pipe, denoiser.forward)
    denoiser.forward = pipe._split_guidance_state.forward


def reset(pipe: Any) -> None:
    pipe._split_guidance_state.clear()


def active(pipe: Any) -> str | None:
    """Whether the last image ran a guided call in halves."""
    state = pipe._split_guidance_state
    if state.split == 0:
        return f"none of {state.calls} denoiser calls was guided with two halves"
    return None
