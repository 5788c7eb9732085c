"""Attributes and items: of the program's own objects, of pipelines, of what libraries gave."""

from __future__ import annotations

import ast
from typing import Any

from engine.reading import calls, methods
from engine.reading.run import Run
from engine.reading.values import (
    MISSING,
    Attribute,
    Bound,
    Class,
    Function,
    Instance,
    Made,
    Mapped,
    Model,
    Namespace,
    Pipe,
    Ref,
    Scheduler,
    Sequence,
    Super,
    Unknown,
    derived,
    is_constant,
    tags_of,
)

PARTS = ("unet", "transformer", "vae", "text_encoder", "text_encoder_2", "text_encoder_3",
         "controlnet", "image_encoder", "prior")  # fmt: skip
OWN = {"_execution_device": "its device", "device": "its device", "dtype": "its number format"}
TRANSFORMERS = ("PixArt", "DiT", "StableDiffusion3", "Flux", "Sana", "Lumina", "AuraFlow",
                "CogView", "Hunyuan", "QwenImage", "ZImage", "Chroma", "LTX", "Wan")  # fmt: skip
"""Words in the names of pipelines whose denoiser is a transformer."""


def get(owner: Any, name: str, node: ast.AST, run: Run) -> Any:
    """The value of ``owner.name``."""
    line = getattr(node, "lineno", 0)
    if isinstance(owner, Ref):
        return Ref(f"{owner.path}.{name}")
    if isinstance(owner, Unknown):
        return derived("", owner)
    if isinstance(owner, Pipe):
        return _of_pipe(owner, name, node, run)
    if isinstance(owner, Instance):
        return _of_instance(owner, name, node, run)
    if isinstance(owner, Super):
        return _of_super(owner, name)
    if isinstance(owner, Class):
        return _of_class(owner, name, line)
    if isinstance(owner, Model | Scheduler) and name in owner.state and name not in _HIDDEN:
        return owner.state[name]
    if isinstance(owner, Model | Scheduler) and name == "config":
        return Unknown("the config of a part of the pipeline is not known", given=True)
    if isinstance(owner, Namespace) and name in owner.state:
        return owner.state[name]
    if isinstance(owner, Made):
        return _of_made(owner, name, line)
    if isinstance(owner, str) and name in ("type", "value"):
        # A device, which is kept as its name, or a member of an enumeration.
        return owner.partition(":")[0] if name == "type" else owner
    if is_constant(owner) and name in ("value", "real"):
        return owner
    if isinstance(owner, Function) and name == "__name__":
        return owner.name
    return Attribute(owner, name)


_HIDDEN = ("active", "class", "settings", "dtype", "id")
"""States that are the reader's own words, not attributes of a part."""


def _of_pipe(pipe: Pipe, name: str, node: ast.AST, run: Run) -> Any:
    if pipe.cls is not None:
        found = pipe.cls.lookup(name)
        if found is not MISSING:
            return _bound(found, pipe, node, run)
    if name == "scheduler":
        if pipe.state["scheduler"] is None:
            return Scheduler(None, {})
        return pipe.state["scheduler"]
    if name in PARTS:
        return part(pipe, name)
    if name == "components":
        return Mapped({"$pipe": pipe})
    if name in OWN:
        return Unknown(f"{OWN[name]} is not known", given=True)
    if name in pipe.state and name not in ("class", "id", "parts", "revision", "active"):
        return pipe.state[name]
    return Attribute(pipe, name)


def part(pipe: Pipe, name: str) -> Any:
    """A network of a pipeline; None where pipelines of that class have none."""
    found = pipe.state["parts"].get(name)
    cls = str(pipe.state["class"] or "")
    if found is None and name == "unet" and any(word in cls for word in TRANSFORMERS):
        return None
    of_unet = cls.startswith("StableDiffusion") and "StableDiffusion3" not in cls
    if found is None and name == "transformer" and of_unet:
        return None
    if found is None:
        found = Model(name)
        pipe.state["parts"] = {**pipe.state["parts"], name: found}
    return found


def denoiser(target: Any) -> Any:
    """The network of a pipeline that denoises; other values as they are."""
    if isinstance(target, Pipe):
        return part(target, "unet") or part(target, "transformer")
    return target


def _of_instance(owner: Instance, name: str, node: ast.AST, run: Run) -> Any:
    if name in owner.state:
        return owner.state[name]
    found = owner.cls.lookup(name)
    if found is not MISSING:
        return _bound(found, owner, node, run)
    if name == "__class__":
        return owner.cls
    if name == "__dict__":
        return Mapped(owner.state)
    return Attribute(owner, name)


