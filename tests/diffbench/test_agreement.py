"""What a text says against what the counters saw, also behind the mapping to a miniature."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from engine.diffbench.agreement import disagreements
from engine.reading import Method, Reading
from engine.specification import Specification
from engine.worker.evidence import Evidence

ASKED = Specification(
    request="",
    model="sd15",
    pipeline="StableDiffusionPipeline",
    model_id="stable-diffusion-v1-5/stable-diffusion-v1-5",
    methods={"deepcache": {"interval": 3}, "tome": {}},
)
SAID = Reading(
    pipeline="StableDiffusionPipeline",
    model_id="stable-diffusion-v1-5/stable-diffusion-v1-5",
    scheduler="DDIMScheduler",
    steps=20,
    guidance_scale=7.5,
    height=512,
    width=512,
    dtype="float16",
    methods=(Method("deepcache", {"interval": 3}), Method("tome", {"ratio": 0.5})),
)
SEEN = Evidence(
    pipeline="StableDiffusionPipeline",
    scheduler="DDIMScheduler",
    timesteps=tuple(float(t) for t in range(20)),
    forwards=20,
    batches=(2,) * 20,
    latent=(4, 16, 16),
    decoded=((1, 4, 16, 16),),
    delivered=((64, 64),),
    images=1,
    dtypes={"unet": ("float32",)},
    computed=("float32",),
    autocast=None,
    shapes={},
    methods={"deepcache": {"interval": 3}, "tome": {"ratio": 0.5}},
    guidance=(7.5,),
    mapped=(
        "float16 is float32 here: there is no GPU",
        "height: 512 pixels are 64 here (x 0.125)",
        "width: 512 pixels are 64 here (x 0.125)",
    ),
)


def fields(said: Reading = SAID, seen: Evidence = SEEN) -> list[str]:
    return [one.field for one in disagreements(ASKED, said, seen)]


def test_a_program_that_does_what_it_says_agrees_behind_the_mapping() -> None:
    assert fields() == []


@pytest.mark.parametrize(
    ("changed", "field"),
    [
        ({"pipeline": "StableDiffusionXLPipeline"}, "pipeline"),
        ({"scheduler": "PNDMScheduler"}, "scheduler"),
        ({"timesteps": (1.0,) * 19}, "steps"),
        ({"guidance": (1.0,)}, "guidance_scale"),
        ({"methods": {"tome": {"ratio": 0.5}}}, "methods.deepcache"),
        ({"methods": {**SEEN.methods, "deepcache": {"interval": 2}}}, "methods.deepcache.interval"),
        ({"methods": {**SEEN.methods, "tome": {"ratio": 0.1}}}, "methods.tome.ratio"),
        ({"mapped": SEEN.mapped[1:]}, "dtype"),
        ({"mapped": (SEEN.mapped[0].replace("float16", "bfloat16"), *SEEN.mapped[1:])}, "dtype"),
        ({"mapped": (SEEN.mapped[0], "height: 256 pixels are 32 here (x 0.125)")}, "height"),
        ({"delivered": ((64, 32),)}, "width"),
        ({"loads": 1}, "loading"),
    ],
)
def test_every_difference_is_named_with_both_sides(changed: dict[str, Any], field: str) -> None:
    found = disagreements(ASKED, SAID, replace(SEEN, **changed))
    assert [one.field for one in found] == [field]
    assert found[0].asked
    assert found[0].found


def test_half_precision_that_no_text_speaks_of_is_seen_through_the_mapping() -> None:
    silent = replace(SAID, dtype=None)
    assert fields(silent) == ["dtype"]
    assert fields(silent, replace(SEEN, mapped=SEEN.mapped[1:])) == []
    hidden = replace(SEEN, mapped=("half() does nothing here: there is no GPU", *SEEN.mapped[1:]))
    assert fields(silent, hidden) == ["dtype"]
    stated = replace(silent, methods=(*silent.methods, Method("autocast", {})))
    assert fields(stated, hidden) == []


def test_on_a_gpu_sizes_and_precision_are_compared_as_they_are() -> None:
    real = replace(SEEN, mapped=(), delivered=((512, 512),), dtypes={"unet": ("float16",)})
    assert fields(seen=real) == []
    assert fields(seen=replace(real, dtypes={"unet": ("float32",)})) == ["dtype"]
    assert fields(seen=replace(real, delivered=((256, 512),))) == ["height"]


def test_steps_count_as_schedulers_and_strength_make_them() -> None:
    pndm = replace(SAID, scheduler="PNDMScheduler")
    longer = replace(SEEN, scheduler="PNDMScheduler", timesteps=(1.0,) * 21)
    assert fields(pndm, longer) == []
    name = "StableDiffusionImg2ImgPipeline"
    image = replace(SEEN, pipeline=name, timesteps=(1.0,) * 16)
    assert fields(replace(SAID, pipeline=name), image) == []
    assert fields(replace(SAID, pipeline=name, strength=0.5), image) == ["steps"]


def test_a_gate_is_compared_with_room_for_a_cache_beside_it() -> None:
    asked = replace(ASKED, methods={"tgate": {"gate_step": 8}})
    said = replace(SAID, methods=(Method("tgate", {"gate_step": 8}),))
    seen = replace(SEEN, methods={"tgate": {"gate_step": 8}})
    assert disagreements(asked, said, seen) == ()
    late = replace(SEEN, methods={"tgate": {"gate_step": 6}})
    assert [one.field for one in disagreements(asked, said, late)] == ["methods.tgate.gate_step"]
    both = replace(said, methods=(*said.methods, Method("deepcache", {"interval": 3})))
    assert disagreements(asked, both, late) == ()
