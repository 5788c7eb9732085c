"""torch.compile: the denoiser runs as generated code instead of one operator after the other.

What it does: traces the denoiser and lets Inductor fuse its element-wise work, so that
intermediate results never leave the cache. Values agree up to rounding.

When it pays: many images of one size, since the first image of a size pays for the compilation
(a minute for a small U-Net on two CPU cores, several for SDXL). GPUs gain most at small batches
and half precision. A CPU needs a C++ compiler.

Genes: ``scope`` is ``whole`` for the denoiser in one piece or ``regional`` for its repeated blocks
only: the first call is several times shorter, and convolutions stay as they were. ``mode`` is
Inductor's: ``max-autotune-no-cudagraphs`` tries several kernels a matrix product and takes longer
to start. ``dynamic`` compiles one code for all sizes and batches instead of one for each.

Not offered: the modes with CUDA graphs (``reduce-overhead``, ``max-autotune``), because a graph
overwrites its last output, which is just what a feature cache keeps, and on a CPU they equal the
modes without; ``fullgraph``, because caches break the graph.

How it fails: Python state that changes from call to call (a counter in a hook, a store in a
replaced ``forward``) is a constant to the compiler, which would compile again and again and give
up in silence. So a module that another technique has wrapped or hooked is left as it is, and the
largest untouched parts inside and beside it are compiled: with T-GATE all but the
cross-attentions, with token merging all but the merging itself, with DeepCache each layer by
itself, with the split of guidance and with a chosen attention kernel the parts below those. Where
offloading hooks every single layer nothing is left, which is an error. When guidance ends within
an image, the halved batch is compiled too. Packed int8 weights cannot be traced, hence the
conflict.

Published: PyTorch, torch.compile and diffusers, a hands-on guide: FLUX on an H100 6.7 to 4.5 s;
regional compilation cuts the compilation from 67.4 to 9.6 s at the same speed.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from engine.strategy import KnownGood, Needs, gene, strategy

# Layers of one class share their code, and each size among them counts as a recompilation: the
# usual limit of 8 is reached within one pass of a large U-Net, whose rest would stay eager.
RECOMPILATIONS = 64


@strategy(
    slot="compile",
    order=95,
    exact=True,
    timed_only=True,
    first_call_s=60.0,
    needs=Needs(tools=("c++", "g++", "clang++", "cl")),
    # Their packed weights are objects without a trace: every layer would break the graph.
    conflicts=("dynamic_int8",),
    known_good=(
        KnownGood({"scope": "whole"}, "PyTorch blog: FLUX on an H100 6.7 to 4.5 s"),
        KnownGood({"scope": "regional"}, "PyTorch blog: compiles in 9.6 instead of 67.4 s"),
    ),
)
@dataclass(frozen=True)
class Compile:
    """Genes of the compilation."""

    scope: str = gene("regional", "what is compiled", choices=("whole", "regional"))
    mode: str = gene(
        "default", "mode of Inductor", choices=("default", "max-autotune-no-cudagraphs")
    )
    dynamic: bool = gene(False, "one code for all sizes and batches", choices=(False, True))


def untouched(module: Any) -> bool:
    """Whether the module calls what its class defines and nothing beside it."""
    hooked = module._forward_hooks or module._forward_pre_hooks
    return "forward" not in vars(module) and not hooked


def whole_inside(module: Any) -> bool:
    """Whether everything below the module is untouched."""
    return all(untouched(part) for part in module.modules() if part is not module)


def largest_parts(module: Any) -> Iterator[Any]:
    """The largest modules of several layers whose own forward can be compiled in one piece.

    Hooks on such a module itself do no harm: they run outside of its forward.
    """
    from torch.nn import ModuleDict, ModuleList

    layered = any(True for _ in module.children()) and not isinstance(
        module, (ModuleList, ModuleDict)
    )
    if layered and "forward" not in vars(module) and whole_inside(module):
        yield module
    else:
        for child in module.children():
            yield from largest_parts(child)


def repeated_blocks(denoiser: Any) -> set[str]:
    """Names of the classes of its repeated blocks: those that diffusers names, or else (PixArt,
    DiT, SD3) those that stand in a list at the top of the network."""
    from torch.nn import ModuleList

    named = set(getattr(denoiser, "_repeated_blocks", None) or ())
    lists = [child for child in denoiser.children() if isinstance(child, ModuleList)]
    return named or {type(block).__name__ for blocks in lists for block in blocks}


def chosen_parts(denoiser: Any, scope: str) -> list[Any]:
    """The modules to compile; raises ValueError when the scope has none."""
    roots = [denoiser]
    if scope == "regional":
        repeated = repeated_blocks(denoiser)
        # Token merging derives its blocks from the usual ones, so the bases count as well.
        roots = [
            module
            for module in denoiser.modules()
            if repeated & {base.__name__ for base in type(module).__mro__}
        ]
    parts = list(dict.fromkeys(part for root in roots for part in largest_parts(root)))
    if not parts:
        raise ValueError(
            f"{type(denoiser).__name__} has nothing to compile with scope={scope}: "
            + ("every part is hooked by another technique" if roots else "no repeated blocks")
        )
    return parts


def apply(pipe: Any, ctx: Any, *, scope: str, mode: str, dynamic: bool) -> None:
    import inspect

    import torch
    import torch._dynamo

    options: dict[str, Any] = {"mode": mode, "dynamic": dynamic, "fullgraph": False}
    if "recompile_limit" in inspect.signature(torch.compile).parameters:
        options["recompile_limit"] = RECOMPILATIONS
    else:
        # Older releases know the setting of the calling thread only.
        config: Any = torch._dynamo.config
        config.recompile_limit = max(config.recompile_limit, RECOMPILATIONS)

    def compiled(forward: Any) -> Any:
        return torch.compile(forward, **options)

    denoiser = getattr(pipe, "unet", None) or pipe.transformer
    # DeepCache wraps every layer and calls the forwards that it keeps in this table.
    table = pipe._deepcache_state.helper.function_dict if hasattr(pipe, "_deepcache_state") else {}
    kept = {
        key: forward
        for key, forward in table.items()
        if scope == "whole" and whole_inside(forward.__self__)
    }
    done = {module for forward in kept.values() for module in forward.__self__.modules()}
    parts = [part for part in chosen_parts(denoiser, scope) if part not in done]
    pipe._compile_state = [
        forward.__func__ for forward in (*kept.values(), *(part.forward for part in parts))
    ]
    for part in parts:
        part.forward = compiled(part.forward)
    table.update({key: compiled(forward) for key, forward in kept.items()})


def active(pipe: Any) -> str | None:
    """Whether the compiler holds code for a part of the denoiser."""
    from torch._dynamo.eval_frame import _debug_get_cache_entry_list

    functions = pipe._compile_state
    if not any(_debug_get_cache_entry_list(function.__code__) for function in functions):
        return f"none of {len(functions)} parts of the denoiser ran as compiled code"
    return None
