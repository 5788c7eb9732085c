"""diffusers' pipelines: how they are made, what their methods change, and when they are called."""

from __future__ import annotations

import ast
import re
from typing import Any

from engine.reading import Method, attributes, expressions, facts, methods
from engine.reading.run import Run, Shot
from engine.reading.values import (
    Made,
    Mapped,
    Model,
    Pipe,
    Ref,
    Scheduler,
    Unknown,
    derived,
)

Arguments = tuple[Any, ...]
MAKERS = ("from_pretrained", "from_single_file", "from_pipe", "from_config")
LOADING = ("subfolder", "revision", "variant", "cache_dir", "torch_dtype", "dtype", "token",
           "use_safetensors", "local_files_only", "use_auth_token", "force_download")  # fmt: skip
"""Keywords of from_pretrained that are no settings."""
FORMATS = {"float16": "float16", "half": "float16", "fp16": "float16", "bfloat16": "bfloat16",
           "bf16": "bfloat16", "float32": "float32", "float": "float32", "fp32": "float32",
           "float64": "float64", "double": "float64"}  # fmt: skip
STARTS = {"AutoPipelineForText2Image": "text", "AutoPipelineForImage2Image": "image",
          "AutoPipelineForInpainting": "inpaint"}  # fmt: skip


def number_format(value: Any) -> Any:
    """A dtype as its name; what is not known or is no dtype as it is."""
    if isinstance(value, Ref) and value.root in ("torch", "numpy", "jax"):
        return FORMATS.get(value.leaf, value)
    if isinstance(value, str):
        return FORMATS.get(value.removeprefix("torch."), value)
    return value


def is_format(value: Any) -> bool:
    return isinstance(value, str) and value in FORMATS.values()


def made(ref: Ref, args: Arguments, keywords: Mapped, node: ast.AST, run: Run) -> Any:
    """A pipeline, scheduler or network where the call makes one, else None."""
    if ref.root not in ("diffusers", "transformers", "optimum"):
        return None
    parts = ref.path.split(".")
    how = parts[-1] if parts[-1] in MAKERS else None
    cls = parts[-2] if how else parts[-1]
    if not cls[:1].isupper():
        return None
    line = getattr(node, "lineno", 0)
    if ref.root == "diffusers" and (cls.endswith("Pipeline") or cls in STARTS):
        return _pipeline(cls, how, args, keywords, line, run)
    if ref.root == "diffusers" and cls.endswith("Scheduler"):
        settings = {k: v for k, v in keywords.items.items() if how is None or k not in LOADING}
        return Scheduler(cls, settings)
    if cls.startswith(("Auto", "UNet", "ControlNet")) or re.search(r"Model$|Transformer", cls):
        return _network(cls, args, keywords, line, run)
    return None


def _network(cls: str, args: Arguments, keywords: Mapped, line: int, run: Run) -> Model:
    """A network that is loaded by itself."""
    name = args[0] if args else keywords.items.get("pretrained_model_name_or_path")
    dtype = keywords.items.get("torch_dtype", keywords.items.get("dtype"))
    found = Model(_role(cls), **{"class": cls, "id": name, "dtype": number_format(dtype)})
    methods.quantized(found, keywords.items.get("quantization_config"), line, run)
    return found


def _role(cls: str) -> str:
    """The name that a pipeline gives to a network of such a class."""
    if cls.startswith("Autoencoder"):
        return "vae"
    if cls.startswith("UNet"):
        return "unet"
    if "ControlNet" in cls:
        return "controlnet"
    return "transformer" if "Transformer" in cls else "text_encoder"


def _pipeline(
    cls: str, how: str | None, args: Arguments, keywords: Mapped, line: int, run: Run
) -> Pipe:
    items = dict(keywords.items)
    other = items.pop("$pipe", None) or (args[0] if how == "from_pipe" and args else None)
    other = other or (items.pop("pipeline", None) if how == "from_pipe" else None)
    if isinstance(other, Pipe):
        state = {k: v for k, v in other.state.items() if k != "class"}
        pipe = Pipe(None, **state)
        base = other.state["class"]
    else:
        name = (
            args[0]
            if args
            else next((items[k] for k in items if k.startswith("pretrained_model")), None)
        )
        pipe = Pipe(None, id=_hub_id(name), revision=items.get("revision"))
        base = None
    if how is None and pipe.state.get("id") is None:
        found = next((v.state.get("id") for v in items.values() if isinstance(v, Model)), None)
        pipe.state["id"] = found
    _options(pipe, items, line, run)
    pipe.state["class"] = _resolved(cls, base, pipe, line, run)
    if "custom_pipeline" in items:
        run.note(f"pipeline: custom_pipeline={items['custom_pipeline']!r} replaces its call")
    if keywords.open is not None and not keywords.open.given:
        run.note(f"pipeline: some keywords of line {line} are not known ({keywords.open.why})")
    pipe.state["active"] = {**pipe.state["active"], **run.loading}
    run.loading = {}
    run.pipes.append(pipe)
    return pipe


def _hub_id(name: Any) -> Any:
    """ORG/NAME of an address on the hub; other names as they are."""
    if isinstance(name, str):
        found = re.match(r"(?:https?://)?huggingface\.co/([^/]+/[^/]+)", name)
        return found[1] if found else name
    if isinstance(name, Made) and name.ref.leaf in ("snapshot_download", "hf_hub_download"):
        return name.argument(0, "repo_id")
    return name


