"""Which strategy suits which pipeline, recorded so that ``+list=matrix`` needs no torch.

``python -m engine.capabilities`` builds every miniature pipeline in memory, asks the probes of the
worker and writes ``engine/capabilities.json``; with ``--check`` it only says what is stale and
exits with 1. Of each pipeline class the file has for every strategy null, where it suits;
``{"needs": WHY}``, where a declared need is not met; ``{"unfit": WHY}``, where the strategy itself
refuses the miniature; ``{"weights": ID}``, where it suits if that repository is in the hub's cache.
Under the names of published models, whose architectures are stored (``engine.architectures``), it
has what they answer otherwise than the miniature of their class. What depends on the machine or on
a model's settings is not in it (``engine.needs``).
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator, Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Any

from engine import catalogue
from engine.config import CONF
from engine.needs import unmet_by_machine
from engine.strategy import Needs, Strategy, registry

FILE = Path(__file__).with_suffix(".json")
COMMAND = "python -m engine.capabilities"

Answer = Mapping[str, str] | None
Record = Mapping[str, Mapping[str, Answer]]
"""Pipeline class or published model to strategy to what the probes answered."""


@cache
def recorded() -> Record:
    """The record as it lies beside this file; empty where it was never written."""
    if not FILE.exists():
        return {}
    found: Record = json.loads(FILE.read_text(encoding="utf-8"))
    return found


def classes() -> dict[str, str]:
    """Every pipeline class that a model of ``conf/model`` or a miniature has, and the miniature
    whose networks stand for it."""
    from engine.minis.pipelines import FAMILIES, NAMES

    found = {FAMILIES[name].pipeline: name for name in NAMES}
    for name in catalogue.names():
        entry = catalogue.entry(name)
        if entry["pipeline"] is not None and entry["mini"] in NAMES:
            found.setdefault(entry["pipeline"], entry["mini"])
    return dict(sorted(found.items()))


def pipelines() -> Iterator[tuple[str, Any]]:
    """Each of ``classes`` with a pipeline of that class, of random weights; one after the other."""
    import diffusers

    from engine.minis.pipelines import build_pipeline

    built: dict[str, Any] = {}
    for kind, mini in classes().items():
        if mini not in built:
            built[mini] = build_pipeline(mini)
        same = type(built[mini]).__name__ == kind
        yield kind, built[mini] if same else getattr(diffusers, kind).from_pipe(built[mini])


def published() -> dict[str, Path]:
    """The published models whose architecture is stored, and its folder: their own or that of a
    model with the same id."""
    from engine import architectures

    stored = architectures.names()
    found = {}
    for name in catalogue.names():
        entry = catalogue.entry(name)
        alike = [n for n in stored if n == name or catalogue.entry(n)["id"] == entry["id"]]
        if entry["pipeline"] is not None and alike:
            found[name] = architectures.FOLDER / alike[0]
    return found


def shell(name: str, folder: Path) -> Any:
    """The pipeline of a published model around its networks without memory for their weights, and
    without text encoders."""
    import diffusers
    import torch

    from engine import architectures
    from engine.worker import randomised

    cls = getattr(diffusers, catalogue.entry(name)["pipeline"])
    index = json.loads((folder / "model_index.json").read_text(encoding="utf-8"))
    expected, optional = cls._get_signature_keys(cls)
    parts: dict[str, Any] = dict.fromkeys(expected)
    parts |= {key: index[key] for key in optional if key in index} | {"add_watermarker": False}
    with torch.device("meta"):
        for part in {"unet", "transformer", "vae"} & set(expected):
            parts[part] = randomised.skeleton(folder / part, *index[part])
        if "controlnet" in expected:
            own = architectures.FOLDER / name / "controlnet"
            parts["controlnet"] = randomised.skeleton(own, "diffusers", "ControlNetModel")
    scheduler = getattr(diffusers, index["scheduler"][1])
    parts["scheduler"] = scheduler.from_pretrained(folder / "scheduler")
    taken = {*expected, *optional}
    return cls(**{key: value for key, value in parts.items() if key in taken})


def probed(known: Mapping[str, Strategy] | None = None) -> Record:
    """What the probes say today of those strategies, by default all that can be asked here."""
    known = known if known is not None else _complete()
    found: dict[str, dict[str, Answer]] = {
        kind: {name: answer(strategy, pipe) for name, strategy in sorted(known.items())}
        for kind, pipe in pipelines()
    }
    for model, folder in published().items():
        usual, pipe = found[catalogue.entry(model)["pipeline"]], shell(model, folder)
        own = {name: answer(strategy, pipe) for name, strategy in sorted(known.items())}
        # Which need is unmet is told in other words of another network.
        found[model] = {
            name: said
            for name, said in own.items()
            if said != usual[name]
            and not ("needs" in (said or {}) and "needs" in (usual[name] or {}))
        }
    return found


def answer(strategy: Strategy, pipe: Any) -> Answer:
    """What the record says of a strategy and a pipeline."""
    from engine.worker import probe

    denoiser = "unet" if getattr(pipe, "unet", None) is not None else "transformer"
    reason = probe.unmet_by_pipeline(strategy.needs, pipe, denoiser)
    if reason is not None:
        return {"needs": reason}
    for key, function in {"unfit": "unfit", "weights": "further_weights"}.items():
        said = probe.asked(function, strategy, pipe)
        if said is not None:
            return {key: said}
    return None


def _complete() -> dict[str, Strategy]:
    """The project's own strategies that can be asked here. Those of other packages are not the
    record's business."""
    own = {n: s for n, s in registry().items() if s.module.__name__.startswith("strategies.")}
    return {n: s for n, s in own.items() if not mute(s)}


