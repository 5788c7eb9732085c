"""What each task is asked by default, and which of a user's cases a model refuses."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from engine.asked import Asked
from engine.errors import UsageError
from engine.inputs import CLASSES, Inputs, labels_of, start_of
from engine.minis import edges, scenes
from engine.requests import Case, Shape
from engine.schema import Config

Composed = Callable[..., Config]
CAPTION = "a red circle left of a blue square on a white background"
IMAGENET = ("tench, Tinca tinca", "goldfish, Carassius auratus", "pug, pug-dog", "zebra", "llama")
MODELS = {
    "text": "sd-mini",
    "class": "dit-mini",
    "image": "sd15-img2img",
    "control": "sd-mini-controlnet",
}


def inputs_of(composed: Composed, task: str, folder: Path, *more: str) -> Inputs:
    """The inputs of a miniature of that task."""
    config = composed(f"model={MODELS[task]}", "model.weights=mini", *more)
    assert config.model.task == task
    return Inputs(config.model, folder, scenes.captions(1) if task == "class" else ())


def test_classes_of_the_two_parts_are_different_and_all_known(
    composed: Composed, tmp_path: Path
) -> None:
    inputs = inputs_of(composed, "class", tmp_path)
    parts = {
        part: {case.prompt for case in inputs.cases(100, 1, part)}
        for part in ("search", "acceptance")
    }
    assert not parts["search"] & parts["acceptance"]
    assert parts["search"] | parts["acceptance"] == set(scenes.captions(1))
    few = inputs.cases(3, 1, "search")
    assert inputs.cases(9, 1, "search")[:3] == few
    assert inputs.cases(9, 2, "search")[:3] != few


def test_published_classes_are_the_common_ones_that_the_model_has(
    composed: Composed, tmp_path: Path
) -> None:
    model = composed("model=dit").model
    inputs = Inputs(model, tmp_path, IMAGENET)
    asked = {c.prompt for part in ("search", "acceptance") for c in inputs.cases(20, 1, part)}
    assert asked == {"goldfish", "pug", "zebra", "llama"}
    other = Inputs(model, tmp_path, ("alpha, first", "beta"))
    assert {c.prompt for c in other.cases(4, 1, "acceptance")} <= {"alpha", "beta"}
    assert len(set(CLASSES.read_text().split("\n"))) == 61


def test_labels_are_read_from_the_folder_in_the_order_of_their_numbers(tmp_path: Path) -> None:
    assert labels_of(tmp_path) == ()
    names = {str(i): f"class {i}" for i in (10, 2, 0)}
    (tmp_path / "model_index.json").write_text(json.dumps({"id2label": names}))
    assert labels_of(tmp_path) == ("class 0", "class 2", "class 10")


def test_an_image_to_start_from_has_the_captions_layout_in_other_colours(
    composed: Composed, tmp_path: Path
) -> None:
    case = inputs_of(composed, "image", tmp_path).case(CAPTION)
    assert case.image is not None
    assert case == inputs_of(composed, "image", tmp_path).case(CAPTION)
    scene = scenes.parse(CAPTION)
    assert scene is not None
    placed = scenes.placed(scene, np.random.default_rng(0))
    start = start_of(placed)
    assert [item.colour for item in start.items] == ["blue", "purple"]
    for before, after in zip(placed.items, start.items, strict=True):
        assert dataclasses.replace(before, colour=after.colour) == after
    pixels = np.asarray(Image.open(case.image))
    assert pixels.shape == (64, 64, 3)
    # Blue, then purple, where the caption has red, then blue.
    names = [scenes.COLOURS[name] for name in ("blue", "purple")]
    places = [np.argwhere((pixels == colour).all(-1))[:, 1].mean() for colour in names]
    assert places[0] < 32 < places[1]
    assert not (pixels == scenes.COLOURS["red"]).all(-1).any()


def test_every_scene_starts_from_two_different_colours() -> None:
    for caption in scenes.captions(2):
        scene = scenes.parse(caption)
        assert scene is not None
        start = start_of(scene)
        assert start.items[0].colour != start.items[1].colour
        assert all(a.colour != b.colour for a, b in zip(scene.items, start.items, strict=True))


def test_a_control_image_is_the_scenes_edges_white_on_black(
    composed: Composed, tmp_path: Path
) -> None:
    inputs = inputs_of(composed, "control", tmp_path)
    case = inputs.case(CAPTION)
    assert case.image is not None
    pixels = np.asarray(Image.open(case.image))
    scene = inputs._scene(CAPTION)
    assert scene is not None
    assert (pixels == (255 * edges.of(scene)).round()).all()
    assert pixels.max() == 255
    assert np.median(pixels) == 0
    before = Path(case.image).stat().st_mtime_ns
    inputs.case(CAPTION)
    assert Path(case.image).stat().st_mtime_ns == before
    assert [path.suffix for path in (tmp_path / "inputs").iterdir()] == [".png"]


def test_a_published_model_without_images_says_what_to_type(
    composed: Composed, tmp_path: Path
) -> None:
    inputs = Inputs(composed("model=sd15-controlnet").model, tmp_path)
    with pytest.raises(UsageError, match=r"model=sd15-controlnet needs a control image.*data=FILE"):
        inputs.cases(2, 1, "search")
    assert not (tmp_path / "inputs").exists()


def test_random_weights_start_from_rendered_images_of_their_size(
    composed: Composed, tmp_path: Path
) -> None:
    model = composed("model=sd15-img2img", "model.weights=random").model
    cases = Inputs(model, tmp_path).cases(2, 1, "search")
    assert cases[0].prompt != cases[1].prompt
    assert [Image.open(str(case.image)).size for case in cases] == [(512, 512)] * 2


@pytest.mark.parametrize(
    ("task", "case", "words"),
    [
        ("text", Case(CAPTION, image="a.png"), "has an image, and model=sd-mini takes none"),
        ("class", Case("a red circle on a white background", image="a.png"), "takes none"),
        ("class", Case("a red cirle on a white background"), "no class .*did you mean a red"),
        ("class", Case("a red circle on a white background", "blue"), "has a negative_prompt"),
        ("image", Case(CAPTION), "case 1 .* has no image; .* needs an image to start from"),
        ("control", Case(CAPTION), "case 1 .* has no image; .* needs a control image"),
    ],
)
def test_a_case_that_the_task_cannot_take_is_refused_in_one_line(
    composed: Composed, tmp_path: Path, task: str, case: Case, words: str
) -> None:
    inputs = inputs_of(composed, task, tmp_path)
    with pytest.raises(UsageError, match=words) as error:
        inputs.check([case], "data=mine")
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("task", MODELS)
def test_a_users_file_reaches_the_requests_of_its_task(
    composed: Composed, tmp_path: Path, task: str
) -> None:
    Image.new("RGB", (96, 64)).save(tmp_path / "a.png")
    rows = [{"prompt": caption} for caption in scenes.captions(1)[:6]]
    if task in ("image", "control"):
        rows = [row | {"image": "a.png"} for row in rows]
    path = tmp_path / "mine.txt"
    path.write_text("\n".join(map(json.dumps, rows)))
    inputs = inputs_of(composed, task, tmp_path)
    config = composed(f"model={MODELS[task]}", "model.weights=mini", f"data='{path}'")
    asked = Asked(config, inputs)
    (request, share), *_ = asked.trials()
    assert share == 1
    assert len(request.pictures()) == (task in ("image", "control"))
    # An image to start from keeps its size, so that is what programs are measured for.
    assert asked.measured() == ((Shape(64, 96),) if task == "image" else ())
    path.write_text("\n".join(map(json.dumps, [*rows, {"prompt": "x", "image": "a.png"}])))
    if task in ("text", "class"):
        with pytest.raises(UsageError, match="case 7"):
            Asked(config, inputs)


def test_a_second_request_has_another_prompt_as_long_as_there_is_one(
    composed: Composed, tmp_path: Path
) -> None:
    path = tmp_path / "mine.txt"
    path.write_text("\n".join(scenes.captions(1)[:10]))
    config = composed("model=sd15", "model.weights=mini", f"data='{path}'")
    asked = Asked(config, inputs_of(composed, "text", tmp_path))
    pool = {case.prompt for case in asked.cases(10, "search")}
    assert len(pool) > 2
    for salt in range(20):
        left = set(pool)
        while left:
            (request, _), *_ = asked.trials(salt, pool - left)
            assert set(request.prompts) <= left
            left -= set(request.prompts)
        assert asked.trials(salt, pool)


def test_a_model_of_one_size_takes_batches_and_no_other_size(
    composed: Composed, tmp_path: Path
) -> None:
    inputs = inputs_of(composed, "class", tmp_path)
    Asked(composed("model=dit-mini", "workload.shapes=[{batch: 2}, {weight: 2}]"), inputs)
    wide = composed("model=dit-mini", "workload.shapes=[{width: 96}]")
    with pytest.raises(UsageError, match="64x96, and model=dit-mini draws 64x64 only"):
        Asked(wide, inputs)


def test_one_prompt_for_all_requests_gets_its_image_too(composed: Composed, tmp_path: Path) -> None:
    inputs = inputs_of(composed, "control", tmp_path)
    config = composed("model=sd-mini-controlnet", f"prompt='{CAPTION}'")
    assert Asked(config, inputs).cases(2, "search") == [inputs.case(CAPTION)] * 2
    config = composed("model=sd-mini-controlnet", "prompt='a cat'")
    with pytest.raises(UsageError, match="type data=FILE"):
        Asked(config, inputs).cases(2, "search")
