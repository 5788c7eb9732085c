"""Linear layers in bytes: which ones, how close, and what they cost on paper."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from typing import Any

import pytest
import torch

from engine.results import Genome
from engine.worker import cost
from strategies import dynamic_int8
from tests.strategies.tiny import tiny_sdxl

Ready = Callable[..., Any]


def byte_layers(made: Any) -> set[str]:
    return {
        name
        for name, module in made.pipe.unet.named_modules()
        if type(module).__name__ == "ByteLinear"
    }


def floats(made: Any) -> set[str]:
    return {name for name, m in made.pipe.unet.named_modules() if type(m) is torch.nn.Linear}


def test_sdxl_reads_the_width_of_a_layer_that_was_replaced(ready: Callable[..., Any]) -> None:
    made = ready({"dynamic_int8": {"layers": "all"}}, pipe=tiny_sdxl())
    assert torch.isfinite(made.latents()).all()
    assert made.reasons() == {"dynamic_int8": None}


def test_the_gene_chooses_the_layers(ready: Ready) -> None:
    everything = floats(ready({}))
    groups = {
        layers: byte_layers(ready({"dynamic_int8": {"layers": layers}}))
        for layers in ("attention", "feed_forward", "all")
    }
    assert groups["all"] == everything
    assert groups["attention"] == {n for n in everything if ".attn" in n}
    assert groups["feed_forward"] == {n for n in everything if ".ff." in n}
    assert all(groups.values())


@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_a_layer_in_bytes_is_close_to_its_floats(bias: bool, dtype: torch.dtype) -> None:
    torch.manual_seed(0)
    layer = torch.nn.Linear(64, 24, bias=bias, dtype=dtype)
    layer.weight.data[3] = 0
    counts = {"ran": 0}
    tensor = torch.randn(2, 5, 64, dtype=dtype)
    with torch.no_grad():
        expected = layer(tensor)
        found = dynamic_int8.byte_linear(layer, counts)(tensor)
    assert found.dtype == dtype
    assert found.shape == expected.shape
    assert (found - expected).abs().max() < 0.03 * expected.abs().max()
    assert counts["ran"] == 1


def test_the_floats_of_the_weights_are_given_up(ready: Ready) -> None:
    genomes: tuple[Genome, ...] = ({}, {"dynamic_int8": {}})
    sizes = [sum(p.numel() for p in ready(g).pipe.unet.parameters()) for g in genomes]
    assert sizes[1] < sizes[0]


def test_nothing_warns_of_what_is_to_go(fresh: Callable[[], Any]) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        dynamic_int8.apply(fresh(), None, layers="attention")


def test_the_operations_counted_are_those_of_the_floats(ready: Ready) -> None:
    totals = []
    genomes: tuple[Genome, ...] = ({}, {"dynamic_int8": {}})
    for genome in genomes:
        made = ready(genome, steps=2)
        with cost.counting() as count:
            made.latents()
        assert not count.unknown
        totals.append(count.total())
    assert totals[0] == totals[1]


@pytest.mark.parametrize(
    "others",
    [
        {"qkv_fusion": {}},
        {"deepcache": {}, "tgate": {}, "tome": {}},
        {"split_guidance": {}, "channels_last": {}},
        {"precision": {"dtype": "bfloat16"}},
    ],
    ids="+".join,
)
def test_bytes_combine_with_other_techniques(ready: Ready, others: dict[str, Any]) -> None:
    made = ready({**others, "dynamic_int8": {}}, steps=4)
    assert torch.isfinite(made.latents()).all()
    assert set(made.reasons().values()) == {None}


def test_fused_projections_are_quantized_fused(ready: Ready) -> None:
    made = ready({"qkv_fusion": {}, "dynamic_int8": {"layers": "attention"}})
    assert {"to_qkv", "to_kv"} <= {name.rpartition(".")[2] for name in byte_layers(made)}


def test_an_image_without_such_a_layer_is_reported(ready: Ready) -> None:
    made = ready({"dynamic_int8": {}}, steps=2)
    made.latents()
    dynamic_int8.reset(made.pipe)
    assert "linear layers ran in 8 bits" in str(made.reasons()["dynamic_int8"])
