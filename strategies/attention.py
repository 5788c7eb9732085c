"""Attention in plain matrix products instead of a fused kernel.

What it does: ``scaled_dot_product_attention`` fuses product, softmax and product into one kernel
that never holds the whole matrix of scores. Here the matrix is held: two batched products with a
softmax between them. Values are the same up to rounding, operations as many.

When it pays: few tokens, above all the cross-attention to a short prompt on a CPU, where the fused
kernel's own blocks are larger than the work. Never for the self-attention of large images.

Genes: ``kernel``: ``plain`` is a scaled product straight into the scores, ``math`` is torch's own
reference, which scales queries and keys first and takes more care with empty rows; it is the most
precise and the slowest. ``where``: ``cross`` changes only attention to the prompt, ``all`` also
that among the pixels. Transformers without cross-attention (DiT, and the joint attention of Stable
Diffusion 3 and FLUX) have only ``all``; PixArt's cross-attention has a mask, so it has only
``math``. Which fused kernel a GPU uses is another technique, ``fused_attention``.

Not offered: sliced attention, which splits the matrix of scores to save memory. The fused kernels
hold no such matrix, so slicing them costs time and saves nothing; diffusers warns of it.

How it fails: memory grows with the square of the tokens under ``all``. In half precision the
scores are rounded on their way to the softmax, which the fused kernels avoid. Calls with a mask or
grouped heads keep torch's kernel under ``plain``. Where torch finds no fused kernel it takes the
reference by itself, and ``math`` is reported as inactive. Compilation leaves out the attentions
that are wrapped here.

Published: no figures as an acceleration; FlashAttention (arXiv 2205.14135) explains why the
opposite pays at length. PyTorch's documentation of scaled_dot_product_attention lists the kernels.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from engine.strategy import KnownGood, gene, strategy


@strategy(
    slot="attention",
    order=50,
    exact=True,
    timed_only=True,
    known_good=(
        KnownGood(
            {"kernel": "plain", "where": "cross"},
            "the form of the Stable Diffusion release, where it costs least",
        ),
    ),
)
@dataclass(frozen=True)
class Attention:
    """Genes of plain attention."""

    kernel: str = gene("plain", "form of the two products", choices=("plain", "math"))
    where: str = gene("cross", "attentions that change", choices=("cross", "all"))


def plain_attention(query: Any, key: Any, value: Any, scale: float | None) -> Any:
    """softmax(scale * query * key) * value; the softmax in float32, as in the fused kernels."""
    import torch

    batch = query.shape[:2]
    rows = query.shape[0] * query.shape[1]
    scores = torch.baddbmm(
        # Not read, since beta is 0, but it must have the shape.
        query.new_empty(1).expand(rows, query.shape[2], key.shape[2]),
        query.flatten(0, 1),
        key.flatten(0, 1).transpose(1, 2),
        beta=0,
        alpha=query.shape[-1] ** -0.5 if scale is None else scale,
    )
    weights = scores.softmax(-1, dtype=torch.float32).to(value.dtype)
    return torch.bmm(weights, value.flatten(0, 1)).view(*batch, *query.shape[2:])


def is_set(option: Any) -> bool:
    """Whether an option of the call asks for something: a mask, causality, dropout, groups."""
    return option is not None and (hasattr(option, "shape") or bool(option))


def with_kernel(compute: Any, kernel: str, state: dict[str, bool]) -> Any:
    """The forward of an attention, its call of scaled_dot_product_attention answered here.

    Processors stay as they are, so fused projections and others keep working.
    """
    import torch
    from torch.nn.attention import SDPBackend, sdpa_kernel
    from torch.overrides import TorchFunctionMode

    class Answer(TorchFunctionMode):
        def __torch_function__(
            self, func: Any, types: Any, args: Any = (), kwargs: Any = None
        ) -> Any:
            given = kwargs or {}
            if func is not torch.nn.functional.scaled_dot_product_attention:
                return func(*args, **given)
            if kernel == "math":
                state["ran"] = True
                with sdpa_kernel([SDPBackend.MATH]):
                    return func(*args, **given)
            # Some callers name them all.
            named = ("query", "key", "value")[len(args) :]
            others = [given[name] for name in given if name not in (*named, "scale")]
            if any(map(is_set, (*args[3:], *others))):
                return func(*args, **given)
            state["ran"] = True
            query, key, value = list(args[:3]) + [given[name] for name in named]
            return plain_attention(query, key, value, given.get("scale"))

    def forward(*args: Any, **kwargs: Any) -> Any:
        with Answer():
            return compute(*args, **kwargs)

    return forward


def apply(pipe: Any, ctx: Any, *, kernel: str, where: str) -> None:
    pipe._attention_state = {"ran": False, "math": kernel == "math"}
    denoiser = getattr(pipe, "unet", None) or pipe.transformer
    for module in denoiser.modules():
        cross = getattr(module, "is_cross_attention", False)
        if cross or (hasattr(module, "processor") and where == "all"):
            module.forward = with_kernel(module.forward, kernel, pipe._attention_state)


def reset(pipe: Any) -> None:
    pipe._attention_state["ran"] = False


def active(pipe: Any) -> str | None:
    """Whether an attention of the last image was computed in another way than torch's choice."""
    if not pipe._attention_state["ran"]:
        return "no attention that was to change called scaled_dot_product_attention"
    if pipe._attention_state["math"] and not fused_by_default(pipe):
        return "torch takes its reference here by itself"
    return None


def fused_by_default(pipe: Any) -> bool:
    """Whether torch computes this denoiser's attention with one of its fused kernels."""
    import torch
    from torch.nn.attention import SDPBackend

    denoiser = getattr(pipe, "unet", None) or pipe.transformer
    module = next(m for m in denoiser.modules() if hasattr(m, "processor"))
    query = torch.zeros(
        (2, module.heads, 64, module.inner_dim // module.heads),
        device=pipe._execution_device,
        dtype=denoiser.dtype,
    )
    with torch.no_grad():
        return torch._fused_sdp_choice(query, query, query) != SDPBackend.MATH.value


def unfit(pipe: Any) -> str | None:
    """Why there is no attention whose product can be replaced, or None."""
    denoiser = getattr(pipe, "unet", None) or pipe.transformer
    if not any(hasattr(module, "processor") for module in denoiser.modules()):
        return f"{type(denoiser).__name__} has no attention"
    return None
