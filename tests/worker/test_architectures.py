"""Programs of every pipeline class in real workers: they draw, repeat themselves, are counted."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from engine.errors import TrialError
from engine.program import Subject, generate
from engine.requests import Case, Request, Shape
from engine.results import Genome
from engine.worker.conversation import Load, Worker
from engine.worker.pool import Pool
from tests.tiny import KINDS, ONE, OTHER, case, request, saved, subject


def load_of(given: Subject, genome: Genome | None = None, **models: str) -> Load:
    return Load(
        program=generate(given, genome or {}, "test"),
        strategies=tuple(genome or {}),
        models=models,
        denoiser=given.denoiser,
        device="cpu",
        threads=1,
        timeout_s=120.0,
    )


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("models")


def running(kind: str, steps: int) -> int:
    """Steps that run: an image to start from stands for the first of them."""
    share = {"sd-img2img": 0.8, "sdxl-img2img": 0.3}.get(kind, 1.0)
    return int(steps * share)


@pytest.mark.parametrize("kind", KINDS)
def test_a_program_draws_repeats_itself_and_is_counted(
    kind: str, worker: Worker, root: Path
) -> None:
    known = KINDS[kind]
    steps = 4 if known.task == "image" else 3
    worker.load(load_of(subject(kind, saved(kind, root), steps=steps)))
    one, other = request(kind, root, ONE), request(kind, root, OTHER, ONE, seed=5)
    first = worker.generate(one).images
    assert first.shape == (1, 64, 64, 3)
    assert first.std() > 0.5
    both = worker.generate(other).images
    assert both.shape == (2, 64, 64, 3)
    assert np.array_equal(worker.generate(one).images, first)
    assert not np.array_equal(both[0], first[0])
    cost = worker.cost(one)
    assert cost["unknown"] == []
    assert cost["flops"] > 0
    assert cost["forwards"] == running(kind, steps)
    assert cost["batches"] == [known.halves] * running(kind, steps)
    # The second picture of a batch is drawn with the next seed.
    assert worker.cost(other)["batches"] == [2 * known.halves] * running(kind, steps)
    parts = worker.profile(one)
    expected = {known.denoiser, "vae"} | ({"controlnet"} if known.task == "control" else set())
    assert expected <= {name for name, spent in parts.items() if spent > 0}
    assert worker.memory_gib("cpu") > 0


def test_published_ids_are_found_in_folders_whatever_loads_them(worker: Worker, root: Path) -> None:
    """A ControlNet of its own beside a pipeline without one, as they are published."""
    own = saved("sd-control", root) / "controlnet"
    given = subject("sd-control", root, id="org/sd", revision="abc", controlnet="org/canny")
    given = replace(given, controlnet_revision="def")
    load = load_of(given)
    worker.load(replace(load, models={"org/sd": str(saved("sd", root)), "org/canny": str(own)}))
    first, other, again = (
        worker.generate(
            Request((Case(ONE, image=case("sd-control", edges, root).image),), 1)
        ).images
        for edges in (ONE, OTHER, ONE)
    )
    assert np.array_equal(first, again)
    assert not np.array_equal(first, other)


def test_a_control_net_costs_operations(pool: Pool, root: Path) -> None:
    flops = []
    for kind in ("sd", "sd-control"):
        worker = pool.spawn()
        worker.load(load_of(subject(kind, saved(kind, root))))
        flops.append(worker.cost(request(kind, root, ONE))["flops"])
        worker.close()
    assert flops[1] > 1.1 * flops[0]


def test_an_image_of_another_size_is_taken_at_the_size_that_is_asked_for(
    worker: Worker, root: Path, tmp_path: Path
) -> None:
    worker.load(load_of(subject("sd-img2img", saved("sd-img2img", root), steps=4)))
    sizes = [(96, 64), (48, 80)]
    cases = []
    for size in sizes:
        path = tmp_path / f"{size[0]}.png"
        Image.new("L", size, 90).save(path)
        cases.append(Case(ONE, image=str(path)))
    # Its own size where none is given; two of different sizes need one.
    assert worker.generate(Request((cases[0],), 1)).images.shape == (1, 64, 96, 3)
    both = Request(tuple(cases), 1, Shape(64, 64, batch=2))
    assert worker.generate(both).images.shape == (2, 64, 64, 3)


@pytest.mark.parametrize(
    ("kind", "asked", "words"),
    [
        ("dit", Case("a red cirle on a white background"), "no class .*did you mean a red circle"),
        ("dit", Case(ONE, negative_prompt="blue"), "takes no negative_prompt"),
        ("sd-img2img", Case(ONE), "image is missing: the picture to start from"),
        ("sd-control", Case(ONE), "image is missing: the control image"),
        ("flux", Case(ONE, negative_prompt="blue"), "nothing here without true_cfg_scale above 1"),
    ],
)
def test_what_a_model_cannot_take_is_said(
    kind: str, asked: Case, words: str, worker: Worker, root: Path
) -> None:
    worker.load(load_of(subject(kind, saved(kind, root))))
    with pytest.raises(TrialError, match=words):
        worker.generate(Request((asked,), 1))


def test_a_class_model_draws_its_own_size_in_batches_only(worker: Worker, root: Path) -> None:
    worker.load(load_of(subject("dit", saved("dit", root))))
    cases = (Case(ONE), Case(OTHER))
    assert worker.generate(Request(cases, 1, Shape(64, 64, batch=2))).images.shape[0] == 2
    with pytest.raises(TrialError, match="this model draws 64 x 64 pixels only"):
        worker.generate(Request(cases, 1, Shape(64, 96, batch=2)))


def test_a_text_model_takes_no_image(worker: Worker, root: Path) -> None:
    worker.load(load_of(subject("pixart-alpha", saved("pixart-alpha", root))))
    asked = Case(ONE, image=case("sd-img2img", ONE, root).image)
    with pytest.raises(TrialError, match="takes no image here"):
        worker.generate(Request((asked,), 1))


def test_noise_that_a_class_model_draws_by_itself_follows_the_seed(
    worker: Worker, root: Path
) -> None:
    genome: Genome = {"sampler": {"name": "dpmpp_sde", "steps": 4, "spacing": "trailing"}}
    worker.load(load_of(subject("dit", saved("dit", root)), genome))
    one = request("dit", root, ONE)
    first = worker.generate(one).images
    assert not np.array_equal(worker.generate(replace(one, seed=2)).images, first)
    assert np.array_equal(worker.generate(one).images, first)


@pytest.mark.parametrize("kind", ["sd-control", "sdxl-control"])
def test_guidance_that_ends_within_an_image_leaves_a_control_net_running(
    kind: str, worker: Worker, root: Path
) -> None:
    genome: Genome = {"guidance": {"stop": 0.4}, "tgate": {"gate": 0.8}}
    worker.load(load_of(subject(kind, saved(kind, root), steps=5), genome))
    asked = request(kind, root, ONE)
    worker.generate(asked)
    worker.check_active()
    assert worker.cost(asked)["batches"] == [2, 2, 1, 1, 1]


@pytest.mark.parametrize("kind", ["sd-img2img", "sdxl-img2img"])
def test_fractions_of_the_steps_are_those_of_the_steps_that_run(
    kind: str, worker: Worker, root: Path
) -> None:
    steps = {"sd-img2img": 5, "sdxl-img2img": 14}[kind]
    worker.load(load_of(subject(kind, saved(kind, root), steps=steps), {"guidance": {"stop": 0.5}}))
    asked = request(kind, root, ONE)
    worker.generate(asked)
    worker.check_active()
    assert worker.cost(asked)["batches"] == [2, 2, 1, 1]
