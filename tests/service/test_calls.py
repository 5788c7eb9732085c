"""Calls of one program in one process: no image depends on what was asked before it."""

from __future__ import annotations

import random
import warnings
from concurrent.futures import ThreadPoolExecutor
from types import ModuleType
from typing import Any

import pytest
from PIL import Image

from engine.program import Subject, generate
from tests.service.programs import CHECKPOINT, GENOME, SUBJECT, pixels

CIRCLE = "a red circle on a white background"
SQUARE = "a blue square on a black background"
OTHER_SHAPES = pytest.mark.filterwarnings("ignore:measured for")


def loaded(text: str) -> Any:
    module: Any = ModuleType("accelerated")
    exec(compile(text, "accelerated.py", "exec"), module.__dict__)
    return module


def fresh(program: Any) -> Any:
    return program.accelerate(program.load_pipeline("cpu", str(CHECKPOINT)))


def drawn(program: Any, pipe: Any, prompt: Any = CIRCLE, seed: int = 0, **call: Any) -> list[Any]:
    return [pixels(image) for image in program.generate(pipe, prompt, seed=seed, **call)]


@pytest.fixture(scope="module")
def program() -> Any:
    return loaded(generate(SUBJECT, GENOME, "test"))


@pytest.fixture(scope="module")
def plain() -> Any:
    return loaded(generate(SUBJECT, {}, "test"))


@pytest.fixture(scope="module")
def pipe(program: Any) -> Any:
    return fresh(program)


@pytest.fixture(scope="module")
def plain_pipe(plain: Any) -> Any:
    return fresh(plain)


REQUESTS: list[dict[str, Any]] = [
    {"prompt": CIRCLE, "seed": 1},
    {"prompt": SQUARE, "seed": 2, "height": 96, "num_inference_steps": 3},
    {"prompt": [CIRCLE, SQUARE], "seed": 3, "negative_prompt": "a ring"},
    {"prompt": SQUARE, "seed": 4, "guidance_scale": 1.0},
    {"prompt": CIRCLE, "seed": 5, "num_inference_steps": 8, "negative_prompt": SQUARE},
]


@OTHER_SHAPES
def test_threads_that_share_a_pipeline_get_the_images_of_fresh_ones(
    program: Any, pipe: Any
) -> None:
    expected = [drawn(program, fresh(program), **request) for request in REQUESTS]
    order = random.Random(0).choices(range(len(REQUESTS)), k=12)
    with ThreadPoolExecutor(4) as threads:
        found = list(threads.map(lambda i: drawn(program, pipe, **REQUESTS[i]), order))
    assert found == [expected[i] for i in order]


@pytest.mark.parametrize("technique", ["deepcache", "tgate", "tome", "guidance"])
def test_a_technique_that_is_not_reset_shows_in_the_second_image(technique: str) -> None:
    genome = {name: GENOME[name] for name in ("sampler", technique)}
    text = generate(SUBJECT, genome, "test")
    line = f"    {technique}_reset(pipe)\n"
    assert text.count(line) == 1
    leaking, whole = loaded(text.replace(line, "")), loaded(text)
    second: dict[str, Any] = {"prompt": SQUARE, "seed": 2}
    expected = drawn(whole, fresh(whole), **second)
    for program, same in ((whole, True), (leaking, False)):
        used = fresh(program)
        drawn(program, used, CIRCLE, 1)
        assert (drawn(program, used, **second) == expected) is same