def mute(strategy: Strategy) -> bool:
    """Whether a strategy has a word of its own on a pipeline and lacks the libraries to say it."""
    needs = Needs(libraries=strategy.needs.libraries)
    speaks = strategy.function("unfit") or strategy.function("further_weights")
    return bool(speaks) and unmet_by_machine(needs, "cpu", "float32") is not None


def merged(found: Record, before: Record) -> Record:
    """What was found, and what the record said before of strategies that could not be asked."""
    asked = {name for answers in found.values() for name in answers}
    kept = set(registry()) - asked
    return {
        kind: dict(
            sorted(
                {
                    **{n: a for n, a in before.get(kind, {}).items() if n in kept},
                    **answers,
                }.items()
            )
        )
        for kind, answers in found.items()
    }


def text(record: Record) -> str:
    """The record as it is stored."""
    return json.dumps(record, indent=1, sort_keys=True, ensure_ascii=False) + "\n"


def differences(now: Record, before: Record) -> list[str]:
    """What is not as it was, a line each."""
    lines = []
    for kind in sorted({*now, *before}):
        new, old = now.get(kind, {}), before.get(kind, {})
        lines += [
            f"{kind}, {name}: {_words(new, name)} (recorded: {_words(old, name)})"
            for name in sorted({*new, *old})
            if (name in new, new.get(name)) != (name in old, old.get(name))
        ]
    return lines


def _words(answers: Mapping[str, Answer], name: str) -> str:
    if name not in answers:
        return "nothing"
    said = answers[name]
    return "suits" if said is None else "; ".join(f"{key}: {why}" for key, why in said.items())


def main(arguments: Sequence[str]) -> int:
    """Write the record, or with ``--check`` only say what is stale."""
    if set(arguments) - {"--check"}:
        print(f"error: {COMMAND} takes --check or nothing", file=sys.stderr)
        return 2
    from engine.cli import quiet_libraries

    quiet_libraries()
    now = merged(probed(), recorded())
    stale = differences(now, recorded())
    for one in stale:
        print("stale:" if "--check" in arguments else "changed:", one)
    if "--check" not in arguments:
        FILE.write_text(text(now), encoding="utf-8")
        print("written:", FILE.relative_to(CONF.parent))
    for name in sorted(n for n, s in registry().items() if mute(s)):
        print(f"not asked: {name}, its libraries are not installed here")
    return int(bool(stale) and "--check" in arguments)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
