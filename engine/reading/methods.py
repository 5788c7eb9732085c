"""Techniques: how programs switch them on and off, on pipelines, on networks, by functions."""

from __future__ import annotations

import ast
from collections.abc import Mapping
from typing import Any

from engine.reading import Method, attributes, known, pipelines
from engine.reading.run import Run
from engine.reading.values import (
    Attribute,
    Bound,
    Function,
    Instance,
    Made,
    Mapped,
    Model,
    Pipe,
    Ref,
    Unknown,
)

Arguments = tuple[Any, ...]
CUTOFF = "CFGCutoffCallback"
"""How the names of diffusers' callbacks end that switch guidance off."""
SAME = ("to", "half", "float", "bfloat16", "cuda", "cpu", "eval", "requires_grad_", "train")
"""Methods of a network that give back the network."""


def on_target(
    target: Any, name: str, args: Arguments, keywords: Mapped, line: int, run: Run
) -> bool:
    """A method of a pipeline or network that switches a technique; False if it is none."""
    if name in known.ENDS:
        for owner in (target, attributes.denoiser(target)):
            run.deactivate(owner, known.ENDS[name])
        return True
    if name not in known.STARTS:
        return False
    technique, settings = known.STARTS[name](args, keywords.items)
    run.activate(target, technique, settings, line)
    return True


def on_model(
    model: Model, name: str, args: Arguments, keywords: Mapped, node: ast.AST, run: Run
) -> Any:
    """A call of a method of a network."""
    line = getattr(node, "lineno", 0)
    if name in SAME:
        _moved(model, name, args, keywords, line, run)
        return model
    if name == "enable_cache":
        enable_cache(model, args[0] if args else keywords.items.get("config"), line, run)
    elif name == "disable_cache":
        for technique in known.CACHES.values():
            run.deactivate(model, technique)
    elif name == "compile":
        run.activate(model, compiled_name(model), compiling(keywords, "whole"), line)
    elif name == "compile_repeated_blocks":
        run.activate(model, compiled_name(model), compiling(keywords, "regional"), line)
    elif name in ("enable_tiling", "enable_slicing") and model.name == "vae":
        run.activate(model, "vae", {name.removeprefix("enable_"): True}, line)
    elif name in ("disable_tiling", "disable_slicing"):
        run.deactivate(model, "vae")
    elif not on_target(model, name, args, keywords, line, run):
        return Unknown(f"{name} of a network is not known", given=True)
    return None


def _moved(model: Model, name: str, args: Arguments, keywords: Mapped, line: int, run: Run) -> None:
    values = [*args, keywords.items.get("dtype")]
    values += [{"half": "float16", "float": "float32", "bfloat16": "bfloat16"}.get(name)]
    for value in map(pipelines.number_format, values):
        if pipelines.is_format(value) and not run.own:
            model.state["dtype"] = value
    layout = keywords.items.get("memory_format")
    if layout == Ref("torch.channels_last"):
        run.activate(model, "channels_last", {}, line)


def enable_cache(target: Any, config: Any, line: int, run: Run) -> None:
    """diffusers' own caches: the class of the config says which."""
    if isinstance(config, Made) and config.ref.leaf in known.CACHES:
        settings = known.cache_settings(config.ref.leaf, config.keywords.items, config.args)
        run.activate(attributes.denoiser(target), known.CACHES[config.ref.leaf], settings, line)
    else:
        run.note(f"methods: which cache line {line} enables is not known")


def compiled_name(model: Any) -> str:
    """compile for a denoiser, compile_vae and so on for other networks."""
    name = model.name if isinstance(model, Model) else "unet"
    return "compile" if name in ("unet", "transformer") else f"compile_{name}"


def compiling(keywords: Mapped, scope: str) -> dict[str, Any]:
    stated = {k: keywords.items[k] for k in ("mode", "dynamic", "fullgraph", "backend")
              if keywords.items.get(k) is not None}  # fmt: skip
    return {"scope": scope, **stated}


