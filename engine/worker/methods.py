"""Which techniques really acted in an image, found by what they do to a network's parts.

A cache makes inner modules run less often than the denoiser, merging gives attention fewer tokens,
a gate leaves projections of cross-attention out: that is counted, whoever wrote the technique. What
cannot be counted (a dtype, a layout) is read from the parts as they stand.
"""

from __future__ import annotations

import functools
from collections import Counter
from collections.abc import Callable, Iterator
from itertools import pairwise
from typing import Any

from engine.worker.evidence import Setting

Found = dict[str, dict[str, Setting]]
HOOKS = {
    "pyramid_attention_broadcast": "pab",
    "faster_cache_denoiser": "faster_cache",
    "faster_cache_block": "faster_cache",
    "fbc_leader_block_hook": "first_block_cache",
    "first_block_cache": "first_block_cache",
    "mag_cache_leader_block_hook": "magcache",
    "magcache": "magcache",
    "taylorseer_cache": "taylorseer",
    "layerwise_casting": "layerwise_fp8",
}
"""Names under which diffusers, and our strategies, register hooks, to ours."""
CACHES = ("pab", "faster_cache", "first_block_cache", "magcache", "taylorseer", "dbcache")


class Units:
    """Parts of the denoiser that are watched while an image is drawn."""

    def __init__(self, network: Any) -> None:
        self.network = network
        self.forwards = 0
        self.full: list[int] = []
        """Numbers of the denoiser's calls in which its deepest part ran."""
        self.crossed = 0
        self.projected: list[int] = []
        """Numbers of the calls in which a cross-attention made its own queries."""
        self.held = 0
        """Cross-attentions that a hook of diffusers' caches answered from what it kept."""
        self.reached = 0
        self.merged = 0
        self._tokens = 0
        self.inner = Counter[int]()
        """Calls of each attention's query projection, by its place."""

    def forward(self) -> None:
        self.forwards += 1

    def hooks(self) -> Iterator[Any]:
        """The hooks that count, all as handles."""
        deep = _deepest(self.network)
        if deep is not None:
            yield deep.register_forward_pre_hook(lambda *_: self.full.append(self.forwards))
        for number, module in enumerate(self.network.modules()):
            query = getattr(module, "to_q", None)
            if query is not None and hasattr(query, "register_forward_pre_hook"):
                yield query.register_forward_pre_hook(self._query(number))
                if getattr(module, "is_cross_attention", False):
                    yield module.register_forward_pre_hook(self._crossing)
                    yield query.register_forward_pre_hook(self._projecting)
                    yield from self._doors(module)
            if hasattr(module, "_tome_info") and hasattr(module, "attn1"):
                yield module.register_forward_pre_hook(self._block, with_kwargs=True)
                yield module.attn1.register_forward_pre_hook(self._attention, with_kwargs=True)

    def _query(self, number: int) -> Callable[..., None]:
        return lambda *_: self.inner.update([number])

    def _crossing(self, *_: Any) -> None:
        self.crossed += 1

    def _projecting(self, *_: Any) -> None:
        self.projected.append(self.forwards)

    def _doors(self, module: Any) -> Iterator[Any]:
        """Counters around the hooks of an attention: what enters one and does not pass is held."""
        registry = getattr(module, "_diffusers_hook", None)
        for hook in getattr(registry, "hooks", {}).values():
            if hook.fn_ref.original_forward is not None:
                yield _Counted(hook.fn_ref, "forward", functools.partial(self._hold, 1))
                yield _Counted(hook.fn_ref, "original_forward", functools.partial(self._hold, -1))

    def _hold(self, change: int) -> None:
        self.held += change

    def _block(self, _module: Any, args: Any, kwargs: Any) -> None:
        self._tokens = (args[0] if args else kwargs["hidden_states"]).shape[1]

    def _attention(self, _module: Any, args: Any, kwargs: Any) -> None:
        self.reached += 1
        self.merged += (args[0] if args else kwargs["hidden_states"]).shape[1] < self._tokens

    def found(self, pipe: Any, network: Any, counters: Any) -> tuple[Found, tuple[str, ...]]:
        """Techniques that acted with what was seen of them, and those installed that did not."""
        found, dead = standing(pipe, network), set[str]()
        cached = hooked(network) - {"layerwise_fp8"}
        skipped = self.forwards - len(set(self.full))
        queries = max(self.inner.values(), default=0) - min(self.inner.values(), default=0)
        for name in cached:
            if skipped > 0 or queries > 0 or min(self.inner.values(), default=0) < self.forwards:
                found[name] = {"skipped": skipped}
            else:
                dead.add(name)
        if not cached and skipped > 0:
            found["deepcache"] = {"skipped": skipped, "interval": _interval(self.full)}
        elif _wrapped_by(network, "DeepCacheSDHelper"):
            dead.add("deepcache")
        if hasattr(network, "_tome_info"):
            options = network._tome_info.get("args", {})
            wanted = {k: options[k] for k in ("ratio", "max_downsample") if k in options}
            if self.merged:
                found["tome"] = {**wanted, "merged": self.merged}
            else:
                dead.add("tome")
        reused = self.crossed - len(self.projected) - self.held
        if reused > 0:
            found["tgate"] = {"gate_step": max(self.projected, default=0), "reused": reused}
        rows = counters.batches
        if "tgate" not in found and rows and min(rows) < max(rows):
            at = next(i for i, n in enumerate(rows) if n < max(rows))
            found["guidance"] = {"stopped_at": at}
        return found, tuple(sorted(dead - set(found)))


