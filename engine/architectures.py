"""Published architectures without weights: where they are and how large.

``engine/architectures/NAME/`` holds what a pipeline's folder holds without weights and
vocabularies, and ``parameters.json`` with the parameters of each network, which
``python -m engine.architectures`` writes. The numbers are those of the published configs of the
models that ``conf/model/NAME.yaml`` names.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING

from engine import catalogue
from engine.errors import UsageError

if TYPE_CHECKING:
    from engine.schema import ModelConfig

FOLDER = Path(__file__).with_suffix("")
CPU_LIMIT = 1_500_000_000
"""Most parameters that a CPU gets: an image of a larger model takes it the better part of an
hour."""
BYTES = {"float32": 4, "float16": 2, "bfloat16": 2}
ARMS = 2
"""Programs that are in memory at once: the baseline and the candidate."""


def names() -> list[str]:
    """The architectures of whole pipelines."""
    return sorted(path.parent.name for path in FOLDER.glob("*/model_index.json"))


def folder(model: ModelConfig) -> Path:
    """The architecture of a model: under its own name, or that of a model with the same id.

    Raises UsageError that names those there are.
    """
    alike = [n for n in names() if n in catalogue.names() and catalogue.entry(n)["id"] == model.id]
    for name in (model.name, *alike):
        if (FOLDER / name / "model_index.json").is_file():
            return FOLDER / name
    raise UsageError(
        f"the architecture of model={model.name} is not stored, so model.weights=random cannot "
        f"build it (stored: {', '.join(names())}); type model.weights=hub or a path"
    )


def controlnet(model: ModelConfig) -> Path:
    """The architecture of a model's ControlNet."""
    found = FOLDER / model.name / "controlnet"
    if not (found / "config.json").is_file():
        raise UsageError(
            f"the architecture of the ControlNet of model={model.name} is not stored; type "
            "model.weights=hub or a path"
        )
    return found


def parameters(model: ModelConfig) -> dict[str, int]:
    """Parameters of each network of a model."""
    found: dict[str, int] = json.loads((folder(model) / "parameters.json").read_text("utf-8"))
    if model.task == "control":
        found |= json.loads((controlnet(model).parent / "parameters.json").read_text("utf-8"))
    return found


def require_room(model: ModelConfig, device: str, free_gib: float) -> None:
    """Refuse what would not fit into ``free_gib`` of memory or would take a CPU hours."""
    count = sum(parameters(model).values())
    words = f"model={model.name} model.weights=random has {count / 1e9:.1f} billion parameters"
    mini = f"type model.weights=mini for its miniature {model.mini}"
    remedy = mini if model.mini else "type model=sd15"
    if device == "cpu" and count > CPU_LIMIT:
        raise UsageError(
            f"{words}, and a CPU gets at most {CPU_LIMIT / 1e9:g} billion; use a machine with a "
            f"GPU, or {remedy}"
        )
    each = BYTES["float32" if device == "cpu" else model.dtype]
    needed = ARMS * count * each / 2**30
    if needed > free_gib:
        raise UsageError(
            f"{words}, which take {needed:.0f} GiB for the baseline and a candidate, and "
            f"{free_gib:.0f} GiB are free; use a larger machine, or {remedy}"
        )


def counted(folder: Path) -> dict[str, int]:
    """Parameters of each network of an architecture, built without memory for them."""
    import torch

    from engine.worker import randomised

    index = folder / "model_index.json"
    parts = json.loads(index.read_text("utf-8")) if index.exists() else {}
    found = {}
    for path in sorted(folder.glob("*/config.json")):
        library, kind = parts.get(path.parent.name, ("diffusers", "ControlNetModel"))
        with torch.device("meta"):
            network = randomised.skeleton(path.parent, library, kind)
        found[path.parent.name] = randomised.parameters(network)
    return found


def main() -> None:
    """Write ``parameters.json`` of every architecture."""
    for folder in sorted(path for path in FOLDER.iterdir() if path.is_dir()):
        counts = counted(folder)
        (folder / "parameters.json").write_text(json.dumps(counts, indent=1) + "\n", "utf-8")
        print(folder.name, ", ".join(f"{part} {count:,}" for part, count in counts.items()))


if __name__ == "__main__":
    main()
