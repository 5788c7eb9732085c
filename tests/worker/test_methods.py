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

STEPS = 10


@pytest.mark.parametrize(
    ("name", "genes"),
    [
        ("first_block_cache", {"threshold": 10.0}),
        (
            "magcache",
            {"ratios": [1.0] * STEPS, "threshold": 1.0, "skips": 2, "retention": 0.1},
        ),
        ("taylorseer", {"interval": 3, "order": 1, "warmup": 1, "layers": "model"}),
        ("pab", {"every": 2, "cross": 4, "start": 0.1, "stop": 0.9}),
    ],
)
def test_a_cache_of_ours_is_found_under_its_name_and_is_no_deepcache(
    name: str, genes: dict[str, Any]
) -> None:
    pipe: Any = pipelines.open_pipeline("pixart-mini", CHECKPOINTS / "pixart-mini")
    registry()[name].module.apply(pipe, None, **genes)
    units = Units(pipe.transformer)
    handles = [*units.hooks()]
    forward = pipe.transformer.forward

    def counted(*args: Any, **kwargs: Any) -> Any:
        units.forward()
        return forward(*args, **kwargs)

    pipe.transformer.forward = counted
    call = pipelines.arguments(pipe, ["a red circle on a white background"], [1])
    with torch.no_grad():
        pipe(**call, num_inference_steps=STEPS)
    found, dead = units.found(pipe, pipe.transformer, SimpleNamespace(batches=[]))
    for handle in handles:
        handle.remove()
    assert dead == ()
    assert name in found
    assert "deepcache" not in found
