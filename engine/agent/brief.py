"""What every prompt of a study says in common: the model, the machine, the baseline, the goal."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from engine.agent.prompts import one_line
from engine.genome import describe

if TYPE_CHECKING:
    from engine.hardware import Machine
    from engine.program import Subject
    from engine.results import Genome
    from engine.schema import Config, GoalConfig

REQUEST = 2_000
"""Most characters of a person's request that a prompt carries."""
INPUTS = {
    "text": "an image from a prompt",
    "class": "an image from a class name",
    "image": "an image from a prompt and a picture to start from (`image`)",
    "control": "an image from a prompt and a control image (`image`)",
}


@dataclass(frozen=True)
class Brief:
    """Texts; ``machine`` and ``profile`` are empty where costs are counted, so that the same
    search asks the same questions on every machine."""

    request: str
    subject: str
    machine: str
    baseline: str
    goal: str
    profile: str = ""


def brief(
    config: Config, subject: Subject, machine: Machine, baseline: Genome, request: str = ""
) -> Brief:
    """The texts of a configuration on a machine."""
    timed = config.objective == "time"
    return Brief(
        request=one_line(request, REQUEST),
        subject=subject_lines(subject, config.model.prediction),
        machine=machine_line(machine) if timed else "",
        baseline=f"{config.baseline.label} ({describe(baseline)})",
        goal=goal_line(config.goal, timed),
    )


def subject_lines(subject: Subject, prediction: str) -> str:
    """The model as a program names it, and how its authors run it."""
    lines = [
        f"{subject.pipeline}, MODEL_ID {subject.id!r}, REVISION {subject.revision!r}: "
        f"{INPUTS[subject.task]}; predicts {prediction}.",
        f"Published settings: {subject.steps} steps, guidance scale {subject.guidance_scale:g}, "
        f"{subject.height} x {subject.width} pixels, {subject.dtype} on {subject.device}.",
    ]
    if subject.controlnet is not None:
        lines.append(f"ControlNet {subject.controlnet!r}, passed as `controlnet=`.")
    if subject.loras:
        lines.append("LoRAs: " + ", ".join(lora.id for lora in subject.loras) + ".")
    if subject.miniature:
        lines.append("A miniature: a tiny trained model of that class; figures are its own.")
    return "\n".join(lines)


def machine_line(machine: Machine) -> str:
    """The device, its memory and the number formats that are fast on it."""
    memory = machine.device_memory_gib or machine.memory_gib
    return (
        f"Machine: {machine.device_name} ({machine.device}), {memory:g} GiB, {machine.cores} "
        f"cores; fast number formats: {', '.join(machine.fast_dtypes)}."
    )


def goal_line(goal: GoalConfig, timed: bool) -> str:
    """What is to be reached and what it may cost, on one line."""
    wanted = []
    if goal.speedup is not None:
        wanted.append(f"at least {goal.speedup:g} times as fast")
    if goal.seconds is not None:
        wanted.append(f"at most {goal.seconds:g} s an image")
    if goal.memory_gib is not None:
        wanted.append(f"at most {goal.memory_gib:g} GiB of memory")
    what = " and ".join(wanted) or "as fast as possible"
    if goal.quality == "same_image":
        judge = "similarity to the baseline's pictures (SSIM)"
    else:
        judge = "how well the picture shows its prompt (CLIP score)"
    limit = ", with any loss of quality"
    if goal.max_loss is not None:
        limit = f", with at most {100 * goal.max_loss:g} % loss of quality: {judge}"
    steps = " The number of steps is held." if goal.keep_steps else ""
    counted = "" if timed else " Speed is counted in operations, not in seconds."
    return f"{what}{limit}.{steps}{counted}"
