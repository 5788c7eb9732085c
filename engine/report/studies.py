"""Finding studies on disk by folder or by name, and reading what a comparison needs of them."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from engine.errors import UsageError
from engine.report import plots, text
from engine.report.material import Material, Point, read_study, recommended
from engine.strategy import nearest

SWEEPS = Path("outputs/sweeps")


def find(name: str, sweeps: Path = SWEEPS) -> Path:
    """The folder of a study that is given as a folder or as a name under ``sweeps``.

    Raises UsageError with the nearest names.
    """
    for folder in (Path(name), sweeps / name):
        if (folder / "study.json").is_file():
            return folder
    known = sorted(p.parent.name for p in sweeps.glob("*/study.json"))
    if not known:
        raise UsageError(
            f"there is no study {name!r}, and none in {sweeps}; give a study's folder, or the "
            "folder of all studies with --sweeps"
        )
    raise UsageError(f"there is no study {name!r}{nearest(name, known)}")


@dataclass(frozen=True)
class Study:
    """A study in a comparison; ``reasons`` say why its figures do not compare with the first's."""

    label: str
    material: Material
    reasons: tuple[str, ...] = ()

    @property
    def comparable(self) -> bool:
        return not self.reasons

    @property
    def points(self) -> tuple[Point, ...]:
        return self.material.points

    @property
    def best(self) -> Point | None:
        return recommended(self.material.points)

    @property
    def searcher(self) -> str:
        """The searcher with its seed, from the study's resolved configuration."""
        search = _search(self.material.study)
        if not search:
            return text.NONE
        return f"{search.get('name', text.NONE)}, seed {search.get('seed', text.NONE)}"

    @property
    def gain(self) -> float | None:
        """Mean gain over the allowed losses of the front's points (``plots.gain``)."""
        found = [(p.speedup, p.loss) for p in self.points if p.speedup and p.loss is not None]
        if not found:
            return None
        return plots.gain(found, plots.counted(self.material.goal))


def _search(study: Mapping[str, Any]) -> Mapping[str, Any]:
    import yaml

    try:
        config = yaml.safe_load(study.get("config") or "")
    except yaml.YAMLError:
        return {}
    found = config.get("search") if isinstance(config, Mapping) else None
    return found if isinstance(found, Mapping) else {}


def read_all(names: Sequence[str], sweeps: Path = SWEEPS) -> tuple[Study, ...]:
    """The studies in the order given; each is judged against the first.

    Raises UsageError for fewer than two, for one given twice and for one that cannot be read.
    """
    folders = [find(name, sweeps) for name in names]
    if len(folders) < 2:
        raise UsageError("compare needs two studies or more: python -m engine.report compare A B")
    seen: dict[Path, str] = {}
    for name, folder in zip(names, folders, strict=True):
        if folder.resolve() in seen:
            raise UsageError(f"study {name!r} is given twice; name each study once")
        seen[folder.resolve()] = name
    materials = [read_study(folder) for folder in folders]
    labels = _labels(materials)
    first = materials[0].study
    return tuple(
        Study(label, material, tuple(differences(first, material.study)))
        for label, material in zip(labels, materials, strict=True)
    )


def _labels(materials: Sequence[Material]) -> list[str]:
    """Names of the studies; of equal ones the folder above distinguishes them."""
    names = [str(m.study.get("study") or m.folder.name) for m in materials]
    paths = [m.folder.resolve() for m in materials]
    return [
        name if names.count(name) == 1 else "/".join(path.parts[-2:])
        for name, path in zip(names, paths, strict=True)
    ]


def differences(first: Mapping[str, Any], other: Mapping[str, Any]) -> list[str]:
    """Why figures of one study do not compare with another's, in words; empty if they do.

    Model, machine (with the libraries that decide speed), baseline, data, workload, objective and
    the meaning of a loss must be the same; the search and the limits of the goal may differ.
    """
    found = []
    for what, read in _ASPECTS.items():
        ours, theirs = read(first), read(other)
        if ours != theirs:
            keys = [k for k in ours | theirs if ours.get(k) != theirs.get(k)]
            words = "; ".join(
                f"{key} {_short(theirs.get(key))} instead of {_short(ours.get(key))}"
                for key in keys
            )
            found.append(f"other {what}: {words}")
    return found


def _short(item: object) -> str:
    words = text.value(item)
    return words if len(words) <= 60 else words[:59] + "\u2026"


def _part(name: str, *keys: str) -> Callable[[Mapping[str, Any]], dict[str, Any]]:
    def read(study: Mapping[str, Any]) -> dict[str, Any]:
        node: Mapping[str, Any] = study.get(name) or {}
        return {key: node.get(key) for key in keys if node.get(key) is not None}

    return read


def _machine(study: Mapping[str, Any]) -> dict[str, Any]:
    machine = study.get("machine") or {}
    versions = machine.get("versions") or {}
    found = _part("machine", "processor", "cores", "threads", "device_name")(study)
    return found | {name: versions[name] for name in ("torch", "diffusers") if name in versions}


def _baseline(study: Mapping[str, Any]) -> dict[str, Any]:
    baseline = study.get("baseline") or {}
    genome = baseline.get("genome")
    words = {"techniques": text.describe(genome)} if genome is not None else {}
    return {"name": baseline.get("label") or baseline.get("name")} | words


def _data(study: Mapping[str, Any]) -> dict[str, Any]:
    """Held-out prompts count, since the front is measured on them."""
    data = study.get("data")
    if not data:
        return {"prompts": "the model's own"}
    held_out = [str(prompt) for prompt in data.get("acceptance") or ()]
    digest = hashlib.sha256("\n".join(held_out).encode()).hexdigest()[:8]
    return {"prompts": f"{len(held_out)} held out, digest {digest}"}


def _workload(study: Mapping[str, Any]) -> dict[str, Any]:
    workload = study.get("workload")
    if not workload:
        return {"shapes": "single"}
    found = [
        f"{shape.get('width')} x {shape.get('height')} batch {shape.get('batch', 1)} "
        f"weight {shape.get('weight', 1):g}"
        for shape in workload.get("shapes") or ()
    ]
    return {"shapes": ", ".join(found)}


def _objective(study: Mapping[str, Any]) -> dict[str, Any]:
    goal = study.get("goal") or {}
    loss = "fidelity" if text.same_image(goal) else "score"
    return {"speed-up from": study.get("objective", "time"), "loss of": loss}


_ASPECTS = {
    "model": _part(
        "model", "name", "id", "revision", "weights", "height", "width", "guidance_scale", "prompts"
    ),
    "machine": _machine,
    "baseline": _baseline,
    "data": _data,
    "workload": _workload,
    "objective": _objective,
}
