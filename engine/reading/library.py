"""Calls of libraries whose values matter here: settings, devices, edges; the rest is unknown."""

from __future__ import annotations

import ast
import json
import math
import os.path
from collections.abc import Callable
from dataclasses import replace
from typing import Any

from engine.reading import arguments, calls, expressions, methods, pipelines, pure
from engine.reading.run import Run
from engine.reading.statements import Signal
from engine.reading.values import (
    Function,
    Instance,
    Made,
    Mapped,
    Maybe,
    Namespace,
    Pipe,
    Ref,
    Sequence,
    Unknown,
    is_constant,
    tags_of,
)

Arguments = tuple[Any, ...]
EDGES = {
    "cv2.Canny": "canny", "skimage.feature.canny": "canny", "kornia.filters.canny": "canny",
    "cv2.Sobel": "sobel", "cv2.Laplacian": "laplacian", "scipy.ndimage.sobel": "sobel",
    "skimage.filters.sobel": "sobel", "engine.minis.edges.picture": "canny",
    "engine.minis.edges.of": "canny",
}  # fmt: skip
"""Functions that make a control image, and what it is."""
DETECTORS = {
    "CannyDetector": "canny", "HEDdetector": "softedge", "PidiNetDetector": "softedge",
    "MidasDetector": "depth", "ZoeDetector": "depth", "LeresDetector": "depth",
    "OpenposeDetector": "openpose", "DWposeDetector": "openpose", "LineartDetector": "lineart",
    "LineartAnimeDetector": "lineart", "MLSDdetector": "mlsd", "NormalBaeDetector": "normal",
    "SamDetector": "segmentation", "ContentShuffleDetector": "shuffle",
}  # fmt: skip
"""Classes of controlnet_aux."""
FILTERS = {"PIL.ImageFilter.FIND_EDGES": "pil_edges", "PIL.ImageFilter.CONTOUR": "pil_contour"}
ACCELERATORS = ("torch.cuda.is_available", "torch.cuda.is_bf16_supported",
                "torch.accelerator.is_available")  # fmt: skip
OTHERS = ("torch.backends.mps.is_available", "torch.backends.mps.is_built",
          "torch.xpu.is_available")  # fmt: skip
EXITS = ("sys.exit", "os._exit", "builtins.exit", "builtins.quit")
NAMESPACES = ("SimpleNamespace", "Namespace", "EasyDict", "Munch")
SAME = ("torch.device", "asyncio.run", "pathlib.Path", "os.path.expanduser", "os.path.abspath",
        "torch.inference_mode", "torch.no_grad")  # fmt: skip
"""Of these the first argument is the value."""
KEEPERS = ("functools", "inspect", "typing", "dataclasses", "atexit", "signal", "weakref")
"""Modules whose functions do not call the functions that they are handed."""


def call(ref: Ref, args: Arguments, keywords: Mapped, node: ast.AST, run: Run) -> Any:
    """A call of something imported."""
    path = ref.path
    if path in EXITS:
        return Signal("raise")
    if path in FUNCTIONS:
        return FUNCTIONS[path](args, keywords, node, run)
    if path in ACCELERATORS or path in OTHERS:
        return Maybe(path in ACCELERATORS)
    if ref.root == "builtins" and path.count(".") == 1:
        return pure.builtin(ref.leaf, args, keywords, node, run)
    if path in SAME:
        return args[0] if args else Made(ref, args, keywords, getattr(node, "lineno", 0))
    found = pipelines.made(ref, args, keywords, node, run)
    if found is None:
        found = methods.on_call(ref, args, keywords, node, run)
    if found is not None:
        return found
    if ref.leaf in NAMESPACES:
        return _namespace(args, keywords)
    if path.startswith(("absl.flags.DEFINE_", "flags.DEFINE_")) and len(args) > 1:
        run.flags[str(args[0])] = args[1]
        return Unknown("a flag")
    if path.startswith("math.") and all(map(is_constant, args)) and len(args) < 3:
        function = getattr(math, ref.leaf, None)
        if callable(function) and ref.leaf not in ("factorial", "comb", "perm", "pow"):
            return expressions.folded(function, args, node)
    return made(ref, args, keywords, node, run)