def on_call(ref: Ref, args: Arguments, keywords: Mapped, node: ast.AST, run: Run) -> Any:
    """A function of a library that switches a technique; None if it is none."""
    line = getattr(node, "lineno", 0)
    leaf, items = ref.leaf, keywords.items
    target = attributes.denoiser(args[0]) if args else None
    if target is None:
        named = ("pipe", "pipeline", "model", "module", "transformer")
        target = attributes.denoiser(next((items[n] for n in named if n in items), None))
    if ref.root == "tomesd" and leaf == "apply_patch":
        run.activate(target, "tome", known.merging(args, items), line)
        return args[0] if args else Unknown("a patched pipeline")
    if ref.root == "tomesd" and leaf == "remove_patch":
        run.deactivate(target, "tome")
        return args[0] if args else None
    if leaf.startswith("Tgate") and leaf.endswith("Loader"):
        return _gated(leaf, args, keywords, line, run)
    if leaf == "DeepCacheSDHelper":
        made = Made(Ref("DeepCache.DeepCacheSDHelper"), args, keywords, line)
        made.state["pipe"] = args[0] if args else items.get("pipe")
        run.mention("deepcache", {}, line)
        return made
    if ref.path == "torch.compile" and (args or "model" in items):
        return _compiled(ref, args, keywords, line, run)
    if leaf in ("quantize_", "quantize") and ref.root in ("torchao", "optimum"):
        technique, settings = known.quantizing(ref.root, args, items)
        run.activate(target, technique, settings, line)
        return target
    if leaf in known.APPLIES:
        config = args[1] if len(args) > 1 else items.get("config")
        if config is None or not isinstance(config, Made) or leaf == "apply_layerwise_casting":
            run.activate(target, known.APPLIES[leaf], known.plain(items), line)
        else:
            enable_cache(target, config, line, run)
        return target
    if ref.root == "cache_dit" and leaf == "enable_cache":
        run.activate(target, "dbcache", known.dbcache(items), line)
        return args[0] if args else None
    if leaf == "apply_cache_on_pipe":
        settings = {"threshold": items.get("residual_diff_threshold")}
        run.activate(target, "first_block_cache", settings, line)
        return args[0] if args else None
    if leaf == "quantize_dynamic" and isinstance(target, Model):
        run.mention("dynamic_int8", {}, line)
        return _changed(target, "dynamic_int8", {}, line)
    if ref.path == "torch.set_float32_matmul_precision" and args[:1] != ("highest",):
        run.activate(run, "tf32", {}, line)
    return None


def _changed(model: Model, name: str, settings: Mapping[str, Any], line: int) -> Model:
    """A network as a function gives it back, with one more method; the first is as it was."""
    state = dict(model.state)
    stated = {k: v for k, v in settings.items() if isinstance(v, bool | int | float | str)}
    state["active"] = {**model.state["active"], name: Method(name, stated, line)}
    return Model(model.name, **state)


def _compiled(ref: Ref, args: Arguments, keywords: Mapped, line: int, run: Run) -> Any:
    """torch.compile: what it gives back is compiled, what it was given is not."""
    target = args[0] if args else keywords.items["model"]
    settings = compiling(keywords, "whole")
    owner = target.owner if isinstance(target, Attribute) else target
    run.mention(compiled_name(owner), settings, line)
    if isinstance(target, Model):
        return _changed(target, compiled_name(target), settings, line)
    if isinstance(target, Function | Bound | Pipe | Instance):
        return target
    return Made(ref, args, keywords, line)


def _gated(leaf: str, args: Arguments, keywords: Mapped, line: int, run: Run) -> Any:
    """A loader of the package tgate: the method waits for ``pipe.tgate(...)``."""
    pipe = args[0] if args else keywords.items.get("pipe", keywords.items.get("pipeline"))
    if not isinstance(pipe, Pipe):
        return None
    step = args[1] if len(args) > 1 else keywords.items.get("gate_step")
    settings = {"gate_step": step} if isinstance(step, int) else {}
    run.mention("tgate", settings, line)
    pipe.state["active"] = {**pipe.state["active"], "$tgate": Method("tgate", settings, line)}
    if "DeepCache" in leaf:
        cache = {"interval": keywords.items.get("cache_interval"),
                 "branch": keywords.items.get("cache_branch_id")}  # fmt: skip
        run.activate(pipe, "deepcache", {k: v for k, v in cache.items() if v is not None}, line)
    return pipe