def test_an_exception_in_the_middle_passes_through_and_leaves_nothing(
    program: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Stop(Exception):
        pass

    steps: list[int] = []

    def stop(_pipe: Any, step: int, _time: Any, _tensors: dict[str, Any]) -> None:
        steps.append(step)
        if step == 6:
            raise Stop

    used = fresh(program)
    freed: list[int] = []
    monkeypatch.setattr(used, "maybe_free_model_hooks", lambda: freed.append(1))
    with pytest.raises(Stop):
        program.generate(used, SQUARE, seed=9, num_inference_steps=9, callback_on_step_end=stop)
    assert steps == [0, 1, 2, 3, 4, 5, 6]
    assert freed == [1]
    assert not program.LOCK.locked()
    assert drawn(program, used) == drawn(program, fresh(program))


@pytest.mark.parametrize("steps", [5, 10])
def test_gates_and_stops_follow_the_steps_of_the_call(program: Any, pipe: Any, steps: int) -> None:
    guided, closed = [], []

    def note(pipe: Any, _step: int, _time: Any, _tensors: dict[str, Any]) -> None:
        guided.append(pipe.do_classifier_free_guidance)
        closed.append(pipe._tgate_state.closed)

    program.generate(pipe, CIRCLE, seed=0, num_inference_steps=steps, callback_on_step_end=note)
    # At the end of a step, so the one that ends guidance counts no more.
    assert guided.count(True) == int(0.4 * steps) - 1
    assert closed.count(False) == int(0.7 * steps) - 1
    assert len(guided) == steps
    assert pipe._deepcache_state.calls == steps


def test_none_leaves_the_measured_settings(program: Any, pipe: Any) -> None:
    names = ("height", "width", "num_inference_steps", "guidance_scale", "callback_on_step_end")
    nothing: dict[str, Any] = dict.fromkeys(names)
    with warnings.catch_warnings():
        warnings.filterwarnings("error", "measured for")
        assert drawn(program, pipe, **nothing) == drawn(program, pipe)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        ({"steps": 5}, "takes no steps here.* num_inference_steps"),
        ({"image": Image.new("RGB", (64, 64))}, "takes no image here"),
        ({"generator": None, "num_images_per_prompt": 2}, "takes no num_images_per_prompt"),
        ({"return_dict": False}, "takes no return_dict"),
        ({"callback": print}, "takes no callback"),
        ({"num_inference_steps": 0}, "num_inference_steps must be at least 1, not 0"),
        ({"height": 0}, "height must be at least 1, not 0"),
        ({"prompt": []}, "empty list"),
        ({"width": 70}, "divisible by 8"),
    ],
)
@OTHER_SHAPES
def test_what_cannot_be_followed_is_refused(
    program: Any, pipe: Any, call: dict[str, Any], message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        program.generate(pipe, **({"prompt": CIRCLE, "seed": 0} | call))


@OTHER_SHAPES
def test_one_negative_prompt_holds_for_a_whole_batch(plain: Any, plain_pipe: Any) -> None:
    batch = [CIRCLE, SQUARE]
    once = drawn(plain, plain_pipe, batch, negative_prompt="a ring")
    assert once == drawn(plain, plain_pipe, batch, negative_prompt=["a ring", "a ring"])
    assert once != drawn(plain, plain_pipe, batch)


@OTHER_SHAPES
def test_the_images_of_a_batch_have_the_seeds_that_follow(plain: Any, plain_pipe: Any) -> None:
    import numpy as np

    batch = plain.generate(plain_pipe, [CIRCLE, SQUARE], seed=7)
    single = plain.generate(plain_pipe, SQUARE, seed=8)[0]
    # A batch is summed in another order, so the last bit may differ.
    assert np.abs(np.asarray(batch[1], int) - np.asarray(single, int)).max() <= 2


def test_a_callback_of_the_library_gets_its_tensors(plain: Any, plain_pipe: Any) -> None:
    from diffusers.callbacks import SDCFGCutoffCallback

    cut = SDCFGCutoffCallback(cutoff_step_ratio=0.5, cutoff_step_index=None)
    assert drawn(plain, plain_pipe, callback_on_step_end=cut) != drawn(plain, plain_pipe)


def test_a_pipeline_is_accelerated_once_and_before_it_is_used(program: Any, pipe: Any) -> None:
    with pytest.raises(ValueError, match="accelerated already"):
        program.accelerate(pipe)
    published = program.load_pipeline("cpu", str(CHECKPOINT))
    with pytest.raises(ValueError, match="call accelerate"):
        program.generate(published, CIRCLE, seed=0)


def test_an_initial_image_brings_its_size_and_leaves_nothing() -> None:
    fields = {**vars(SUBJECT), "pipeline": "StableDiffusionImg2ImgPipeline", "task": "image"}
    program = loaded(generate(Subject(**fields), GENOME, "test"))
    small, large = (Image.new("RGB", (side, side), "red") for side in (64, 96))
    used = fresh(program)
    with pytest.warns(UserWarning, match=r"not \(96, 96, 1\)"):
        assert drawn(program, used, image=large, strength=0.5)[0][0] == (96, 96)
    with warnings.catch_warnings():
        warnings.filterwarnings("error", "measured for")
        found = drawn(program, used, SQUARE, image=small, strength=0.8)
    assert found == drawn(program, fresh(program), SQUARE, image=small, strength=0.8)
    assert drawn(program, used, image=large, height=64, width=64)[0][0] == (64, 64)
    with pytest.raises(ValueError, match="image is missing"):
        program.generate(used, CIRCLE, seed=0)
