"""What is counted, and that what cannot be counted is unknown instead of nothing."""

from __future__ import annotations

import subprocess
import sys
from typing import Any

import torch

from engine.worker import cost, probe
from strategies import dynamic_int8


def test_a_linear_layer_in_bytes_counts_like_one_in_floats() -> None:
    layer = torch.nn.Linear(8, 3)
    packed = dynamic_int8.byte_linear(layer, {"ran": 0})
    totals = []
    for module in (layer, packed):
        with cost.counting() as count, torch.no_grad():
            module(torch.ones(2, 5, 8))
        totals.append(count.total())
    assert totals == [2 * 2 * 5 * 8 * 3] * 2


def test_attention_on_a_cpu_is_counted() -> None:
    query = torch.ones(1, 2, 16, 8)
    with cost.counting() as count, torch.no_grad():
        torch.nn.functional.scaled_dot_product_attention(query, query, query)
    # Two products of 16 x 8 by 8 x 16 for each of two heads.
    assert count.total() == 2 * 2 * (2 * 16 * 16 * 8)


def test_an_unknown_matrix_operator_makes_the_cost_unknown() -> None:
    @torch.library.custom_op("diffagent_test::secret_mm", mutates_args=())
    def secret_mm(a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
        return a.clone()

    run: Any = secret_mm
    with cost.counting() as count:
        run(torch.ones(2, 2), torch.ones(2, 2))
    assert count.unknown == {"secret_mm"}
    assert count.total() is None


def test_compiled_code_is_counted_as_it_was_written() -> None:
    def hiding(_graph: Any, _inputs: Any) -> Any:
        return lambda *_tensors: (torch.zeros(2, 3),)

    layer = torch.nn.Linear(8, 3)
    compiled: Any = torch.compile(layer.forward, backend=hiding)
    with torch.no_grad():
        assert not compiled(torch.ones(2, 8)).any()
        with cost.counting() as count:
            compiled(torch.ones(2, 8))
    assert count.total() == 2 * 2 * 8 * 3
    assert (probe.compiled_graphs() or 0) >= 1


def test_where_nothing_was_compiled_there_is_no_number_of_graphs() -> None:
    code = "import torch; from engine.worker import probe; print(probe.compiled_graphs())"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "None"
