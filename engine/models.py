"""Where a model's weights are, and the prompts that belong to it.

Only safetensors are read, and code that comes with a model is never run.
"""

from __future__ import annotations

import dataclasses
import json
import re
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from engine import architectures, catalogue, hub, weights
from engine.errors import UsageError
from engine.schema import ModelConfig
from engine.worker.preamble import RANDOM

if TYPE_CHECKING:
    import numpy as np

ROOT = Path(__file__).resolve().parent
CHECKPOINTS = ROOT / "minis" / "checkpoints"
GENERAL = ROOT.parent / "prompts" / "sets" / "general.txt"
SEARCH_CAPTIONS = 24
"""Captions of the general set that a search may see; the rest is kept for acceptance."""


@dataclass(frozen=True)
class Location:
    """A folder that ``from_pretrained`` opens, or a file that ``from_single_file`` does, and the
    revision that it holds (a commit for a model from the hub)."""

    path_or_id: str
    revision: str | None
    is_mini: bool
    is_random: bool = False
    """Whether the folder has configs only, over which a worker makes random numbers."""
    config: str | None = None
    """Of a file: hub id or folder with its configs and vocabularies."""
    configs: dict[str, str] = field(default_factory=dict)
    """The folder of ``config``, by its name."""

    @property
    def for_worker(self) -> str:
        """What a worker loads in place of the model's id."""
        return f"{RANDOM}{self.path_or_id}" if self.is_random else self.path_or_id


def as_run(model: ModelConfig) -> ModelConfig:
    """The model with what its weights decide.

    A miniature that stands for a published model brings its own size, prompts, scorer and
    prediction, where nothing else was asked for; steps and guidance stay those of the published
    model, as a program for it states them.
    Weights of random numbers have no scorer.
    """
    if model.weights == "mini" and model.mini in catalogue.names():
        own = catalogue.entry(model.mini)
        published = catalogue.entry(model.name) if model.name in catalogue.names() else own
        taken = {k: own[k] for k in _MINI if getattr(model, k) == published[k]}
        model = dataclasses.replace(model, **taken)
    return dataclasses.replace(model, scorer=None) if unmeasured(model) else model


_MINI = ("height", "width", "prompts", "scorer", "prediction")


def unmeasured(model: ModelConfig) -> str | None:
    """Why the quality of its images cannot be measured whatever the scorer, or None."""
    if model.weights == "random":
        return "model.weights=random are random numbers"
    if model.weights == "mini" and untrained(CHECKPOINTS / (model.mini or "")):
        return f"the miniature {model.mini} is not trained yet, its weights are random numbers"
    return None


def untrained(folder: Path) -> bool:
    """Whether a miniature's folder says that its weights are random numbers."""
    try:
        return bool(json.loads((folder / "training.json").read_text(encoding="utf-8"))["random"])
    except (OSError, KeyError, ValueError):
        return False


def locate(model: ModelConfig, cache: str | None = None) -> Location:
    """Where the weights are, downloaded first if need be; raises UsageError in one line.

    ``cache`` is ``paths.models``: the only place where models from the hub are looked for and
    kept; None takes the hub library's own.
    """
    cache = _folder(cache)
    if model.weights == "mini":
        return _mini(model)
    if model.weights == "random":
        folder = architectures.folder(model)
        return Location(str(folder), model.revision, is_mini=False, is_random=True)
    if model.weights == "hub":
        folder = hub.pipeline(model, cache)
        weights.require_whole(folder, model.id)
        return Location(str(folder), folder.name, is_mini=False)
    given = Path(model.weights).expanduser()
    if given.is_file():
        return _file(model, given.resolve(), cache)
    folder = weights.snapshot(given)
    require_pipeline(folder, f"model.weights={model.weights}")
    weights.require_whole(folder, f"model.weights={model.weights}")
    return Location(str(folder.resolve()), None, is_mini=False)


def _mini(model: ModelConfig) -> Location:
    folder = CHECKPOINTS / (model.mini or "")
    if model.mini is None or not (folder / "model_index.json").is_file():
        from engine.minis.pipelines import NAMES

        # A miniature's own model is on no hub and has no other architecture.
        ways = [] if model.name == model.mini else ["type model.weights=hub, random or a path"]
        if model.mini in NAMES:
            ways.append(
                f"make one: python -m engine.minis.train {model.mini} preset=cpu, or "
                "preset=random (at once; quality is then not measured)"
            )
        raise UsageError(
            f"no miniature weights for model={model.name}{_minis()}; {', or '.join(ways)}"
        )
    return Location(str(folder), None, is_mini=True)


