"""Genome and model to the text of a standalone program.

The strategies' functions are copied from their files as they stand, with the helpers and imports
that they use, every copied name prefixed with the strategy's. What the worker measures is this
text and nothing else.
"""

from __future__ import annotations

import ast
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from functools import cache
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import TYPE_CHECKING, Any

from engine import __version__
from engine.calibration import keywords
from engine.errors import TrialError
from engine.genome import canonical, context_fields
from engine.lora import Lora
from engine.requests import Shape
from engine.results import Genome
from engine.strategy import FUNCTIONS, PLACED, Strategy, Value, find

if TYPE_CHECKING:
    from jinja2 import Template

TEMPLATE = Path(__file__).with_name("program.jinja")
LIBRARIES = ("torch", "diffusers", "transformers", "accelerate", "safetensors")
"""Libraries of every program; a strategy adds its own through ``needs.libraries``."""
LORA_LIBRARY = "peft"
"""What diffusers loads a LoRA with."""
CALLS: dict[str, dict[str, Value]] = {
    # The default of the class, written out.
    "StableDiffusionImg2ImgPipeline": {"strength": 0.8},
    "StableDiffusionXLImg2ImgPipeline": {"strength": 0.3},
    # Cleaning needs two more libraries and is left out in silence where they are missing, so
    # that one prompt would mean two things.
    "PixArtAlphaPipeline": {"clean_caption": False},
    "PixArtSigmaPipeline": {"clean_caption": False},
}
"""Keywords of the pipeline's call, by pipeline, that must not be left to its defaults."""
SMALL: dict[str, dict[str, Value]] = {
    # Binning knows the published sizes only.
    "PixArtAlphaPipeline": {"use_resolution_binning": False, "max_sequence_length": 16},
    "PixArtSigmaPipeline": {"use_resolution_binning": False, "max_sequence_length": 16},
    # Their T5 is padded to the limit, and no caption of a scene is longer.
    "StableDiffusion3Pipeline": {"max_sequence_length": 16},
    "FluxPipeline": {"max_sequence_length": 16},
}
"""The same, for miniatures alone; they know 16 tokens, as ``networks.TOKENS`` says."""
WANTED = {"image": "the picture to start from", "control": "the control image, such as edges"}
"""What ``image`` is, by task."""


@dataclass(frozen=True)
class Subject:
    """What a program runs: the model's published defaults and where it will run."""

    name: str
    id: str
    revision: str | None
    pipeline: str
    denoiser: str
    steps: int
    guidance_scale: float
    height: int
    width: int
    miniature: bool
    device: str
    dtype: str = "float32"
    config: str | None = None
    """Hub id or folder with the configs of ``id`` where that is a single-file checkpoint."""
    task: str = "text"
    """What an image is made from: text, class, image or control, as ``model.task``."""
    controlnet: str | None = None
    """Hub id or folder of the ControlNet; None where the pipeline's own folder holds it."""
    controlnet_revision: str | None = None
    loras: tuple[Lora, ...] = ()
    call: Mapping[str, Value] = field(default_factory=dict)
    """Further keywords of the pipeline's call; they win over the tables of this module."""
    batch: int = 1
    shapes: tuple[Shape, ...] = ()
    """The workload; empty means single images of the model's size."""


def context(subject: Subject, genome: Genome) -> dict[str, Value]:
    """The fields of ``CTX``: the subject's, overlaid by the genes that decide one."""
    fields: dict[str, Value] = {
        "steps": subject.steps,
        "guidance_scale": subject.guidance_scale,
        "height": subject.height,
        "width": subject.width,
        "batch": subject.batch,
        "device": subject.device,
        "dtype": subject.dtype,
    }
    if subject.task == "image":
        # Of the steps only this share runs, at the end of the schedule.
        fields["strength"] = call_keywords(subject)["strength"]
    return fields | context_fields(genome)


def call_keywords(subject: Subject) -> dict[str, Value]:
    """Keywords of the pipeline's call besides steps, guidance and size."""
    small = SMALL.get(subject.pipeline, {}) if subject.miniature else {}
    strength: dict[str, Value] = {"strength": 0.8} if subject.task == "image" else {}
    return strength | CALLS.get(subject.pipeline, {}) | small | dict(subject.call)


def usage(subject: Subject) -> str:
    """Arguments of a program's command line that say what to draw."""
    if subject.task == "class":
        return '--class "..."'
    return '--prompt "..."' + (" --image input.png" if subject.task in WANTED else "")


def generate(
    subject: Subject,
    genome: Mapping[str, Mapping[str, object]],
    title: str,
    measured: Mapping[str, Any] | None = None,
) -> str:
    """The program's text; raises TrialError at stage "generate" when a file cannot be copied.

    ``title`` says in words what the program runs; it opens the docstring. ``measured`` is what
    techniques that must be calibrated have measured of the model.
    """
    checked = canonical(genome)
    used = [(find(name), genes) for name, genes in checked.items()]
    parts = [_part(s, keywords(s, genes, measured or {})) for s, genes in used]
    imports = sorted({line for part in parts for line in part.imports})
    settings = call_keywords(subject)
    settings.pop("strength", None)
    text = _template().render(
        version=__version__,
        title=title,
        subject=subject,
        context=context(subject, checked),
        settings=settings,
        usage=usage(subject),
        wanted=WANTED.get(subject.task),
        published="with its LoRAs" if subject.loras else "as published",
        shapes=tuple(
            (s.height, s.width, s.batch)
            for s in subject.shapes or (Shape(subject.height, subject.width, subject.batch),)
        ),
        versions=_versions(checked, subject),
        imports=[line for line in imports if line not in _TEMPLATE_IMPORTS],
        parts=parts,
        calls=any("call" in part.functions for part in parts),
    )
    try:
        compile(text, "accelerated.py", "exec")
    except SyntaxError as error:
        raise TrialError("generate", f"the program does not compile: {error}") from error
    return text


