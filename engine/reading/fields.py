"""The fields of a reading, taken from values; what cannot be read is named."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from engine.reading import GIVEN, Value, pipelines
from engine.reading.run import Shot
from engine.reading.values import Made, Model, Ref, Scheduler, Sequence, Unknown, tags_of

USUAL: dict[str, tuple[Value | None, ...]] = {
    "algorithm_type": ("dpmsolver++",), "solver_order": (2,), "solver_type": ("midpoint", "bh2"),
    "final_sigmas_type": ("zero",), "interpolation_type": ("linear",), "skip_prk_steps": (True,),
    "num_train_timesteps": (1000,), "prediction_type": ("epsilon",),
}  # fmt: skip
"""Settings of schedulers at which the library leaves them; false and None are usual for all."""
CONTROLLED = ("ControlNet", "Adapter")
"""Words in the names of pipelines whose images are control images."""
IMAGES = ("image", "control_image", "conditioning_image", "control_images")


@dataclass
class Taker:
    """Takes values into fields and notes what it cannot take."""

    notes: list[str]

    def _known(self, name: str, value: Any) -> Any:
        if isinstance(value, Unknown) and not value.given:
            self.notes.append(f"{name}: {value.why}")
        return None if isinstance(value, Unknown) else value

    def refuse(self, name: str, what: str) -> None:
        self.notes.append(f"{name}: {what}")

    def whole(self, name: str, value: Any) -> int | None:
        value = self._known(name, value)
        if isinstance(value, float) and value == int(value):
            value = int(value)
        if value is None or (isinstance(value, int) and not isinstance(value, bool)):
            return value
        self.refuse(name, f"{shown(value)} is no whole number")
        return None

    def number(self, name: str, value: Any) -> float | None:
        value = self._known(name, value)
        if value is None:
            return None
        if isinstance(value, int | float) and not isinstance(value, bool):
            return float(value)
        self.refuse(name, f"{shown(value)} is no number")
        return None

    def text(self, name: str, value: Any) -> str | None:
        value = self._known(name, value)
        if value is None or isinstance(value, str):
            return value
        self.refuse(name, f"{shown(value)} is no name")
        return None


def shown(value: Any) -> str:
    """A value in words for a person."""
    if isinstance(value, Ref):
        return value.path
    if isinstance(value, Made):
        return f"what {value.ref.path} gives"
    if isinstance(value, bool | int | float | str | tuple):
        return repr(value)[:60]
    return "a value of the program"


def steps(items: Mapping[str, Any], taker: Taker) -> int | None:
    """The number of steps; where noise levels or timesteps are listed, how many they are."""
    for name in ("timesteps", "sigmas"):
        listed = items.get(name)
        if isinstance(listed, Sequence) and not listed.state["open"]:
            return len(listed.items)
        if listed is not None:
            taker.refuse("steps", f"{name} are given, and how many is not known")
            return None
    return taker.whole("steps", items.get("num_inference_steps"))


def scheduler(value: Any, taker: Taker) -> tuple[str | None, dict[str, Value]]:
    """The class and the settings that are not the library's own."""
    if not isinstance(value, Scheduler):
        if isinstance(value, Unknown):
            taker.text("scheduler", value)
        elif value is not None:
            taker.refuse("scheduler", f"{shown(value)} is none that is known")
        return None, {}
    stated = {
        name: one
        for name, one in value.state["settings"].items()
        if isinstance(one, Value) and one is not False and one not in USUAL.get(name, ())
    }
    return value.state["class"], dict(sorted(stated.items()))


def dtype(shot: Shot, taker: Taker) -> str | None:
    """The number format in which the denoiser computes."""
    value = shot.state["dtype"]
    for name in ("unet", "transformer"):
        part = shot.state["parts"].get(name)
        if isinstance(part, Model) and part.state["dtype"] is not None:
            value = part.state["dtype"]
    value = pipelines.number_format(value)
    cast = autocast(shot)
    if cast is not None and value in (None, "float32"):
        return cast
    if value is not None and not isinstance(value, Unknown) and not pipelines.is_format(value):
        taker.refuse("dtype", f"{shown(value)} is no number format that is known")
        return None
    return taker.text("dtype", value)


def autocast(shot: Shot) -> str | None:
    """The number format of torch.autocast around the call."""
    made = shot.autocast
    if not isinstance(made, Made) or made.keywords.items.get("enabled") is False:
        return None
    stated = made.keywords.items.get("dtype")
    values = [pipelines.number_format(value) for value in (*made.args, stated)]
    found = next((value for value in values if pipelines.is_format(value)), None)
    if found is not None:
        return str(found)
    on_cpu = "cpu" in (*made.args, made.keywords.items.get("device_type"))
    return "bfloat16" if on_cpu else "float16"


def preprocessor(cls: Any, items: Mapping[str, Any]) -> str | None:
    """What the control image of the call was made with, such as an edge detector; given where it
    is what the caller of the program hands in."""
    if not isinstance(cls, str) or not any(word in cls for word in CONTROLLED):
        return None
    images = [items.get(name) for name in IMAGES]
    made = min((tag for tag in tags_of(*images) if not tag.startswith("call:")), default=None)
    return GIVEN if made is None and any(map(_handed, images)) else made


def _handed(value: Any) -> bool:
    """Whether a value is the caller's, or a list of what is."""
    if isinstance(value, Sequence | tuple):
        return any(map(_handed, value.items if isinstance(value, Sequence) else value))
    return isinstance(value, Unknown) and value.given


def negative_prompt(items: Mapping[str, Any], taker: Taker) -> str | None:
    value = items.get("negative_prompt")
    if isinstance(value, Sequence) and value.items:
        value = value.items[0]
    return taker.text("negative_prompt", value) if isinstance(value, str | Unknown) else None
