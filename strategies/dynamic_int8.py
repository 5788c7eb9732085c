"""Dynamic int8: linear layers of the denoiser multiply bytes instead of floats, on a CPU.

What it does: weights are rounded to 8 bits once, with a scale for each output channel; the inputs
are rounded at every call, with a scale for the whole tensor (hence dynamic). Products are summed
in 32 bits and scaled back. Convolutions stay as they are.

When it pays: CPUs with byte instructions (VNNI, AMX, or the dot product of Arm), and models whose
linear layers dominate: transformers, and U-Nets with many attention blocks. Weights of those
layers take a quarter of the memory.

Genes: ``layers`` says which linear layers: the projections of attention, the feed-forward parts of
the transformer blocks, or all, which adds the projections beside the blocks and the embeddings
of the timestep.

How it fails: small layers are slower, since every input is scanned for its range first. A few
large values in an input cost the small ones their precision. A compiler cannot trace the packed
weights, hence the conflict with compilation; fused projections are quantized as they are, so
fusion comes first. Inputs in half precision are widened for the product and narrowed again.

Why not ``torch.ao.quantization.quantize_dynamic``: it is deprecated with its whole package, and
its successor torchao is slow without compilation. The operator below it is the same in torch 2.11
to 2.14 and is called here directly. The operations counted are the same: bytes count as floats.

Published: PyTorch's recipe on dynamic quantization, for language models. diffusers-torchao, on
FLUX and a GPU: int8 needs compilation there (130.5 s without it).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from engine.strategy import KnownGood, Needs, gene, strategy

# Names on the path to a layer, as the blocks of diffusers call them.
PATHS = {
    "attention": ("attn", "attn1", "attn2"),
    "feed_forward": ("ff", "ff_context"),
}

# The two thin layers of a LoRA that stands beside the weights: too small to gain, and their library
# reads the dtype of their weights.
LORA = {"lora_A", "lora_B"}


@strategy(
    slot="quantization",
    order=35,
    exact=False,
    timed_only=True,
    needs=Needs(modules=("Linear",), devices=("cpu",)),
    known_good=(
        KnownGood({"layers": "feed_forward"}, "PyTorch recipe: large linear layers first"),
        KnownGood({"layers": "all"}, "PyTorch recipe: every Linear"),
    ),
)
@dataclass(frozen=True)
class DynamicInt8:
    """Genes of dynamic quantization."""

    layers: str = gene("all", "which linear layers", choices=("attention", "feed_forward", "all"))


def byte_linear(linear: Any, counts: dict[str, int]) -> Any:
    """A module that computes the linear layer in 8 bits and counts that; its floats go."""
    import warnings

    import torch

    class ByteLinear(torch.nn.Module):
        def __init__(self, packed: Any) -> None:
            super().__init__()
            self.packed = packed
            # SDXL's pipeline reads the width of its embedding's first layer.
            self.in_features = linear.in_features
            self.out_features = linear.out_features

        def forward(self, tensor: Any) -> Any:
            counts["ran"] += 1
            # Seven bits for the inputs: without VNNI two products must fit into 16 bits.
            product = torch.ops.quantized.linear_dynamic(tensor.float(), self.packed, True)
            return product.to(tensor.dtype)

    weight = linear.weight.detach().float()
    # Symmetric, as the kernels want it; a channel of zeros must not divide by zero.
    scales = weight.abs().amax(dim=1).clamp(min=1e-8) / 127
    zeros = torch.zeros(len(scales), dtype=torch.int64)
    bias = None if linear.bias is None else linear.bias.detach().float()
    with warnings.catch_warnings():
        # Tensors of quantized types are to go; the packed weights that need one here stay.
        warnings.simplefilter("ignore")
        rounded = torch.quantize_per_channel(weight, scales.double(), zeros, 0, torch.qint8)
        return ByteLinear(torch.ops.quantized.linear_prepack(rounded, bias))


def apply(pipe: Any, ctx: Any, *, layers: str) -> None:
    import torch

    if torch.backends.quantized.engine == "none":
        raise ValueError("this build of torch has no 8-bit kernels for this processor")
    denoiser = getattr(pipe, "unet", None) or pipe.transformer
    wanted = set(PATHS.get(layers, ()))
    found = [
        (path.split("."), module)
        for path, module in denoiser.named_modules()
        # Its subclasses compute something else.
        if type(module) is torch.nn.Linear
        and (layers == "all" or wanted & {*path.split(".")})
        and not LORA & {*path.split(".")}
    ]
    counts = {"layers": len(found), "ran": 0}
    pipe._dynamic_int8_state = counts
    for path, module in found:
        parent = denoiser.get_submodule(".".join(path[:-1]))
        setattr(parent, path[-1], byte_linear(module, counts))


def reset(pipe: Any) -> None:
    pipe._dynamic_int8_state["ran"] = 0


def active(pipe: Any) -> str | None:
    """Whether a layer ran in 8 bits in the last image."""
    state = pipe._dynamic_int8_state
    if state["ran"] == 0:
        return f"none of {state['layers']} linear layers ran in 8 bits"
    return None