def made(ref: Ref, args: Arguments, keywords: Mapped, node: ast.AST, run: Run) -> Any:
    """What an unknown function gives: an object with its name, or where its arguments were made
    from images, something that is made from them too."""
    if ref.root not in KEEPERS:
        calls.passed(ref, args, keywords, node, run)
    values = (*args, *keywords.items.values())
    tags = tags_of(*values)
    if ref.path in EDGES:
        tags |= {EDGES[ref.path]}
    for value in values:
        if isinstance(value, Ref) and value.path in FILTERS:
            tags |= {FILTERS[value.path]}
    if tags:
        return Unknown(f"what {ref.path} gives is not known", tags=tags)
    return Made(ref, args, keywords, getattr(node, "lineno", 0))


def call_made(callee: Made, args: Arguments, keywords: Mapped, node: ast.AST, run: Run) -> Any:
    """A call of an object of a library."""
    path = callee.ref.path
    if path == "functools.partial" and callee.args:
        both = Mapped(callee.keywords.items, callee.keywords.open)
        both.update(keywords)
        return calls.call(callee.args[0], (*callee.args[1:], *args), both, node, run)
    if callee.state.get("commands"):
        return _commands(callee, node, run)
    if path == "collections.namedtuple":
        return _tuple_of(callee, args, keywords)
    if path == "torch.compile" and isinstance(callee.argument(0, "model"), Function):
        return calls.call(callee.argument(0, "model"), args, keywords, node, run)
    if path == "torch.compile" and callee.argument(0, "model") is None and args:
        # @torch.compile(mode=...) or torch.compile(mode=...)(network)
        return methods.on_call(callee.ref, args, callee.keywords, node, run)
    detector = next((DETECTORS[p] for p in path.split(".") if p in DETECTORS), None)
    if path == "transformers.pipeline" and callee.args[:1] == ("depth-estimation",):
        detector = "depth"
    if detector is not None:
        return Unknown("an image", tags=tags_of(*args, *keywords.items.values()) | {detector})
    return calls.passed(Unknown(f"what {path} gives is not known"), args, keywords, node, run)


def _commands(app: Made, node: ast.AST, run: Run) -> Any:
    """Run the functions that were registered with an app, each with its defaults."""
    commands = app.state["commands"]
    app.state["commands"] = ()
    for command in commands:
        calls.call(command, (), Mapped(None, Unknown("a request", given=True)), node, run)
    return None


def method(
    owner: Made, name: str, args: Arguments, keywords: Mapped, node: ast.AST, run: Run
) -> Any:
    """A call of a method of an object of a library."""
    if owner.ref.leaf in ("ArgumentParser", "add_argument_group", "add_mutually_exclusive_group"):
        return arguments.method(owner, name, args, keywords, node, run)
    found = methods.on_object(owner, name, args, keywords, node, run)
    if found is not None:
        return found
    if name in ("to", "eval", "cuda", "cpu", "manual_seed", "half", "requires_grad_"):
        return owner
    if name in ("run", "launch", "serve") and owner.state.get("commands"):
        return _commands(owner, node, run)
    result = made(Ref(f"{owner.ref.path}.{name}"), args, keywords, node, run)
    if isinstance(result, Made):
        result.state["owner"] = owner
    return result


def with_option(function: Function, decorator: Made) -> Function:
    """A function under @click.option: its parameter has that default."""
    flags = [a for a in decorator.args if isinstance(a, str)]
    plain = [flag for flag in flags if not flag.startswith("-")]
    longest = max(flags, key=len, default="")
    name = plain[0] if plain and decorator.ref.leaf == "option" else longest.lstrip("-")
    name = name.partition("/")[0].replace("-", "_")
    why = Unknown(f"depends on {longest}, which has no default, line {decorator.line}", none=True)
    is_flag = decorator.keywords.items.get("is_flag", False)
    default = decorator.keywords.items.get("default", False if is_flag else why)
    return replace(function, defaults={**function.defaults, name: default})


def _namespace(args: Arguments, keywords: Mapped) -> Any:
    made = Namespace()
    for value in args:
        if isinstance(value, Mapped):
            made.state |= value.items
    made.state |= keywords.items
    return made


def _nested(value: Any) -> Any:
    """Dictionaries within dictionaries as namespaces, as OmegaConf has them."""
    if isinstance(value, Mapped):
        return Namespace({str(key): _nested(item) for key, item in value.items.items()})
    return value


def _omegaconf(args: Arguments, keywords: Mapped, node: ast.AST, run: Run) -> Any:
    return _nested(args[0]) if args else Namespace()


def _boxed(value: Any) -> Any:
    if isinstance(value, dict):
        return Mapped({key: _boxed(item) for key, item in value.items()})
    return Sequence(map(_boxed, value)) if isinstance(value, list) else value


