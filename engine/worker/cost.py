"""FLOPs of one image. What cannot be counted makes the cost unknown, never smaller."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Iterator
from math import prod
from typing import Any

_MATRIX_WORDS = ("mm", "matmul", "conv", "attention", "linear", "einsum", "bilinear", "lstm")
"""Parts of operator names that do matrix work; such an operator must be known to the counter."""
_NOT_MATRIX = ("upsample", "comm", "clone_convert", "common")


class Count:
    """Filled while :func:`counting` runs."""

    def __init__(self, counter: Any) -> None:
        self._counter = counter
        self.unknown: set[str] = set()

    def total(self) -> int | None:
        return None if self.unknown else int(self._counter.get_total_flops())


@contextlib.contextmanager
def counting() -> Iterator[Count]:
    """Count what runs inside the block, eagerly: compiled code would hide its operators.

    ``FlopCounterMode`` knows neither the CPU attention kernel nor linear layers in 8 bits and
    would count them as zero, so they are registered here. The first has the formula of its
    accelerator twin; a product of bytes counts like one of floats.
    """
    from torch.utils._python_dispatch import TorchDispatchMode
    from torch.utils.flop_counter import FlopCounterMode, flop_registry

    extra = _formulas()
    counter = FlopCounterMode(display=False, custom_mapping=extra)
    count = Count(counter)
    known = set(flop_registry) | set(extra)

    class Watch(TorchDispatchMode):
        def __torch_dispatch__(
            self, func: Any, types: Any, args: Any = (), kwargs: Any = None
        ) -> Any:
            packet = func._overloadpacket
            name = str(packet).rpartition(".")[2]
            if packet not in known and _is_matrix(name):
                count.unknown.add(name)
            return func(*args, **(kwargs or {}))

    with eagerly(), Watch(), counter:
        yield count


def _formulas() -> dict[Any, Any]:
    """Operators that torch's own counter lacks, with their FLOPs from the shapes."""
    import torch
    from torch.utils.flop_counter import sdpa_flop_count

    def attention(query: Any, key: Any, value: Any, *_rest: Any, **_more: Any) -> int:
        return int(sdpa_flop_count(query, key, value))

    def linear(tensor: Any, _packed: Any, *_rest: Any, out_shape: Any = None, **_more: Any) -> int:
        # The weights are packed into an object without a shape; both ends of it are in view.
        return 2 * int(prod(tensor)) * int(out_shape[-1])

    quantized = torch.ops.quantized
    return {
        torch.ops.aten._scaled_dot_product_flash_attention_for_cpu: attention,
        quantized.linear_dynamic: linear,
        quantized.linear_relu_dynamic: linear,
        quantized.linear_dynamic_fp16: linear,
    }


def eagerly() -> contextlib.AbstractContextManager[Any]:
    """Let compiled functions run as they were written, where there can be any.

    Importing the compiler takes seconds, and who has not imported it has compiled nothing.
    """
    if "torch._dynamo" not in sys.modules:
        return contextlib.nullcontext()
    import torch

    stance: contextlib.AbstractContextManager[Any] = torch.compiler.set_stance("force_eager")
    return stance


def _is_matrix(name: str) -> bool:
    return any(w in name for w in _MATRIX_WORDS) and not any(w in name for w in _NOT_MATRIX)
