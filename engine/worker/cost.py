"""FLOPs of one image. What cannot be counted makes the cost unknown, never smaller."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
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
    """Count what runs inside the block.

    ``FlopCounterMode`` knows no CPU attention kernel and would count it as zero, so it is
    registered here with the formula of its accelerator twin.
    """
    import torch
    from torch.utils._python_dispatch import TorchDispatchMode
    from torch.utils.flop_counter import FlopCounterMode, flop_registry, sdpa_flop_count

    aten = torch.ops.aten

    def attention(query: Any, key: Any, value: Any, *_rest: Any, **_more: Any) -> int:
        return int(sdpa_flop_count(query, key, value))

    extra = {aten._scaled_dot_product_flash_attention_for_cpu: attention}
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

    with Watch(), counter:
        yield count


def _is_matrix(name: str) -> bool:
    return any(w in name for w in _MATRIX_WORDS) and not any(w in name for w in _NOT_MATRIX)
