"""DBCache: the first blocks of a transformer decide whether the middle ones are reused.

What it does: like a first-block cache with more than one block in front: when what the front blocks
add has changed by less than a threshold, the residual of the others is reused. The optional
package cache-dit does it, for the 40 and more families that it knows.

When it pays: transformers at 20 steps or more, above all large ones, where several front blocks are
still a small part and make the decision safer.

Genes: ``front`` is the number of blocks that always run. ``threshold`` is the relative change below
which the others are reused; the package's own range is 0.08 to 0.24. ``warmup`` is the number of
calls that are computed first, ``row`` the most that are reused in a row.

How it fails: as every cache, with detail and small faces at high thresholds. The package puts its
state into the class of the pipeline, so that other pipelines of the class in one process are
affected as well; here the pipeline gets a class of its own first. It knows one state for a batch:
a batch that shrinks when guidance stops, or halves that run one after the other, would mix, hence
the conflicts; so would offloading by its own account. Raise torch's limit of recompilations beside
``compile``, which that technique does. An optional library: pip install cache-dit.

Published: cache-dit, README and HYBRID_CACHE: FLUX.1-dev on an L20 24.85 to 7.1 s with compilation;
F4B0 over 50 steps 2.66x at CLIP score 32.92 to 32.84, ImageReward 1.041 to 1.007, PSNR 31.5.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from engine.strategy import KnownGood, Needs, gene, strategy


@strategy(
    slot="feature_cache",
    order=70,
    exact=False,
    needs=Needs(backbone=("transformer",), libraries=("cache-dit",)),
    conflicts=("guidance", "tgate", "split_guidance", "placement"),
    known_good=(
        KnownGood(
            {"front": 8, "threshold": 0.08, "warmup": 8, "row": 4},
            "cache-dit, DBCacheConfig: its defaults, but for the limit in a row",
        ),
        KnownGood(
            {"front": 4, "threshold": 0.12, "warmup": 4, "row": 4},
            "cache-dit, HYBRID_CACHE: FLUX.1-dev F4B0, 2.66x over 50 steps",
        ),
    ),
)
@dataclass(frozen=True)
class DbCache:
    """Genes of DBCache."""

    front: int = gene(4, "blocks that always run", low=1, high=8, step=1)
    threshold: float = gene(
        0.08, "relative change below which the others are reused", low=0.04, high=0.24, step=0.02
    )
    warmup: int = gene(4, "calls that are computed first", low=1, high=8, step=1)
    row: int = gene(3, "most calls in a row that are reused", low=1, high=4, step=1)


def apply(pipe: Any, ctx: Any, *, front: int, threshold: float, warmup: int, row: int) -> None:
    import cache_dit

    # The package replaces the call of the class; others of that class are not to notice.
    kind = type(pipe)
    pipe.__class__ = type(kind.__name__, (kind,), {"__module__": kind.__module__})
    cache_dit.enable_cache(
        pipe,
        cache_config=cache_dit.DBCacheConfig(
            Fn_compute_blocks=front,
            Bn_compute_blocks=0,
            residual_diff_threshold=threshold,
            max_warmup_steps=warmup,
            max_continuous_cached_steps=row,
        ),
    )


def active(pipe: Any) -> str | None:
    """Whether a call of the last image reused blocks."""
    if not getattr(pipe.transformer, "_cached_steps", None):
        return "no denoiser call reused blocks: the threshold is below every change"
    return None


def unfit(pipe: Any) -> str | None:
    """Why the package does not know this model, or None."""
    from cache_dit import BlockAdapterRegister

    if not BlockAdapterRegister.is_supported(pipe):
        return f"cache-dit has no adapter for {type(pipe).__name__}"
    return None