def _file(model: ModelConfig, file: Path, cache: str | None) -> Location:
    """A single-file checkpoint: its configs and vocabularies come from ``model.id``."""
    from engine import adopt

    if file.suffix != ".safetensors":
        raise UsageError(
            f"model.weights={model.weights} is no safetensors file; only those are read"
        )
    kind = catalogue.entry(adopt.kind(file))
    # Pipelines that start from an image or a control image run the same checkpoints.
    if kind["pipeline"] != re.sub("Img2Img|ControlNet", "", model.pipeline):
        raise UsageError(
            f"{file} is a checkpoint of {kind['name']}, which {model.pipeline} does not run; type "
            f"model={kind['name']} or model=auto"
        )
    own = Path(model.id).expanduser()
    try:
        folder = own if own.is_dir() else hub.configs(model.id, model.revision, cache)
    except UsageError as error:
        raise UsageError(
            f"{file.name} needs the configs and the vocabulary of {model.id}, which no single file "
            f"holds; type model.id=FOLDER with a diffusers folder of the same kind ({error})"
        ) from error
    require_pipeline(folder, f"model.id={model.id}")
    place = str(folder)
    return Location(str(file), None, is_mini=False, config=model.id, configs={model.id: place})


def require_pipeline(folder: Path, asked: str) -> None:
    """Refuse what is no pipeline's folder; ``asked`` is what was typed."""
    if not (folder / "model_index.json").is_file():
        raise UsageError(
            f"{asked} is no folder with a model_index.json; type mini, hub, random, the folder of "
            "a diffusers pipeline or a single-file checkpoint"
        )


def configs(name: str, revision: str | None, cache: str | None) -> Path:
    """The folder of a model from the hub with at least its configs."""
    return hub.configs(name, revision, _folder(cache))


def locate_scorer(model: ModelConfig, cache: str | None = None) -> Path:
    """The folder of the CLIP model that scores this model's images; downloaded if need be, to
    ``cache`` as in :func:`locate`."""
    if model.scorer is None:
        raise ValueError(f"model {model.name} names no scorer")
    if model.scorer == "mini":
        return CHECKPOINTS / "clip"
    if Path(model.scorer).expanduser().is_dir():
        return Path(model.scorer).expanduser()
    return hub.scorer(model.scorer, _folder(cache))


def _folder(cache: str | None) -> str | None:
    return None if cache is None else str(Path(cache).expanduser().resolve())


def _minis() -> str:
    names = sorted(path.parent.name for path in CHECKPOINTS.glob("*/model_index.json"))
    return f" (there are: {', '.join(names)})" if names else " in this checkout"


def prompts(model: ModelConfig, count: int, seed: int, part: str) -> list[str]:
    """``count`` prompts for a ``part``: search or acceptance, which share none.

    Equal seeds give equal prompts, and a longer list begins with the shorter one. A list longer
    than the set repeats it.
    """
    import numpy as np

    if part not in ("search", "acceptance"):
        raise ValueError(f"part is {part!r}; allowed: search, acceptance")
    rng = np.random.default_rng(seed)
    if model.prompts == "scenes":
        return _scenes(count, rng, part)
    lines = [text.strip() for text in GENERAL.read_text(encoding="utf-8").splitlines()]
    captions = [text for text in lines if text]
    pool = captions[:SEARCH_CAPTIONS] if part == "search" else captions[SEARCH_CAPTIONS:]
    return _repeated([pool[i] for i in rng.permutation(len(pool))], count)


def _scenes(count: int, rng: np.random.Generator, part: str) -> list[str]:
    """Two in five captions have one object, as in the evaluation of the miniature, while there
    are any: few one-object captions are held out."""
    from engine.minis import scenes

    pools = []
    for objects in (1, 2):
        pool = [c for c in scenes.captions(objects) if scenes.held_out(c) == (part != "search")]
        pools.append([pool[i] for i in rng.permutation(len(pool))])
    ones, twos = pools
    mixed: list[str] = []
    while len(mixed) < count and (ones or twos):
        wanted = ones if len(mixed) % 5 in (0, 3) else twos
        mixed.append((wanted or ones or twos).pop())
    return _repeated(mixed, count)


def _repeated(pool: list[str], count: int) -> list[str]:
    return [pool[i % len(pool)] for i in range(count)]
