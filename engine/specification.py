"""What a request asks for, as data: the specification, and where a program departs from it."""

from __future__ import annotations

import dataclasses
import math
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from engine import catalogue
from engine.errors import UsageError
from engine.reading import GIVEN, Method, Reading, Value, facts
from engine.reading.effective import filled, gate_share, gate_step, unread
from engine.reading.mirrors import canonical_id

TARGETS = ("speedup", "seconds", "memory_gib")
"""Kinds of a target: at least so many times faster, at most so many seconds an image, at most so
much memory in GiB."""


@dataclass(frozen=True)
class Target:
    """What a request wants to be reached; ``kind`` is one of :data:`TARGETS`.

    ``seconds_base`` is what an image takes without acceleration, where a request for a time states
    it. The time is then meant as a share of that one: a machine is not equally fast every day.
    Raises UsageError for a time that is longer than it, or none.
    """

    kind: str
    value: float
    seconds_base: float | None = None

    def __post_init__(self) -> None:
        if self.seconds_base is not None and not 0 < self.value <= self.seconds_base:
            raise UsageError(
                f"{self.value:g} s an image is no target where it takes {self.seconds_base:g} s "
                f"today: name more than 0 and at most {self.seconds_base:g} s"
            )

    @property
    def speedup(self) -> float | None:
        """The speed-up that is asked for; None where the request names another amount."""
        if self.kind == "speedup":
            return self.value
        return None if self.seconds_base is None else self.seconds_base / self.value


@dataclass(frozen=True)
class Mismatch:
    """A field of a specification that a program does not keep, in words: what was asked, what
    the program says."""

    field: str
    asked: str
    found: str

    def __str__(self) -> str:
        return f"{self.field}: asked {self.asked}, found {self.found}"


@dataclass(frozen=True)
class Specification:
    """A request read; None (or False, or no entry) leaves the program free.

    ``model`` is a name of ``conf/model``; ``pipeline`` and ``scheduler`` are class names of
    diffusers. ``methods`` are the named techniques with the settings that the request states, under
    the names of their genes (``tgate`` also ``gate_step``, a number of steps). ``height`` and
    ``width`` are pixels. ``keep_steps`` holds the number of steps: ``steps``, or the model's
    published number. ``max_loss`` is a share (0.05 is 5 %). ``notes`` say what was ambiguous and
    which default was taken.
    """

    request: str
    model: str
    pipeline: str
    model_id: str
    controlnet: str | None = None
    scheduler: str | None = None
    steps: int | None = None
    keep_steps: bool = False
    methods: Mapping[str, Mapping[str, Value]] = field(default_factory=dict)
    height: int | None = None
    width: int | None = None
    dtype: str | None = None
    guidance_scale: float | None = None
    preprocessor: str | None = None
    hw: str | None = None
    target: Target | None = None
    max_loss: float | None = None
    notes: tuple[str, ...] = ()

    def to_json(self) -> dict[str, Any]:
        """Plain data that ``json`` takes."""
        return dataclasses.asdict(self)

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> Specification:
        """The reverse of :meth:`to_json`."""
        target = data.get("target")
        return cls(
            **{
                **data,
                "target": None if target is None else Target(**target),
                "notes": tuple(data.get("notes", ())),
            }
        )


def to_json(specification: Specification) -> dict[str, Any]:
    """As :meth:`Specification.to_json`."""
    return specification.to_json()


def from_json(data: Mapping[str, Any]) -> Specification:
    """As :meth:`Specification.from_json`."""
    return Specification.from_json(data)


PLAIN = r"plain|published|original|stock|vanilla|unmodified"
"""Words of a request against what a speed-up counts: the model as it is published."""
SOLVERS: dict[str, tuple[str, str]] = {
    "DDIMScheduler": ("sampler", "ddim"),
    "DPMSolverMultistepScheduler": ("sampler", "dpmpp_2m"),
    "UniPCMultistepScheduler": ("sampler", "unipc"),
    "EulerDiscreteScheduler": ("sampler", "euler"),
    "PNDMScheduler": ("sampler", "pndm"),
    "FlowMatchEulerDiscreteScheduler": ("flow_sampler", "euler"),
    "FlowMatchHeunDiscreteScheduler": ("flow_sampler", "heun"),
}
"""A scheduler's class to the technique and the solver that compose it."""


