"""torchao: linear layers of the denoiser in 8 or 4 bits, made for compilation, on a GPU.

What it does: the weights of the linear layers are replaced by quantized tensors once the pipeline
has reached its device. The dynamic kinds round the inputs of a layer at every call as well and
multiply in the narrow format; the others widen the weights for each product.

When it pays: large transformers at half precision. ``int8_dynamic`` and ``fp8_dynamic`` save time
together with ``compile``, and none without it; ``int8_weights`` and ``int4_weights`` save memory.

Genes: ``kind`` is the number format: ``fp8_dynamic`` scales each row of inputs and weights for
itself and needs compute capability 8.9 (Ada, Hopper); ``int4_weights`` takes layers whose inputs
are a multiple of 128 wide and computes in bfloat16.

How it fails: without compilation the dynamic kinds are many times slower (130.5 s in place of 6.6 s
for FLUX). Projections must be joined before, which their order sees to (diffusers-torchao issue
37). Layers that lie in the host's memory cannot be packed for the GPU, hence the conflict with
offloading. Layers too small or of odd sizes stay as they are. An optional library:
pip install torchao.

Published: diffusers-torchao, FLUX.1-dev on an H100, one image, 28 steps: bfloat16 6.573 s, compiled
4.209 s, compiled with fp8 3.243 s, by rows 2.966 s.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from engine.strategy import KnownGood, Needs, gene, strategy

CONFIGS = {
    "int8_dynamic": "Int8DynamicActivationInt8WeightConfig",
    "int8_weights": "Int8WeightOnlyConfig",
    "fp8_dynamic": "Float8DynamicActivationFloat8WeightConfig",
    "int4_weights": "Int4WeightOnlyConfig",
}
GROUP = 128
SMALLEST = 256


@strategy(
    slot="quantization",
    # After the move: weights are packed for the device that they are on.
    order=91,
    exact=False,
    timed_only=True,
    needs=Needs(
        modules=("Linear",),
        devices=("cuda",),
        libraries=("torchao",),
        # 8-bit floats from Ada and Hopper on; the 4-bit kernel computes in bfloat16.
        capability=(("kind", "fp8_dynamic", 8.9), ("kind", "int4_weights", 8.0)),
    ),
    conflicts=("placement",),
    known_good=(
        KnownGood(
            {"kind": "fp8_dynamic"}, "diffusers-torchao: FLUX on an H100 4.209 to 2.966 s, compiled"
        ),
        KnownGood({"kind": "int8_dynamic"}, "diffusers-torchao: for GPUs without fp8, compiled"),
    ),
)
@dataclass(frozen=True)
class TorchAo:
    """Genes of torchao."""

    kind: str = gene(
        "fp8_dynamic",
        "number format",
        choices=("int8_dynamic", "int8_weights", "fp8_dynamic", "int4_weights"),
    )


def can_be_quantized(module: Any, path: str, kind: str) -> bool:
    """Whether a layer is linear, large enough and of a size that the kernels take."""
    import torch

    if type(module) is not torch.nn.Linear:
        return False
    unit = GROUP if kind == "int4_weights" else 16
    sizes = (module.in_features, module.out_features)
    return min(sizes) >= SMALLEST and module.in_features % unit == 0 and sizes[1] % 16 == 0


def config_of(kind: str) -> Any:
    """torchao's own description of that number format."""
    from torchao import quantization

    options: dict[str, Any] = {}
    if kind == "fp8_dynamic":
        options["granularity"] = quantization.PerRow()
    if kind == "int4_weights":
        options["group_size"] = GROUP
    return getattr(quantization, CONFIGS[kind])(**options)


def apply(pipe: Any, ctx: Any, *, kind: str) -> None:
    import torch
    from torchao.quantization import quantize_

    denoiser = getattr(pipe, "unet", None) or pipe.transformer
    if kind == "fp8_dynamic" and torch.cuda.is_available():
        capability = torch.cuda.get_device_capability()
        if capability < (8, 9):
            raise ValueError(f"fp8_dynamic needs compute capability 8.9, this GPU has {capability}")
    if kind in ("fp8_dynamic", "int4_weights") and ctx.dtype != "bfloat16":
        raise ValueError(f"torchao {kind} computes in bfloat16, this runs in {ctx.dtype}")
    quantize_(denoiser, config_of(kind), lambda module, path: can_be_quantized(module, path, kind))


def active(pipe: Any) -> str | None:
    """Whether a layer of the denoiser holds one of torchao's tensors."""
    denoiser = getattr(pipe, "unet", None) or pipe.transformer
    weights = [m.weight for m in denoiser.modules() if hasattr(m, "weight")]
    if not any(type(weight).__module__.startswith("torchao") for weight in weights):
        return "no linear layer of the denoiser is large enough to be quantized"
    return None
