"""DeepCache: most steps reuse the deep features of a U-Net and compute its outer layers only.

What it does: high-level features change little between neighbouring steps. A full pass stores
the output of every block; the next ``interval - 1`` calls run only the layers above ``branch``
and take the rest from the store. Implemented by the package DeepCache 0.1.1, whose entry point
is replaced here (see below).

When it pays: U-Nets at 20 steps or more. Below about 10 steps neighbouring steps differ too much.

Genes: ``interval`` is the distance between full passes in denoiser calls: 3 is safe, 5 visible.
``branch`` is how many layers of the first level still run: 0 caches most. Where the first level
has a single layer, as in the miniature, 2 draws the same picture as 1.

How it fails: detail of the middle of the denoising is lost at long intervals. The store takes
memory for one output per block. ControlNet's residuals are ignored in skipped blocks (DeepCache
issue 4), and ``fullgraph`` compilation does not take the patched forwards. The package itself
has four traps, so its U-Net wrapper is not used: it reads the timestep as the second positional
argument (IndexError when it comes by keyword), finds the step by searching the scheduler's list
(wrong where a timestep occurs twice, as with PNDM, and one device synchronisation per step), keeps
its first step and its features over images (another img2img strength begins with a skip), and
mixes batch sizes when guidance stops within an image. Here denoiser calls are counted, ``reset``
starts an image afresh, and another shape or batch forces a full pass.

Paper: Ma, Fang and Wang, DeepCache, CVPR 2024, arXiv 2312.00858: SD 1.5 2.3x at CLIP score -0.05.
README of the package: SD 2.1 on an A5000 2.33x at interval 3, 3.24x at 5.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from engine.strategy import KnownGood, Needs, gene, strategy


@strategy(
    slot="feature_cache",
    order=70,
    exact=False,
    needs=Needs(backbone=("unet",), libraries=("DeepCache",)),
    known_good=(
        KnownGood({"interval": 3, "branch": 0}, "README of DeepCache: SD 2.1 on an A5000 2.33x"),
        KnownGood({"interval": 5, "branch": 0}, "README of DeepCache: SD 2.1 on an A5000 3.24x"),
    ),
)
@dataclass(frozen=True)
class DeepCache:
    """Genes of DeepCache."""

    interval: int = gene(3, "denoiser calls from one full pass to the next", low=2, high=6, step=1)
    branch: int = gene(0, "layers of the first level that always run", low=0, high=2, step=1)


class FeatureStore:
    """Decides which denoiser calls are full and counts the deep passes that were skipped."""

    def __init__(self, helper: Any) -> None:
        self.helper = helper
        self.clear()

    def clear(self) -> None:
        """Forget the last image; the patched functions stay."""
        self.helper.cached_output = {}
        self.helper.start_timestep = None
        self.calls = 0
        self.skipped = 0
        self.shape: Any = None

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        """The denoiser's forward, with any mixture of positional and keyword arguments."""
        sample = args[0] if args else kwargs["sample"]
        # The helper only compares positions, so counting calls stands for its timesteps.
        self.helper.cur_timestep = self.calls
        if sample.shape != self.shape:
            self.shape = sample.shape
            self.helper.start_timestep = self.calls
        deepest = ("mid", "mid_block", 0, 0)
        stored = self.helper.cached_output.get(deepest)
        result = self.helper.function_dict["unet_forward"](*args, **kwargs)
        # A pass that ran has replaced the stored output by a new one.
        if stored is not None and self.helper.cached_output[deepest] is stored:
            self.skipped += 1
        self.calls += 1
        return result


def apply(pipe: Any, ctx: Any, *, interval: int, branch: int) -> None:
    from DeepCache import DeepCacheSDHelper

    helper = DeepCacheSDHelper(pipe=pipe)
    helper.set_params(cache_interval=interval, cache_branch_id=branch)
    helper.enable()
    pipe._deepcache_state = FeatureStore(helper)
    pipe.unet.forward = pipe._deepcache_state.forward


def reset(pipe: Any) -> None:
    pipe._deepcache_state.clear()


def active(pipe: Any) -> str | None:
    """Whether the last image skipped a deep pass."""
    state = pipe._deepcache_state
    if state.skipped == 0:
        return f"none of {state.calls} denoiser calls skipped the deep layers"
    return None
