"""What the counters call a technique, whoever registered its hooks."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pytest
import torch

from engine.minis import pipelines
from engine.minis.train import CHECKPOINTS
from engine.strategy import registry
from engine.worker.methods import Found, Units
from engine.worker.probe import Counters

STEPS = 10


def seen(genome: Mapping[str, dict[str, Any]]) -> tuple[Found, tuple[str, ...]]:
    """What the counters say of one image of the PixArt miniature under these techniques."""
    pipe: Any = pipelines.open_pipeline("pixart-mini", CHECKPOINTS / "pixart-mini")
    for name, genes in genome.items():
        registry()[name].module.apply(pipe, None, **genes)
    counters, units = Counters(), Units(pipe.transformer)

    def counted(module: Any, args: Any, kwargs: Any) -> None:
        counters.note(module, args, kwargs)
        units.forward()

    handles = [pipe.transformer.register_forward_pre_hook(counted, with_kwargs=True)]
    handles += units.hooks()
    call = pipelines.arguments(pipe, ["a red circle on a white background"], [1])
    with torch.no_grad():
        pipe(**call, num_inference_steps=STEPS)
    for handle in handles:
        handle.remove()
    return units.found(pipe, pipe.transformer, counters)


@pytest.mark.parametrize(
    ("name", "genes"),
    [
        ("first_block_cache", {"threshold": 10.0}),
        (
            "magcache",
            {"ratios": [1.0] * STEPS, "threshold": 1.0, "skips": 2, "retention": 0.1},
        ),
        ("taylorseer", {"interval": 3, "order": 1, "warmup": 1, "layers": "model"}),
        ("taylorseer", {"interval": 3, "order": 1, "warmup": 1, "layers": "attention"}),
        ("pab", {"every": 2, "cross": 4, "start": 0.1, "stop": 0.9}),
    ],
)
def test_a_cache_of_ours_is_found_under_its_name_and_is_no_deepcache(
    name: str, genes: dict[str, Any]
) -> None:
    found, dead = seen({name: genes})
    assert dead == ()
    assert name in found
    assert not {"deepcache", "tgate"} & set(found)


@pytest.mark.parametrize(
    ("name", "genes"),
    [
        ("pab", {"every": 2, "cross": 3, "start": 0.2, "stop": 1.0}),
        ("faster_cache", {"start": 0.35, "uncond": 5, "weight": 0.5}),
        ("taylorseer", {"interval": 3, "order": 1, "warmup": 1, "layers": "attention"}),
    ],
)
def test_a_gate_is_told_from_a_cache_that_leaves_the_same_attention_out(
    name: str, genes: dict[str, Any]
) -> None:
    both, _ = seen({"tgate": {"gate": 0.4}, name: genes})
    assert {name, "tgate"} <= set(both)
    alone, _ = seen({name: genes})
    assert name in alone
    assert "tgate" not in alone


def test_linear_layers_in_8_bits_are_seen_though_they_are_no_class_of_torch() -> None:
    found, _ = seen({"dynamic_int8": {"layers": "feed_forward"}})
    assert "dynamic_int8" in found
    assert "dynamic_int8" not in seen({})[0]
