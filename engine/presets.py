"""Presets: settings that someone published, for a family of models and kinds of hardware.

A preset is a file ``conf/preset/NAME.yaml``. ``family`` says for which families of models it is,
or ``models`` for which single ones; ``hw`` for which devices; ``technique`` is the genome; the
comments at its head say what it does and where it comes from.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from engine import catalogue
from engine.config import CONF
from engine.errors import UsageError
from engine.genome import canonical, context_fields
from engine.results import Genome
from engine.strategy import nearest

if TYPE_CHECKING:
    from engine.schema import ModelConfig

FAMILIES = {
    "StableDiffusionXL": "sdxl",
    "StableDiffusion3": "sd3",
    "StableDiffusion": "sd",
    "PixArt": "pixart",
    "DiT": "dit",
    "Flux": "flux",
}
"""How the names of a family's pipeline classes begin; the longer beginning comes first."""
DEVICES = ("cpu", "cuda")
KEYS = ("family", "models", "hw", "technique")
ALL = "presets"
"""What stands in ``search.start`` for every preset of the model's family and this hardware."""


@dataclass(frozen=True)
class Preset:
    """One preset; of ``families`` and ``models`` exactly one is empty."""

    name: str
    families: tuple[str, ...]
    models: tuple[str, ...]
    hw: tuple[str, ...]
    technique: Genome
    notes: tuple[str, ...]
    """Its comments: the command, what it does, its source."""

    def fits(self, model: ModelConfig, device: str) -> bool:
        """Whether it is meant for that model on that device. A miniature and a fine-tune are of
        the family of their pipeline class."""
        meant = model.name in self.models or family(model.pipeline) in self.families
        return meant and device in self.hw


def family(pipeline: str | None) -> str | None:
    """The family of a pipeline class; None for a class of no known one."""
    for beginning, name in FAMILIES.items():
        if pipeline is not None and pipeline.startswith(beginning):
            return name
    return None


def names() -> list[str]:
    """The names of all presets, in order."""
    return sorted(path.stem for path in (CONF / "preset").glob("*.yaml"))


def load(name: str) -> Preset:
    """The preset of that name; raises UsageError in one line for what is wrong with its file."""
    path = CONF / "preset" / f"{name}.yaml"
    data = mapping(path, f"preset {name}")
    for key in data:
        if key not in KEYS:
            raise UsageError(f"preset {name} has no key {key!r}{nearest(str(key), KEYS)}")
    if ("family" in data) == ("models" in data):
        raise UsageError(f"preset {name} must have either family or models, as in family: [sd]")
    found = {
        key: _listed(name, key, data, known)
        for key, known in {
            "family": sorted(set(FAMILIES.values())),
            "models": catalogue.names(),
            "hw": DEVICES,
        }.items()
        if key in data or key == "hw"
    }
    notes = path.read_text(encoding="utf-8").splitlines()
    return Preset(
        name,
        found.get("family", ()),
        found.get("models", ()),
        found["hw"],
        technique(data, path, f"preset {name}"),
        tuple(one.lstrip("# ") for one in notes if one.startswith("#")),
    )


def fitting(model: ModelConfig, device: str) -> tuple[list[Preset], dict[str, str]]:
    """The presets that are meant for a model on a device, and beside them, with the reason, those
    that do nothing for it."""
    chosen: list[Preset] = []
    useless: dict[str, str] = {}
    dtype = "float32" if device == "cpu" else model.dtype
    for preset in map(load, names()):
        if not preset.fits(model, device):
            continue
        decided = context_fields(preset.technique)
        if int(decided.get("steps", 0)) > model.steps:
            useless[preset.name] = f"it takes {decided['steps']} steps, the model {model.steps}"
        elif decided.get("dtype") == dtype:
            useless[preset.name] = f"the model runs in {dtype} already"
        else:
            chosen.append(preset)
    return chosen, useless


def _listed(name: str, key: str, data: Mapping[str, Any], known: Sequence[str]) -> tuple[str, ...]:
    """The names under a key, each of them known."""
    value = data.get(key)
    if not isinstance(value, list) or not value:
        raise UsageError(f"preset {name}: {key} is {value!r}; write a list, as in [{known[0]}]")
    for one in value:
        if one not in known:
            raise UsageError(f"preset {name}: {key} has {one!r}{nearest(str(one), known)}")
    return tuple(value)


def mapping(path: Path, what: str) -> Mapping[str, Any]:
    """The keys of a YAML file; raises UsageError that begins with ``what``."""
    import yaml

    try:
        data = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        reason = str(error).partition("\n")[0]
        raise UsageError(f"{what} cannot be read: {reason}") from None
    if not isinstance(data, Mapping):
        raise UsageError(f"{what}: {path} has no technique: {{NAME: {{GENE: VALUE}}}}")
    return data


def technique(data: Mapping[str, Any], path: Path, what: str) -> Genome:
    """The checked genome of a recipe or preset that was read from ``path``."""
    if not isinstance(data.get("technique"), Mapping):
        raise UsageError(f"{what}: {path} has no technique: {{NAME: {{GENE: VALUE}}}}")
    for name, genes in data["technique"].items():
        if genes is not None and not isinstance(genes, Mapping):
            raise UsageError(f"{what}: technique {name} is {genes!r}; write {{GENE: VALUE}}")
    try:
        return canonical({str(n): dict(genes or {}) for n, genes in data["technique"].items()})
    except UsageError as error:
        raise UsageError(f"{what}: {error}") from None