def _bound(found: Any, owner: Any, node: ast.AST, run: Run) -> Any:
    if not isinstance(found, Function):
        return found
    if found.kind == "property":
        return calls.invoke(found, (owner,), Mapped(), node, run)
    if found.kind == "static":
        return found
    cls = getattr(owner, "cls", owner)
    return Bound(found, cls if found.kind == "class" else owner)


def _of_super(owner: Super, name: str) -> Any:
    for base in owner.cls.bases:
        found = base.lookup(name) if isinstance(base, Class) else MISSING
        if isinstance(found, Function):
            return found if found.kind == "static" else Bound(found, owner.self)
        if found is not MISSING:
            return found
    if isinstance(owner.self, Pipe):
        return Attribute(owner.self, name)
    base = owner.cls.library_base()
    if base is not None and isinstance(owner.self, Class):
        return Attribute(owner.self, name)
    return Ref(f"builtins.object.{name}")


def _of_class(owner: Class, name: str, line: int) -> Any:
    found = owner.lookup(name)
    if isinstance(found, Function) and found.kind == "class":
        return Bound(found, owner)
    if found is not MISSING:
        return found
    if name == "__name__":
        return owner.name
    return Attribute(owner, name)


def _of_made(owner: Made, name: str, line: int) -> Any:
    if name in owner.state:
        return owner.state[name]
    if owner.ref.path == "$images" and name in ("images", "frames"):
        return Sequence([Unknown("an image", tags=owner.state["tags"])], open_=True)
    if name in ("type", "value") and owner.ref.leaf in ("device", "auto"):
        return Unknown("the device is not known", given=True)
    return Attribute(owner, name)


def put(owner: Any, name: str, value: Any, node: ast.AST, run: Run) -> None:
    """``owner.name = value``."""
    line = getattr(node, "lineno", 0)
    if isinstance(owner, Pipe):
        _put_in_pipe(owner, name, value, line, run)
    elif isinstance(owner, Model):
        methods.replaced(owner, name, value, line, run)
        if name not in _HIDDEN:
            owner.state[name] = value
    elif isinstance(owner, Class):
        owner.scope.state[name] = value
    elif isinstance(owner, Ref):
        methods.library_changed(owner, name, value, line, run)
    elif isinstance(owner, Instance | Namespace | Made):
        owner.state[name] = value


def _put_in_pipe(pipe: Pipe, name: str, value: Any, line: int, run: Run) -> None:
    if name == "scheduler":
        pipe.state["scheduler"] = value
    elif name in PARTS:
        before = part(pipe, name)
        new = methods.installed(pipe, name, before, value, line, run)
        pipe.state["parts"] = {**pipe.state["parts"], name: new}
    elif name == "_guidance_scale":
        run.activate(pipe, "guidance", {}, line)
    elif name not in ("class", "id", "parts", "revision", "active", "dtype"):
        pipe.state[name] = value


def item(value: Any, index: Any, node: ast.Subscript, run: Run) -> Any:
    """``value[index]``."""
    line = node.lineno
    if isinstance(value, Mapped):
        if is_constant(index) and index in value.items:
            return value.items[index]
        return value.open or derived(f"the key of line {line} is not there", index)
    if isinstance(value, Namespace) and isinstance(index, str):
        return value.state.get(index, Unknown(f"the key of line {line} is not there"))
    items = value.items if isinstance(value, Sequence) else value
    if isinstance(items, tuple | str) and isinstance(index, int | slice):
        if isinstance(value, Sequence) and value.state["open"]:
            return items[0] if items else Unknown(f"what line {line} takes is not known")
        try:
            found = items[index]
        except (IndexError, ValueError):
            return Unknown(f"line {line} takes an item that is not there")
        return (
            Sequence(found) if isinstance(index, slice) and isinstance(value, Sequence) else found
        )
    if value == Ref("os.environ"):
        return Unknown(f"the environment of line {line} decides")
    if isinstance(value, Ref):
        # A type with parameters, such as list[int].
        return value
    if isinstance(value, Made) and value.ref.path == "$images":
        return Sequence([Unknown("an image", tags=value.state["tags"])], open_=True)
    return derived(f"what line {line} takes is not known", value, Unknown(tags=tags_of(value)))


def put_item(owner: Any, index: Any, value: Any, node: ast.Subscript, run: Run) -> None:
    """``owner[index] = value``."""
    if isinstance(owner, Mapped) and is_constant(index):
        owner.put(index, value)
    elif isinstance(owner, Mapped):
        owner.update(derived("a key is not known", index))
    elif isinstance(owner, Namespace) and isinstance(index, str):
        owner.state[index] = value
    elif isinstance(owner, Sequence) and isinstance(index, int) and index < len(owner.items):
        items = list(owner.items)
        items[index] = value
        owner.state["items"] = tuple(items)