def on_object(
    owner: Made, name: str, args: Arguments, keywords: Mapped, node: ast.AST, run: Run
) -> Any:
    """A call of a method of a helper, such as DeepCache's; None if it is none."""
    line = getattr(node, "lineno", 0)
    if owner.ref.leaf != "DeepCacheSDHelper":
        return None
    pipe = owner.state["pipe"]
    if name == "set_params":
        values = dict(zip(("cache_interval", "cache_branch_id", "skip_mode"), args, strict=False))
        owner.state["params"] = {**values, **keywords.items}
        if owner.state.get("enabled"):
            run.activate(attributes.denoiser(pipe), "deepcache", known.caching(owner), line)
        else:
            run.mention("deepcache", known.caching(owner), line)
    elif name == "enable":
        pipe = args[0] if args else keywords.items.get("pipe", pipe)
        owner.state |= {"pipe": pipe, "enabled": True}
        run.activate(attributes.denoiser(pipe), "deepcache", known.caching(owner), line)
    elif name == "disable":
        owner.state["enabled"] = False
        run.deactivate(attributes.denoiser(pipe), "deepcache")
    else:
        return None
    # None would say that this is no method of a helper.
    return Unknown("nothing", none=True)


def installed(pipe: Pipe, name: str, before: Any, value: Any, line: int, run: Run) -> Any:
    """What stands in a pipeline's place for a network after ``pipe.name = value``."""
    if isinstance(value, Model):
        if value.state.get("class") == "AutoencoderTiny" and name == "vae":
            run.activate(pipe, "tiny_vae", {}, line)
        elif value.state.get("class") and name in ("unet", "transformer"):
            _foreign(pipe, value, line, run)
        # It is the same network in another role, such as a prior's.
        placed = Model(name, **value.state) if value.name != name else value
        return placed
    if isinstance(value, Made) and value.ref.path == "torch.compile" and isinstance(before, Model):
        run.activate(before, compiled_name(before), compiling(value.keywords, "whole"), line)
        return before
    if isinstance(before, Model):
        # A wrapper of the program around the network: what was done to it stays.
        pipe.state["active"] = {**pipe.state["active"], **before.state["active"]}
    return value


def _foreign(pipe: Pipe, model: Model, line: int, run: Run) -> None:
    """A denoiser from another repository is another model."""
    from engine.reading.mirrors import canonical_id

    name, own = model.state.get("id"), pipe.state.get("id")
    if isinstance(name, str) and isinstance(own, str) and canonical_id(name) != canonical_id(own):
        run.activate(pipe, "other_denoiser", {"id": name}, line)


def replaced(model: Model, name: str, value: Any, line: int, run: Run) -> None:
    """``network.name = value``: a compiled forward or decode takes effect."""
    if isinstance(value, Made) and value.ref.path == "torch.compile":
        run.activate(model, compiled_name(model), compiling(value.keywords, "whole"), line)


def library_changed(ref: Ref, name: str, value: Any, line: int, run: Run) -> None:
    """An attribute of a library is set: switches of the process, or another's code."""
    if name == "allow_tf32":
        if value is True:
            run.activate(run, "tf32", {}, line)
    elif ref.root in ("diffusers", "DeepCache", "tomesd", "transformers") and isinstance(
        value, Function | Bound
    ):
        run.note(f"code: line {line} replaces {ref.path}.{name} of a library")


def quantized(target: Any, config: Any, line: int, run: Run) -> None:
    """Methods that a quantization config stands for."""
    for technique, settings in known.quantization(config):
        run.activate(target, technique, settings, line)


def is_autocast(value: Any) -> bool:
    return isinstance(value, Made) and value.ref.leaf == "autocast"


def kernel_of(value: Any) -> str | None:
    """The kernel that ``with sdpa_kernel(...)`` allows."""
    if not isinstance(value, Made) or value.ref.leaf not in ("sdpa_kernel", "attention_backend"):
        return None
    first = value.args[0] if value.args else None
    inner = getattr(first, "items", (first,))
    chosen = inner[0] if inner else None
    name = chosen.leaf.lower() if isinstance(chosen, Ref) else str(chosen)
    return known.KERNELS.get(name, name)


def guidance_of(callback: Any) -> dict[str, Any] | None:
    """The settings of a step callback that ends guidance; None if it does not."""
    if isinstance(callback, Made) and callback.ref.leaf.endswith(CUTOFF):
        ratio = callback.argument(0, "cutoff_step_ratio")
        return {"stop": 0.2 if ratio is None else ratio}
    function = callback.function if isinstance(callback, Bound) else callback
    if isinstance(callback, Instance):
        function = callback.cls.lookup("__call__")
    if not isinstance(function, Function):
        return None
    for node in ast.walk(function.node):
        is_switch = isinstance(node, ast.Attribute) and node.attr == "_guidance_scale"
        if is_switch and isinstance(getattr(node, "ctx", None), ast.Store):
            return {}
    return None
