"""What the agent's tests share: a miniature as prompts see it, without a worker."""

from __future__ import annotations

from collections.abc import Callable

from engine import capabilities
from engine.agent.brief import Brief, brief
from engine.hardware import Machine
from engine.needs import idle
from engine.program import Subject
from engine.results import Genome
from engine.schema import Config, ModelConfig
from engine.search.space import Space, space
from engine.strategy import registry

MINIS = (
    "sd-mini", "sd-mini-controlnet", "sdxl-mini", "sdxl-mini-controlnet", "pixart-mini",
    "dit-mini", "sd3-mini", "flux-mini",
)  # fmt: skip
MACHINE = Machine(
    processor="a processor",
    cores=8,
    memory_gib=64.0,
    device="cuda",
    device_name="an accelerator",
    device_memory_gib=24.0,
    system="Linux",
    python="3.11.4",
    versions={},
    fast_dtypes=("float32", "float16"),
    threads=8,
)
Compose = Callable[..., Config]


def subject(model: ModelConfig) -> Subject:
    """What programs of a miniature run."""
    return Subject(
        name=model.name,
        id=model.name,
        revision=None,
        pipeline=model.pipeline,
        denoiser=model.denoiser,
        steps=model.steps,
        guidance_scale=model.guidance_scale,
        height=model.height,
        width=model.width,
        miniature=True,
        device="cpu",
        task=model.task,
        call=model.call,
    )


def space_of(model: ModelConfig, **options: object) -> Space:
    """The techniques that suit a pipeline class by the record of the probes."""
    known = registry()
    record = capabilities.recorded()[model.pipeline]
    excluded: dict[str, str] = {}
    for name, one in known.items():
        answer = record.get(name, {"needs": "a package that is not installed"})
        why = next(iter(answer.values()), None) if answer else None
        why = why or idle(one, model.steps, model.guidance_scale)
        if one.needs.prediction and model.prediction not in one.needs.prediction:
            why = why or f"it is for models that predict {' or '.join(one.needs.prediction)}"
        if why:
            excluded[name] = why
    return space(known, exclude=excluded, **options)  # type: ignore[arg-type]


def briefed(config: Config, request: str = "") -> Brief:
    return brief(config, subject(config.model), MACHINE, baseline(config), request)


def baseline(config: Config) -> Genome:
    return dict(config.baseline.technique)
