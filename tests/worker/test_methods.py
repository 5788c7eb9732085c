"""What the counters call a technique, whoever registered its hooks."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
import torch

from engine.minis import pipelines
from engine.minis.train import CHECKPOINTS
from engine.strategy import registry
from engine.worker.methods import Units


@pytest.mark.parametrize(
    ("name", "genes"),
    [
        ("first_block_cache", {"threshold": 10.0}),
        ("taylorseer", {"interval": 3, "order": 1, "warmup": 1}),
        ("pab", {}),
    ],
)
def test_a_cache_of_ours_is_found_under_its_name_and_is_no_deepcache(
    name: str, genes: dict[str, Any]
) -> None:
    pipe: Any = pipelines.open_pipeline("pixart-mini", CHECKPOINTS / "pixart-mini")
    strategy = registry()[name]
    defaults = {gene: one.default for gene, one in strategy.genes.items()} | genes
    known = set(strategy.module.apply.__kwdefaults__ or {}) | set(
        strategy.module.apply.__annotations__
    )
    strategy.module.apply(pipe, None, **{k: v for k, v in defaults.items() if k in known})
    units = Units(pipe.transformer)
    handles = [*units.hooks()]
    forward = pipe.transformer.forward

    def counted(*args: Any, **kwargs: Any) -> Any:
        units.forward()
        return forward(*args, **kwargs)

    pipe.transformer.forward = counted
    call = pipelines.arguments(pipe, ["a red circle on a white background"], [1])
    with torch.no_grad():
        pipe(**call, num_inference_steps=10)
    found, dead = units.found(pipe, pipe.transformer, SimpleNamespace(batches=[]))
    for handle in handles:
        handle.remove()
    assert dead == ()
    assert name in found
    assert "deepcache" not in found
