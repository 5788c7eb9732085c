"""The 31 baselines of L4 and L5: programs as published that are to become faster.

A baseline is a model at a size with its own schedule. Fifteen keep their number of steps, so that
speed must come from elsewhere; in the other sixteen steps and sampler are free, and the baseline
takes the model's published number. Sizes are the published ones and simple shares of them, so that
a miniature can draw at the same share of its own size.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache

from engine import catalogue


@dataclass(frozen=True)
class Baseline:
    """``model`` is a name of ``conf/model``; sizes are pixels; ``keep`` is the number of steps that
    must stay, None where steps and sampler are free."""

    pipeline: str
    model: str
    height: int
    width: int
    keep: int | None = None

    @property
    def id(self) -> str:
        size = f"{self.height}" if self.height == self.width else f"{self.height}x{self.width}"
        return f"{self.model}-{size}" + (f"-keep{self.keep}" if self.keep else "")

    @property
    def steps(self) -> int:
        """Denoising steps of the baseline's own program."""
        return self.keep or int(catalogue.entry(self.model)["steps"])


_ROWS: dict[str, tuple[tuple[str, int, int, int | None], ...]] = {
    "SD1.5": (
        ("sd15", 512, 512, None),
        ("sd15", 384, 384, None),
        ("sd15", 768, 768, None),
        ("sd15-img2img", 512, 512, None),
        ("sd15", 512, 512, 50),
        ("sd15", 512, 512, 30),
        ("sd15", 512, 512, 25),
        ("sd15", 512, 512, 20),
        ("sd15-img2img", 512, 512, 40),
    ),
    "SD2.1": (
        ("sd21", 768, 768, None),
        ("sd21", 576, 576, None),
        ("sd21", 768, 576, None),
        ("sd21-img2img", 768, 768, None),
        ("sd21", 768, 768, 50),
        ("sd21", 768, 768, 30),
        ("sd21", 768, 768, 20),
        ("sd21-img2img", 768, 768, 40),
    ),
    "SDXL": (
        ("sdxl", 1024, 1024, None),
        ("sdxl", 768, 768, None),
        ("sdxl", 1024, 768, None),
        ("sdxl-img2img", 1024, 1024, None),
        ("sdxl", 1024, 1024, 50),
        ("sdxl", 1024, 1024, 30),
        ("sdxl", 1024, 1024, 25),
        ("sdxl-img2img", 1024, 1024, 50),
    ),
    "PixArt-alpha": (("pixart-alpha", 1024, 1024, None), ("pixart-alpha", 1024, 1024, 20)),
    "PixArt-Sigma": (("pixart-sigma", 1024, 1024, None), ("pixart-sigma", 1024, 1024, 25)),
    "ControlNet": (("sd15-controlnet", 512, 512, None),),
    "DiT": (("dit", 256, 256, None),),
}


@cache
def baselines() -> tuple[Baseline, ...]:
    """All of them, pipeline by pipeline."""
    return tuple(
        Baseline(pipeline, model, height, width, keep)
        for pipeline, rows in _ROWS.items()
        for model, height, width, keep in rows
    )


def of(pipeline: str, index: int) -> Baseline:
    """The baseline at a place among those of its pipeline."""
    return [one for one in baselines() if one.pipeline == pipeline][index]


def named(name: str) -> Baseline:
    """The baseline of an id; KeyError for any other."""
    return {one.id: one for one in baselines()}[name]


def overrides(one: Baseline, weights: str) -> list[str]:
    """Hydra's overrides that make this baseline the one that speed and loss are measured against.

    ``weights`` is as ``model.weights``.
    """
    found = [f"model={one.model}", f"model.weights={weights}", "baseline=plain"]
    found += [f"model.steps={one.steps}", f"goal.keep_steps={str(one.keep is not None).lower()}"]
    return found + sizes(one.model, one.height, one.width, weights)


def half_precision(weights: str, device: str) -> bool:
    """Whether a study for a task may compute in 16 bits.

    Programs for miniatures without a GPU are scored in float32 whatever they say
    (:func:`engine.worker.foreign.whole`); a study must not promise a speed that they cannot show,
    as it would on a CPU that is fast in bfloat16.
    """
    return weights != "mini" or device != "cpu"


def sizes(model: str, height: int | None, width: int | None, weights: str) -> list[str]:
    """Hydra's overrides for the pixels that a request names, where they are not the published ones.

    A miniature draws at the same share of its own size, rounded as ``engine.worker.foreign`` rounds
    what a program says: 384 of 512 pixels are 48 of 64.
    """
    entry = catalogue.entry(model)
    found = []
    for side, wanted in (("height", height), ("width", width)):
        published = int(entry[side])
        if wanted in (None, published):
            continue
        pixels = int(wanted or published)
        if weights == "mini":
            share = int(catalogue.entry(entry["mini"])[side]) / published
            pixels = max(16, round(pixels * share / 16) * 16)
        found.append(f"model.{side}={pixels}")
    return found