def mismatches(spec: Specification, reading: Reading) -> tuple[Mismatch, ...]:
    """Where a program departs from what was asked; empty if every stated field is kept.

    A field that the program leaves to its pipeline counts as the pipeline's own value. Further
    methods and settings are no departure.
    """
    found = filled(reading)
    asked: dict[str, Any] = {
        "pipeline": spec.pipeline,
        "model_id": spec.model_id,
        "controlnet": spec.controlnet,
        "scheduler": spec.scheduler,
        "steps": steps_of(spec) if spec.keep_steps else spec.steps,
        "guidance_scale": spec.guidance_scale,
        "height": spec.height,
        "width": spec.width,
        "dtype": spec.dtype,
        "preprocessor": spec.preprocessor,
    }
    wrong = [
        Mismatch(name, str(value), _found(reading, name, getattr(found, name)))
        for name, value in asked.items()
        if value is not None and not _same(name, value, getattr(found, name))
    ]
    for name, settings in spec.methods.items():
        wrong += _method(name, settings, found)
    return tuple(wrong)


def steps_of(spec: Specification) -> int:
    """The number of steps that is asked for, else the published one of the model."""
    return int(spec.steps or catalogue.entry(spec.model)["steps"])


def _same(name: str, asked: Any, found: Any) -> bool:
    if found is None:
        return False
    if name in ("model_id", "controlnet"):
        return canonical_id(asked) == canonical_id(found)
    if name == "preprocessor" and found == GIVEN:
        # Whoever calls such a program hands in the control image that was asked for.
        return True
    if isinstance(asked, float) or isinstance(found, float):
        return isinstance(found, int | float) and math.isclose(asked, found, abs_tol=1e-6)
    return bool(asked == found)


def _found(reading: Reading, name: str, value: object) -> str:
    why = unread(reading, name)
    if why is not None:
        return "what cannot be read (" + why.partition(": ")[2] + ")"
    if value is None:
        return "none"
    return f"{value}" if getattr(reading, name) is not None else f"{value} (not stated)"


def _method(name: str, asked: Mapping[str, Value], found: Reading) -> Iterator[Mismatch]:
    method = found.method(name)
    if name == "precision" and method is None and "dtype" in asked:
        # Loading the weights so is the usual way to say it.
        method = Method(name, {"dtype": found.dtype or "", "vae": asked.get("vae", "")})
    if method is None:
        dead = next((m for m in found.dead if m.name == name), None)
        where = f"in code without effect only (line {dead.line})" if dead else "none"
        yield Mismatch(f"methods.{name}", "this method", where)
        return
    for setting, value in asked.items():
        own = _setting(method, setting, found.steps)
        same = _same(setting, value, own)
        if not same and name == "tgate" and setting == "gate" and found.steps:
            # Two fractions that open the gate at the same step are the same.
            step = _setting(method, "gate_step", found.steps)
            same = gate_step(float(value), found.steps) == step
        if not same:
            said = "none" if own is None else str(own)
            yield Mismatch(f"methods.{name}.{setting}", str(value), said)


def _setting(method: Method, name: str, steps: int | None) -> Value | None:
    """A setting as stated, or worked out from the other way to say it."""
    if name in method.settings or method.name != "tgate" or not steps:
        return method.settings.get(name)
    if name == "gate_step" and "gate" in method.settings:
        return gate_step(float(method.settings["gate"]), steps)
    if name == "gate" and "gate_step" in method.settings:
        return gate_share(int(method.settings["gate_step"]), steps)
    return None


