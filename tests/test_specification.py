"""Specifications: where a program departs from one, and which runs it becomes."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from engine.agent.asked import plan_of
from engine.call import Call, parse
from engine.diffbench.tasks import asked_genome
from engine.phrasing import by_rules
from engine.precheck import precheck
from engine.reading import Method, Reading, read
from engine.schema import Config
from engine.specification import Specification, mismatches, overrides, techniques

SD = Specification(
    request="",
    model="sd15",
    pipeline="StableDiffusionPipeline",
    model_id="stable-diffusion-v1-5/stable-diffusion-v1-5",
)
FULL = dataclasses.replace(
    SD,
    scheduler="DDIMScheduler",
    steps=50,
    methods={"deepcache": {"interval": 3}, "tgate": {"gate_step": 20}, "tome": {}},
    height=512,
    width=512,
    dtype="float16",
    guidance_scale=7.5,
)
KEPT = Reading(
    pipeline="StableDiffusionPipeline",
    model_id="runwayml/stable-diffusion-v1-5",
    scheduler="DDIMScheduler",
    steps=50,
    dtype="float16",
    methods=(
        Method("deepcache", {"interval": 3, "branch": 0}),
        Method("tgate", {"gate": 0.4}),
        Method("tome", {"ratio": 0.5}),
        Method("vae", {"slicing": True}),
    ),
)


def test_a_program_that_keeps_everything_has_no_mismatch() -> None:
    assert mismatches(FULL, KEPT) == ()


@pytest.mark.parametrize(
    ("changes", "field", "found"),
    [
        ({"pipeline": "StableDiffusionXLPipeline"}, "pipeline", "StableDiffusionXLPipeline"),
        ({"model_id": "CompVis/ldm-256"}, "model_id", "CompVis/ldm-256"),
        ({"scheduler": None}, "scheduler", "PNDMScheduler (not stated)"),
        ({"steps": 25}, "steps", "25"),
        ({"height": 768}, "height", "768"),
        ({"dtype": None}, "dtype", "float32 (not stated)"),
        ({"guidance_scale": 5.0}, "guidance_scale", "5.0"),
        ({"methods": KEPT.methods[1:]}, "methods.deepcache", "none"),
        ({"methods": KEPT.methods[1:], "dead": (Method("deepcache", {}, 12),)},
         "methods.deepcache", "in code without effect only (line 12)"),
        ({"methods": (Method("deepcache", {"interval": 5}), *KEPT.methods[1:])},
         "methods.deepcache.interval", "5"),
        ({"methods": (KEPT.methods[0], Method("tgate", {"gate": 0.5}), *KEPT.methods[2:])},
         "methods.tgate.gate_step", "25"),
        ({"steps": None, "unread": ("steps: depends on argparse, line 3",)},
         "steps", "what cannot be read (depends on argparse, line 3)"),
    ],
)  # fmt: skip
def test_each_departure_is_named(changes: dict[str, Any], field: str, found: str) -> None:
    wrong = mismatches(FULL, dataclasses.replace(KEPT, **changes))
    by_field = {mismatch.field: mismatch.found for mismatch in wrong}
    assert by_field[field] == found


def test_steps_that_must_stay_are_the_published_ones_unless_named() -> None:
    asked = dataclasses.replace(SD, keep_steps=True)
    assert mismatches(asked, dataclasses.replace(KEPT, steps=None)) == ()
    (wrong,) = mismatches(asked, dataclasses.replace(KEPT, steps=20))
    assert (wrong.field, wrong.asked, wrong.found) == ("steps", "50", "20")


def test_a_gate_by_number_closes_at_that_step_whoever_writes_the_program() -> None:
    """By the rule of the technique, ``int(gate * steps + 1e-6)``; 8 of 15 lies between steps."""
    for steps in range(5, 101):
        for step in range(math.ceil(0.2 * steps), int(0.9 * steps)):
            asked = dataclasses.replace(
                SD, scheduler="DDIMScheduler", steps=steps, methods={"tgate": {"gate_step": step}}
            )
            gates = {
                plan_of(asked).techniques["tgate"]["gate"],
                techniques(asked, "tgate")["gate"],
                asked_genome(asked)["tgate"]["gate"],
            }
            assert len(gates) == 1
            assert int(float(gates.pop()) * steps + 1e-6) == step


def test_a_gate_is_the_same_as_a_share_and_as_a_step() -> None:
    share = dataclasses.replace(SD, steps=30, methods={"tgate": {"gate": 1 / 3}})
    for settings in ({"gate": 0.334}, {"gate_step": 10}, {"gate": 10 / 30}):
        reading = Reading(SD.pipeline, SD.model_id, steps=30, methods=(Method("tgate", settings),))
        assert mismatches(share, reading) == ()
    reading = Reading(SD.pipeline, SD.model_id, steps=30, methods=(Method("tgate", {"gate": 0.3}),))
    assert [wrong.field for wrong in mismatches(share, reading)] == ["methods.tgate.gate"]


def test_control_images_must_be_made_as_asked_or_handed_in() -> None:
    asked = by_rules("SD 1.5 with a Canny ControlNet")
    folder = Path(__file__).parent / "reading" / "programs"
    right = read((folder / "controlnet_canny_cv2.txt").read_text(encoding="utf-8"))
    wrong = read((folder / "controlnet_wrong_edges.txt").read_text(encoding="utf-8"))
    assert mismatches(asked, right) == ()
    assert [(m.field, m.found) for m in mismatches(asked, wrong)] == [("preprocessor", "pil_edges")]
    assert mismatches(asked, dataclasses.replace(right, preprocessor="given")) == ()
    assert mismatches(asked, dataclasses.replace(right, preprocessor=None)) != ()


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("SDXL twice as fast, quality within 5 %",
         ["model=sdxl", "goal.max_loss=0.05", "+sweep=ga", "goal.speedup=2"]),
        ("sd15 2x faster than the published pipeline, keep 50 steps",
         ["model=sd15", "goal.max_loss=0.05", "+sweep=ga", "goal.speedup=2",
          "goal.keep_steps=true", "baseline=plain", "model.steps=50"]),
        ("sd15, 30 DDIM steps, three times as fast on a CPU",
         ["model=sd15", "hw=cpu", "goal.max_loss=0.05", "+sweep=ga", "goal.speedup=3",
          "baseline=strong", "baseline.fitted=false", "baseline.label='30 ddim steps'",
          "baseline.technique.sampler.name=ddim", "baseline.technique.sampler.steps=30"]),
        ("sd15 with DeepCache interval 3 and fp16 at 768x768",
         ["model=sd15", "model.height=768", "model.width=768", "technique=[deepcache,precision]",
          "technique.deepcache.interval=3", "technique.precision.dtype=float16",
          "baseline=plain"]),
        ("flux with first block cache in under 3 s",
         ["model=flux", "goal.max_loss=0.05", "+sweep=ga", "goal.seconds=3",
          "search.only={first_block_cache: {}, flow_sampler: {}}"]),
        ("sdxl takes 2.5 s today, we need 0.75 s",
         ["model=sdxl", "goal.max_loss=0.05", "+sweep=ga", "goal.speedup=3.3333",
          "baseline=plain"]),
        ("sd15 as fast as possible", ["model=sd15", "goal.max_loss=0.05", "+sweep=ga"]),
        ("sd15 in 25 steps with T-GATE gate step 10",
         ["model=sd15", "technique=[tgate]", "technique.tgate.gate=0.4", "baseline=plain",
          "model.steps=25"]),
        ("Just run SDXL", ["model=sdxl", "technique=[]", "baseline=plain"]),
    ],
)  # fmt: skip
def test_a_specification_becomes_overrides(text: str, expected: list[str]) -> None:
    assert overrides(by_rules(text)) == expected


@pytest.mark.parametrize(
    "text",
    [
        "sd15, 30 DDIM steps, three times as fast on a CPU",
        "sd15 with DeepCache interval 3 and ToMe, 25 UniPC steps",
        "flux with first block cache in under 3 s",
        "SD3 with the Euler sampler and twenty steps, bf16",
        "dit as fast as possible",
        "sdxl must fit in 8 GB",
        "Just run SDXL",
    ],
)
def test_the_overrides_compose(text: str, composed: Callable[..., Config]) -> None:
    given = overrides(by_rules(text))
    precheck(Call(("--multirun",), tuple(given)) if "+sweep=ga" in given else parse(given))
    config = composed(*(one for one in given if not one.startswith("hw=")))
    assert config.model.name == by_rules(text).model
