"""The fused attention kernel of choice on a GPU.

What it does: torch has several kernels behind ``scaled_dot_product_attention`` and picks one by its
own order. This allows a single one of them inside the denoiser. Values agree up to rounding,
operations are as many.

When it pays: where torch's order is not the fastest for the model's head size and number of
tokens; small U-Net heads (40 in SD 1.5) are padded differently by each kernel.

Genes: ``kernel``: ``flash`` is FlashAttention 2, half precision only; ``efficient`` is the
memory-efficient kernel, which also takes float32; ``cudnn`` is NVIDIA's, half precision only, best
on Hopper and newer.

How it fails: a call that the kernel cannot take (a mask under ``flash``, a head that is too large)
ends the image with an error instead of another kernel, so that a figure belongs to the kernel that
it names. Where the chosen kernel is torch's own choice it is reported as inactive. On a CPU torch
has one fused kernel only; ``attention`` replaces that one. The autoencoder keeps torch's choice:
its single wide head fits no flash kernel. PixArt's attention to the prompt has a mask, so it takes
no flash kernel.

Papers: FlashAttention 2, arXiv 2307.08691; memory-efficient attention, arXiv 2112.05682. No
figures for one of these kernels against another in a U-Net were found; a pull request of sglang
(19673) reports FLUX on an H200 from 4.32 to 3.73 s with FlashAttention 3, which torch lacks.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from engine.strategy import KnownGood, Needs, gene, strategy

BACKENDS = {
    "flash": "FLASH_ATTENTION",
    "efficient": "EFFICIENT_ATTENTION",
    "cudnn": "CUDNN_ATTENTION",
}


@strategy(
    slot="attention",
    order=50,
    exact=True,
    timed_only=True,
    # torch builds both kernels for Ampere and newer (aten/.../cuda/sdp_utils.cpp).
    needs=Needs(devices=("cuda",), capability=(("kernel", "flash", 8.0), ("kernel", "cudnn", 8.0))),
    known_good=(
        KnownGood({"kernel": "flash"}, "FlashAttention 2, arXiv 2307.08691"),
        KnownGood({"kernel": "cudnn"}, "PyTorch 2.5 release notes: cuDNN kernel for Hopper"),
    ),
)
@dataclass(frozen=True)
class FusedAttention:
    """Genes of the fused kernel."""

    kernel: str = gene(
        "efficient", "the one kernel allowed", choices=("flash", "efficient", "cudnn")
    )


def allowed_only(compute: Any, kernel: str, state: dict[str, Any]) -> Any:
    """The denoiser's forward in which one kernel is allowed."""
    from torch.nn.attention import SDPBackend, sdpa_kernel

    def forward(*args: Any, **kwargs: Any) -> Any:
        with sdpa_kernel([getattr(SDPBackend, BACKENDS[kernel])]):
            state["ran"] = True
            return compute(*args, **kwargs)

    return forward


def apply(pipe: Any, ctx: Any, *, kernel: str) -> None:
    if kernel != "efficient" and ctx.device == "cuda" and ctx.dtype == "float32":
        raise ValueError(f"the {kernel} kernel needs float16 or bfloat16, this runs in float32")
    pipe._fused_attention_state = {"kernel": kernel, "ran": False}
    denoiser = getattr(pipe, "unet", None) or pipe.transformer
    denoiser.forward = allowed_only(denoiser.forward, kernel, pipe._fused_attention_state)


def reset(pipe: Any) -> None:
    pipe._fused_attention_state["ran"] = False


def active(pipe: Any) -> str | None:
    """Whether the last image ran with another kernel than torch would have taken."""
    import torch
    from torch.nn.attention import SDPBackend

    state = pipe._fused_attention_state
    if not state["ran"]:
        return "the denoiser's forward was replaced"
    denoiser = getattr(pipe, "unet", None) or pipe.transformer
    module = next(m for m in denoiser.modules() if hasattr(m, "processor"))
    query = torch.zeros(
        (2, module.heads, 64, module.inner_dim // module.heads),
        device=pipe._execution_device,
        dtype=denoiser.dtype,
    )
    with torch.no_grad():
        natural = torch._fused_sdp_choice(query, query, query)
    if natural == getattr(SDPBackend, BACKENDS[state["kernel"]]).value:
        return f"torch takes the kernel {state['kernel']} here by itself"
    return None


def unfit(pipe: Any) -> str | None:
    """Why there is no attention to run with one kernel, or None."""
    denoiser = getattr(pipe, "unet", None) or pipe.transformer
    if not any(hasattr(module, "processor") for module in denoiser.modules()):
        return f"{type(denoiser).__name__} has no attention"
    return None