def _options(pipe: Pipe, items: dict[Any, Any], line: int, run: Run) -> None:
    """What from_pretrained and from_pipe take: number format, scheduler, networks."""
    dtype = items.get("torch_dtype", items.get("dtype"))
    if dtype is not None:
        pipe.state["dtype"] = number_format(dtype)
    if "scheduler" in items:
        pipe.state["scheduler"] = items["scheduler"]
    methods.quantized(pipe, items.get("quantization_config"), line, run)
    for name in attributes.PARTS:
        value = items.get(name)
        if value is None:
            continue
        if name == "controlnet":
            pipe.state["controlnet"] = _controlnet(value, run)
        elif isinstance(value, Model | Unknown | Made):
            new = methods.installed(pipe, name, Model(name), value, line, run)
            pipe.state["parts"] = {**pipe.state["parts"], name: new}


def _controlnet(value: Any, run: Run) -> Any:
    """The hub id of a ControlNet; of several the first, and a note."""
    many = expressions.items_of(value)
    if many:
        if len(many) > 1:
            run.note("controlnet: there are several, the first is read")
        value = many[0]
    return value.state.get("id") if isinstance(value, Model) else value


def _resolved(cls: str, base: Any, pipe: Pipe, line: int, run: Run) -> Any:
    """The class that a general class stands for: by the model, or by the pipeline it came from."""
    if cls not in STARTS and cls != "DiffusionPipeline":
        return cls
    name = pipe.state.get("id")
    if base is not None:
        texts = (t for t, relatives in facts.STARTING.items() if base in relatives.values())
        text: str | None = next(texts, base)
    elif not isinstance(name, str):
        return name if isinstance(name, Unknown) else Unknown("the model decides its class")
    else:
        text = facts.text_pipeline(name)
        if text is None:
            return Unknown(f"{cls} of {name}, which is no model of the catalogue, line {line}")
    start = STARTS.get(cls, "text")
    if pipe.state.get("controlnet") is not None and cls in STARTS:
        start = "control" if start == "text" else f"control {start}"
    found = text if start == "text" else facts.STARTING.get(str(text), {}).get(start)
    return found or Unknown(f"{cls} of {name} is not known, line {line}")


def method(
    pipe: Pipe, name: str, args: Arguments, keywords: Mapped, node: ast.AST, run: Run
) -> Any:
    """A call of a method of a pipeline."""
    line = getattr(node, "lineno", 0)
    if name in ("__call__", "tgate"):
        return shoot(pipe, args, keywords, node, run, gated=name == "tgate")
    if name in ("to", "cuda", "cpu", "half", "float"):
        _moved(pipe, name, args, keywords, run)
        return pipe
    if methods.on_target(pipe, name, args, keywords, line, run):
        return None
    return derived(f"{name} of a pipeline is not known", Unknown("", given=True))


def _moved(pipe: Pipe, name: str, args: Arguments, keywords: Mapped, run: Run) -> None:
    """``pipe.to(...)``: a number format among its arguments holds for all networks."""
    values = [*args, *(keywords.items.get(k) for k in ("dtype", "torch_dtype"))]
    values += ["float16"] if name == "half" else ["float32"] if name == "float" else []
    for value in map(number_format, values):
        if is_format(value) and not run.own:
            pipe.state["dtype"] = value
            for part in pipe.state["parts"].values():
                if isinstance(part, Model):
                    part.state["dtype"] = None


def shoot(
    pipe: Pipe, args: Arguments, keywords: Mapped, node: ast.AST, run: Run, gated: bool = False
) -> Any:
    """A pipeline is called: what holds now is what counts, if no later call comes."""
    line = getattr(node, "lineno", 0)
    cls = pipe.state["class"]
    order = facts.CALLS[cls].order if cls in facts.CALLS else ("prompt",)
    every = Mapped(dict(zip(order, args, strict=False)), keywords.open)
    every.update(keywords)
    _methods_of_call(pipe, every, gated, line, run)
    found: dict[str, Method] = dict(run.process)
    for part in pipe.state["parts"].values():
        if isinstance(part, Model):
            found |= part.state["active"]
    found |= pipe.state["active"]
    if not gated:
        found.pop("$tgate", None)
    found = {m.name: m for m in found.values()}
    autocast = next((c for c in reversed(run.contexts) if methods.is_autocast(c)), None)
    for context in run.contexts:
        kernel = methods.kernel_of(context)
        if kernel is not None:
            found["fused_attention"] = Method("fused_attention", {"kernel": kernel}, line)
    run.shots.append(Shot(pipe, every, dict(pipe.state), found, autocast, line))
    result = Made(Ref("$images"), (), Mapped(), line)
    result.state["tags"] = frozenset({f"call:{len(run.shots) - 1}"})
    return result


def _methods_of_call(pipe: Pipe, call: Mapped, gated: bool, line: int, run: Run) -> None:
    """Methods that stand in the call itself: a gate, a callback that ends guidance."""
    if gated:
        loaded = pipe.state["active"].get("$tgate")
        settings = dict(loaded.settings) if loaded else {}
        step = call.items.get("gate_step")
        if isinstance(step, int):
            settings["gate_step"] = step
        pipe.state["active"] = {**pipe.state["active"], "$tgate": Method("tgate", settings, line)}
        if isinstance(step, Unknown):
            run.note(f"methods.tgate.gate_step: {step.why}")
    callback = call.items.get("callback_on_step_end")
    ends = methods.guidance_of(callback)
    if ends is not None and not run.own and "tgate" not in pipe.state["active"]:
        run.activate(pipe, "guidance", ends, line)