def overrides(spec: Specification) -> list[str]:
    """Hydra's overrides for what was asked: a single run of the named techniques, or a study where
    there is a target, in which named techniques are the ones that are searched, or where nothing
    but a bound on loss is named.

    Raises UsageError for a scheduler that no technique offers.
    """
    entry = catalogue.entry(spec.model)
    found = [f"model={spec.model}"]
    found += [f"hw={spec.hw}"] if spec.hw else []
    for name in ("height", "width", "guidance_scale"):
        value = getattr(spec, name)
        if value is not None and value != entry[name]:
            found.append(f"model.{name}={value}")
    if spec.max_loss is not None:
        found.append(f"goal.max_loss={spec.max_loss:g}")
    searched = spec.target is not None or (spec.max_loss is not None and not spec.methods)
    return found + (_study(spec) if searched else _single(spec))


def _single(spec: Specification) -> list[str]:
    """The named techniques, composed, against the same pipeline without them."""
    genes = _sampling(spec) | {name: techniques(spec, name) for name in spec.methods}
    if spec.dtype in ("float16", "bfloat16"):
        genes["precision"] = {"dtype": str(spec.dtype), **genes.get("precision", {})}
    found = [f"technique=[{','.join(genes)}]"]
    found += [f"technique.{n}.{g}={v}" for n, values in genes.items() for g, v in values.items()]
    return found + _baseline(spec)


def _study(spec: Specification) -> list[str]:
    """A search for the target, or without one for what the bound on loss allows."""
    target = spec.target
    found = ["+sweep=ga"]
    if target is not None:
        factor = target.speedup
        named = f"{target.kind}={target.value:g}" if factor is None else f"speedup={factor:.5g}"
        found.append(f"goal.{named}")
    found += ["goal.keep_steps=true"] if spec.keep_steps else []
    if spec.methods:
        found.append(f"search.only={{{', '.join(_only(spec))}}}")
    sampled = spec.scheduler is not None or spec.steps is not None or spec.keep_steps
    plain = re.search(rf"\b(?:{PLAIN})\b", spec.request.lower())
    timed = target is not None and target.seconds_base is not None
    return found + (_baseline(spec) if sampled or plain or timed else [])


def _baseline(spec: Specification) -> list[str]:
    """The pipeline of the request without its techniques: what speed and loss count against."""
    own = facts.published_scheduler(spec.model_id)
    sampling = _sampling(spec).get("sampler")
    if sampling is None or spec.scheduler == own:
        return ["baseline=plain", *([f"model.steps={spec.steps}"] if spec.steps else [])]
    found = [f"baseline.technique.sampler.{gene}={value}" for gene, value in sampling.items()]
    label = f"baseline.label='{sampling['steps']} {sampling['name']} steps'"
    return ["baseline=strong", "baseline.fitted=false", label, *found]


def _only(spec: Specification) -> Iterator[str]:
    """The part of the space that named techniques leave: they, and the sampler's steps."""
    for name in spec.methods:
        stated = techniques(spec, name)
        yield f"{name}: {{{', '.join(f'{gene}: [{value}]' for gene, value in stated.items())}}}"
    flow = catalogue.entry(spec.model)["prediction"] == "flow"
    sampler = "flow_sampler" if flow else "sampler"
    if sampler not in spec.methods:
        yield f"{sampler}: {{}}"
    if spec.dtype in ("float16", "bfloat16") and "precision" not in spec.methods:
        yield f"precision: {{dtype: [{spec.dtype}]}}"


def techniques(spec: Specification, name: str) -> dict[str, Value]:
    """The genes of a named technique, as far as the request states them."""
    genes = dict(spec.methods[name])
    step = genes.pop("gate_step", None)
    if name == "tgate" and step is not None:
        genes["gate"] = gate_share(int(step), steps_of(spec))
    return genes


def _sampling(spec: Specification) -> dict[str, dict[str, Value]]:
    """The technique that sets the scheduler which was asked for, with its number of steps."""
    if spec.scheduler is None:
        return {}
    if spec.scheduler not in SOLVERS:
        raise UsageError(
            f"no technique composes {spec.scheduler}; allowed: {', '.join(sorted(SOLVERS))}; "
            "leave the scheduler out of the request, or name one of these"
        )
    technique, solver = SOLVERS[spec.scheduler]
    return {technique: {"name": solver, "steps": steps_of(spec)}}