def _json(args: Arguments, keywords: Mapped, node: ast.AST, run: Run) -> Any:
    if args and isinstance(args[0], str):
        try:
            return _boxed(json.loads(args[0]))
        except ValueError:
            return Unknown("a text that is no JSON")
    return _file(args, keywords, node, run)


def _yaml(args: Arguments, keywords: Mapped, node: ast.AST, run: Run) -> Any:
    import yaml

    if args and isinstance(args[0], str):
        try:
            return _boxed(yaml.safe_load(args[0]))
        except yaml.YAMLError:
            return Unknown("a text that is no YAML")
    return _file(args, keywords, node, run)


def _file(args: Arguments, keywords: Mapped, node: ast.AST, run: Run) -> Any:
    return Unknown(f"a file decides, line {getattr(node, 'lineno', 0)}")


def _environment(args: Arguments, keywords: Mapped, node: ast.AST, run: Run) -> Any:
    default = args[1] if len(args) > 1 else keywords.items.get("default")
    if default is None:
        name = args[0] if args and isinstance(args[0], str) else "a variable"
        why = f"{name} of the environment decides, line {getattr(node, 'lineno', 0)}"
        return Unknown(why, none=True)
    return default


def _import(args: Arguments, keywords: Mapped, node: ast.AST, run: Run) -> Any:
    return Ref(args[0]) if args and isinstance(args[0], str) else Unknown("a module")


def _fromkeys(args: Arguments, keywords: Mapped, node: ast.AST, run: Run) -> Any:
    return pure.method(Mapped(), "fromkeys", args, keywords, node, run)


def _copy(args: Arguments, keywords: Mapped, node: ast.AST, run: Run) -> Any:
    value = args[0] if args else None
    if isinstance(value, Mapped):
        return Mapped(value.items, value.open)
    if isinstance(value, Pipe):
        copied = Pipe(value.cls, **value.state)
        run.pipes.append(copied)
        return copied
    return value


def _asdict(args: Arguments, keywords: Mapped, node: ast.AST, run: Run) -> Any:
    value = args[0] if args else None
    return Mapped(value.state) if isinstance(value, Instance | Namespace) else Unknown("a dict")


def _replace(args: Arguments, keywords: Mapped, node: ast.AST, run: Run) -> Any:
    if not args or not isinstance(args[0], Instance):
        return Unknown("a changed copy is not known")
    made = Instance(args[0].cls)
    made.state = {**args[0].state, **keywords.items}
    return made


def _path(args: Arguments, keywords: Mapped, node: ast.AST, run: Run) -> Any:
    if all(isinstance(a, str) for a in args):
        return expressions.folded(os.path.join, args, node)
    return Unknown("a path is not known", given=True)


def _tuple_of(kind: Made, args: Arguments, keywords: Mapped) -> Any:
    names = kind.argument(1, "field_names")
    items = (
        expressions.items_of(names)
        if not isinstance(names, str)
        else names.replace(",", " ").split()
    )
    return Namespace(dict(zip(map(str, items or []), args, strict=False)) | keywords.items)


def _typer(args: Arguments, keywords: Mapped, node: ast.AST, run: Run) -> Any:
    """A default in typer's words; an Ellipsis says that there is none."""
    if args and is_constant(args[0]) and args[0] is not ...:
        return args[0]
    why = f"depends on an option without a default, line {getattr(node, 'lineno', 0)}"
    return keywords.items.get("default", Unknown(why))


FUNCTIONS: dict[str, Callable[..., Any]] = {
    "omegaconf.OmegaConf.create": _omegaconf, "omegaconf.DictConfig": _omegaconf,
    "omegaconf.OmegaConf.load": _file, "json.load": _file, "yaml.safe_load": _yaml,
    "yaml.load": _yaml, "json.loads": _json, "tomllib.load": _file, "tomllib.loads": _file,
    "os.environ.get": _environment, "os.getenv": _environment, "importlib.import_module": _import,
    "builtins.__import__": _import, "builtins.dict.fromkeys": _fromkeys, "copy.copy": _copy,
    "copy.deepcopy": _copy, "dataclasses.asdict": _asdict, "dataclasses.replace": _replace,
    "os.path.join": _path, "typer.Option": _typer, "typer.Argument": _typer,
    "collections.OrderedDict": lambda *a: pure.builtin("dict", *a),
    "collections.ChainMap": lambda *a: pure.builtin("dict", *a),
    "types.MappingProxyType": lambda *a: pure.builtin("dict", *a),
}  # fmt: skip