class _Counted:
    """A function held by an object, with a counter before it until it is removed."""

    def __init__(self, owner: Any, name: str, count: Callable[[], None]) -> None:
        self.owner, self.name, self.original = owner, name, getattr(owner, name)

        @functools.wraps(self.original)
        def counted(*args: Any, **kwargs: Any) -> Any:
            count()
            return self.original(*args, **kwargs)

        setattr(owner, name, counted)

    def remove(self) -> None:
        setattr(self.owner, self.name, self.original)


def _deepest(network: Any) -> Any:
    """A module with weights in the innermost part of a denoiser: whoever skips inner parts skips
    this one."""
    middle = getattr(network, "mid_block", None)
    if middle is None:
        blocks = list(getattr(network, "down_blocks", None) or _stack(network) or ())
        if not blocks:
            return None
        middle = blocks[-1]
    leaves = [m for m in middle.modules() if not list(m.children()) and list(m.parameters())]
    # Every other module may be replaced or fused; a norm or a convolution stays.
    return leaves[0] if leaves else None


def _stack(network: Any) -> Any:
    """The blocks of a transformer."""
    for name in ("single_transformer_blocks", "transformer_blocks", "layers", "blocks"):
        found = getattr(network, name, None)
        if found is not None and len(found):
            return found
    return None


def _interval(full: list[int]) -> int:
    """The commonest distance from one full pass to the next."""
    calls = sorted(set(full))
    gaps = Counter(b - a for a, b in pairwise(calls))
    return gaps.most_common(1)[0][0] if gaps else 0


def hooked(network: Any) -> set[str]:
    """Techniques that diffusers has registered hooks for in a network."""
    found = set[str]()
    for module in network.modules():
        registry = getattr(module, "_diffusers_hook", None)
        for name in getattr(registry, "hooks", {}):
            known = next((ours for start, ours in HOOKS.items() if str(name).startswith(start)), "")
            found.update([known] if known else [])
    if any("cache_dit" in type(m).__module__ for m in network.modules()):
        found.add("dbcache")
    return found


def _wrapped_by(network: Any, owner: str) -> bool:
    """Whether a function of that owner stands in place of a module's forward."""
    return any(
        owner in getattr(vars(m).get("forward"), "__qualname__", "") for m in network.modules()
    )


def standing(pipe: Any, network: Any) -> Found:
    """What can be read from the parts as they stand, the denoiser or another."""
    import torch

    found: Found = {}
    parts = [c for c in pipe.components.values() if isinstance(c, torch.nn.Module)] or [network]
    modules = [module for part in parts for module in part.modules()]
    kinds = {f"{type(m).__module__}.{type(m).__name__}" for m in modules}
    if any(map(_compiled, modules)) or any(map(_is_compiled, vars(pipe).values())):
        found["compile"] = {}
    if any(getattr(m, "fused_projections", False) for m in modules):
        found["qkv_fusion"] = {}
    if any(map(_channels_last, parts)):
        found["channels_last"] = {}
    if any(k.startswith("torch.ao.nn.quantized") for k in kinds) or any(map(_packed, modules)):
        found["dynamic_int8"] = {}
    if any("bitsandbytes" in kind for kind in kinds):
        found["bitsandbytes"] = {}
    if any("torchao" in type(p.data).__module__ for part in parts for p in part.parameters()):
        found["torchao"] = {}
    if "layerwise_fp8" in hooked(network):
        found["layerwise_fp8"] = {}
    coder = getattr(pipe, "vae", None)
    if type(coder).__name__ == "AutoencoderTiny":
        found["tiny_vae"] = {}
    switches = {n: True for n in ("use_slicing", "use_tiling") if getattr(coder, n, False) is True}
    if switches:
        found["vae"] = {name.removeprefix("use_"): True for name in switches}
    processors = {type(getattr(m, "processor", None)).__name__ for m in modules}
    special = {p for p in processors if p.startswith(("Sliced", "XFormers"))}
    if special:
        found["attention"] = {"processor": sorted(special)[0]}
    if any(hasattr(c, "_hf_hook") for c in pipe.components.values()):
        found["placement"] = {}
    return found


def _compiled(module: Any) -> bool:
    """Whether a module, or one of its methods, was given to ``torch.compile``."""
    own = vars(module)
    return (
        "_orig_mod" in own.get("_modules", {})
        or own.get("_compiled_call_impl") is not None
        or any(map(_is_compiled, own.values()))
    )


def _is_compiled(function: Any) -> bool:
    return callable(function) and hasattr(function, "_torchdynamo_orig_callable")


def _packed(module: Any) -> bool:
    """Whether a module holds weights in the packed form of torch's 8-bit kernels."""
    import torch

    held = (value for value in vars(module).values() if isinstance(value, torch.ScriptObject))
    return any("PackedParams" in str(value._type()) for value in held)


def _channels_last(network: Any) -> bool:
    """Whether weights of convolutions lie with their channels last; those for which both layouts
    are one say nothing."""
    import torch

    for parameter in network.parameters():
        if parameter.dim() == 4 and not parameter.is_contiguous():
            return bool(parameter.is_contiguous(memory_format=torch.channels_last))
    return False
