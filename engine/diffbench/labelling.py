"""The command of the labeller: which baselines, in which set, with which settings.

A set is written after each baseline; the same command goes on with those that have no label yet.
"""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from engine import console, results
from engine.config import CONF
from engine.diffbench import baselines, captions, labels
from engine.diffbench.details import VERSION
from engine.diffbench.labeller import SPACE, Asked, Settings, label_of
from engine.diffbench.labels import Label, Labels
from engine.errors import UsageError, line
from engine.strategy import nearest

if TYPE_CHECKING:
    from engine.hardware import Machine

KEYS = (
    "name",
    "baselines",
    "objective",
    "weights",
    "evaluations",
    "samples",
    "outputs",
    "captions",
)


def command(given: Mapping[str, str]) -> int:
    """Label what is asked for; see :mod:`engine.diffbench.labels`. 1 if some baseline has none."""
    from engine import hardware

    asked = _asked(given)
    machine = hardware.inspect()
    found = _opened(asked, machine)
    for number, one in enumerate(asked.baselines, 1):
        if one.id in found.labels:
            continue
        console.say(f"baseline {number} of {len(asked.baselines)}: {one.id}")
        started = time.monotonic()
        try:
            label = label_of(one, asked, machine)
        except UsageError as error:
            label = line(error)
        found = _with(found, one.id, label)
        labels.save(found)
        console.say(f"  {_shown(label)} ({(time.monotonic() - started) / 60:.1f} min)")
    console.say(f"labels: {labels.path(asked.name)}")
    return int(any(one.id not in found.labels for one in asked.baselines))


def _shown(label: Label | str) -> str:
    if isinstance(label, str):
        return f"no label: {label}"
    return (
        f"medium {label.speedup_for('medium'):.2f}x, confirmed {label.speedup:.2f}x "
        f"({label.speedup_low:.2f} to {label.speedup_high:.2f}), loss {100 * label.loss:.1f} %"
    )


def _asked(given: Mapping[str, str]) -> Asked:
    for key in given:
        if key not in KEYS:
            raise UsageError(f"there is no key {key!r}{nearest(key, KEYS)}")
    if not given.get("name", "").replace("-", "").replace("_", "").replace(".", "").isalnum():
        raise UsageError("name=NAME is needed, of letters, digits, '.', '_' and '-'")
    objective = given.get("objective", "time")
    if objective not in ("time", "flops"):
        raise UsageError(f"objective={objective} is not allowed; type objective=time or flops")
    settings = Settings()
    if "evaluations" in given:
        number = _count("evaluations", given["evaluations"])
        settings = dataclasses.replace(settings, evaluations=number)
    if "samples" in given:
        number = _count("samples", given["samples"])
        settings = dataclasses.replace(
            settings, samples=number, confirmed=number, timed=min(settings.timed, number)
        )
    folder = Path(given.get("outputs", "outputs")).resolve() / "labels" / given["name"]
    return Asked(
        name=given["name"],
        baselines=tuple(labels.chosen(given.get("baselines"))),
        objective=objective,
        weights=given.get("weights", "mini"),
        settings=settings,
        folder=folder,
        captions=captions.as_data(Path(given["captions"]), folder) if "captions" in given else None,
    )


def _count(key: str, text: str) -> int:
    if not text.isdecimal() or int(text) < 2:
        raise UsageError(f"{key}={text} is not allowed; it takes a whole number of 2 or more")
    return int(text)


def _opened(asked: Asked, machine: Machine) -> Labels:
    """The set so far; raises UsageError where it was made with other settings or elsewhere."""
    new = Labels(
        name=asked.name,
        version=VERSION,
        objective=asked.objective,
        weights=asked.weights,
        hw=_profile_name(machine),
        machine={
            "profile": machine.profile(),
            "device": machine.device_name,
            "cores": machine.cores,
            "versions": dict(machine.versions),
        },
        settings=dataclasses.asdict(asked.settings)
        | {"space": SPACE, "captions": asked.captions.name if asked.captions else None},
        marks=asked.settings.marks(asked.objective),
    )
    # A set is written when its first baseline is done; its studies begin before that.
    begun = asked.folder / "set.json"
    for file in (labels.path(asked.name), begun):
        if file.exists():
            _require_same(new, labels.read(file))
    results.write_json(begun, new.to_json())
    return labels.load(asked.name) if labels.path(asked.name).exists() else new


def _require_same(new: Labels, held: Labels) -> None:
    """Refuse to mix labels of different settings, versions or machines."""
    fields = ["version", "objective", "weights", "settings"]
    differing = [field for field in fields if getattr(new, field) != getattr(held, field)]
    # Counted operations are the same everywhere.
    timed = new.objective == "time"
    if timed and new.machine["profile"] != held.machine["profile"]:
        differing.append("machine")
    if differing:
        was = "; ".join(f"{field} was {getattr(held, field)}" for field in differing)
        raise UsageError(
            f"labels {new.name} were made otherwise ({was}); type the same again, or another "
            "name=NAME"
        )


def _profile_name(machine: Machine) -> str:
    """The name of ``conf/hw`` for this machine, the one for a single kind of device if there is
    one."""
    import yaml

    if machine.device == "cpu":
        return "cpu"
    for file in sorted((CONF / "hw").glob("*.yaml")):
        match = yaml.safe_load(file.read_text(encoding="utf-8"))["match"]
        if match and match.lower() in machine.device_name.lower():
            return file.stem
    return "cuda"


def _with(found: Labels, name: str, label: Label | str) -> Labels:
    held = {key: value for key, value in found.labels.items() if key != name}
    failed = {key: value for key, value in found.failed.items() if key != name}
    if isinstance(label, str):
        failed[name] = label
    else:
        held[name] = label
    order = [one.id for one in baselines.baselines()]
    return dataclasses.replace(
        found,
        labels={key: held[key] for key in order if key in held},
        failed={key: failed[key] for key in order if key in failed},
    )