@cache
def _template() -> Template:
    """Compiled once: that takes longer than all else in a program's making."""
    from jinja2 import Environment, FileSystemLoader, StrictUndefined

    environment = Environment(
        loader=FileSystemLoader(TEMPLATE.parent),
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    environment.filters["literal"] = repr
    return environment.get_template(TEMPLATE.name)


_TEMPLATE_IMPORTS = (
    "import threading",
    "from typing import Any",
    "from types import SimpleNamespace",
    "from __future__ import annotations",
)


@dataclass(frozen=True)
class _Part:
    """One strategy's share of a program."""

    name: str
    sources: tuple[str, ...]
    imports: tuple[str, ...]
    functions: frozenset[str]
    genes: str
    """The genes as keyword arguments in Python."""
    after_move: bool
    """Whether ``apply`` runs after the pipeline was moved to its device."""


def _versions(genome: Genome, subject: Subject) -> dict[str, str]:
    names = [*LIBRARIES, *([LORA_LIBRARY] if subject.loras else [])]
    for name in genome:
        names += [spec.partition("=")[0].rstrip("><~!") for spec in find(name).needs.libraries]
    try:
        return {name: version(name).partition("+")[0] for name in dict.fromkeys(names)}
    except PackageNotFoundError as error:
        missing = str(error.name)
        raise TrialError(
            "generate", f"{missing} is not installed: pip install '{missing}'"
        ) from error


def _part(strategy: Strategy, genes: Mapping[str, object]) -> _Part:
    path = strategy.module.__file__
    if path is None:
        raise TrialError("generate", f"technique {strategy.name} has no source file")
    source = Path(path).read_text(encoding="utf-8")
    module = ast.parse(source)
    defined = dict(_definitions(module))
    roots = [name for name in FUNCTIONS if name in defined]
    kept = _closure(roots, defined)
    imported = dict(_imports(module))
    used = {n.id for name in kept for n in ast.walk(defined[name]) if isinstance(n, ast.Name)}
    lines = source.encode().splitlines(keepends=True)
    renames = {name: f"{strategy.name}_{name.lstrip('_')}" for name in kept}
    return _Part(
        name=strategy.name,
        sources=tuple(_copied(lines, defined[n], renames) for n in defined if n in kept),
        imports=tuple(dict.fromkeys(imported[name] for name in sorted(used & set(imported)))),
        functions=frozenset(roots),
        genes=", ".join(f"{name}={value!r}" for name, value in genes.items()),
        after_move=strategy.order >= PLACED,
    )


_Definition = ast.FunctionDef | ast.ClassDef | ast.Assign | ast.AnnAssign


def _definitions(module: ast.Module) -> Iterator[tuple[str, _Definition]]:
    for node in module.body:
        if isinstance(node, ast.FunctionDef | ast.ClassDef):
            yield node.name, node
        elif isinstance(node, ast.Assign) and isinstance(node.targets[0], ast.Name):
            yield node.targets[0].id, node
        elif isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name):
            yield node.target.id, node


def _imports(module: ast.Module) -> Iterator[tuple[str, str]]:
    for node in module.body:
        if isinstance(node, ast.Import):
            for alias in node.names:
                bound = alias.asname or alias.name.partition(".")[0]
                yield bound, f"import {ast.unparse(alias)}"
        elif isinstance(node, ast.ImportFrom) and node.module and not _ours(node.module):
            for alias in node.names:
                yield alias.asname or alias.name, f"from {node.module} import {ast.unparse(alias)}"


def _ours(module: str) -> bool:
    return module.partition(".")[0] in ("engine", "strategies", "__future__")


def _closure(roots: list[str], defined: Mapping[str, _Definition]) -> set[str]:
    """The names that the roots reach inside their own module."""
    kept: set[str] = set()
    queue = list(roots)
    while queue:
        name = queue.pop()
        if name in kept:
            continue
        kept.add(name)
        for node in ast.walk(defined[name]):
            if isinstance(node, ast.Name) and node.id in defined:
                queue.append(node.id)
            if isinstance(node, ast.arg) and node.arg in defined:
                raise TrialError(
                    "generate",
                    f"{name}() has a parameter {node.arg!r} that is also a name of its module; "
                    "rename one, the copied program could not tell them apart",
                )
    return kept


def _copied(lines: list[bytes], node: _Definition, renames: Mapping[str, str]) -> str:
    """The node's source as it stands, comments included, with the names prefixed."""
    first = min([node.lineno, *(d.lineno for d in getattr(node, "decorator_list", []))])
    edits: list[tuple[int, int, str]] = [
        (n.lineno, n.col_offset, n.id)
        for n in ast.walk(node)
        if isinstance(n, ast.Name) and n.id in renames
    ]
    if isinstance(node, ast.FunctionDef | ast.ClassDef):
        keyword = b"def " if isinstance(node, ast.FunctionDef) else b"class "
        column = lines[node.lineno - 1].index(keyword) + len(keyword)
        edits.append((node.lineno, column, node.name))
    text = {number: lines[number - 1] for number in range(first, (node.end_lineno or first) + 1)}
    for number, column, name in sorted(edits, reverse=True):
        line = text[number]
        end = column + len(name.encode())
        text[number] = line[:column] + renames[name].encode() + line[end:]
    return b"".join(text.values()).decode().rstrip() + "\n"
