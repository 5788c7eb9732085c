"""What a model that nobody described says about itself, and where it must be asked."""

from __future__ import annotations

import json
import shutil
import struct
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest

from engine import catalogue, hub
from engine.architectures import FOLDER
from engine.errors import UsageError
from engine.models import CHECKPOINTS, locate
from engine.schema import Config

Composed = Callable[..., Config]
MINI = CHECKPOINTS / "sd-mini"


def copied(name: str, to: Path, **changes: Mapping[str, Any]) -> Path:
    """The configs of a published architecture, with keys of some parts' configs changed."""
    shutil.copytree(FOLDER / name, to)
    for part, more in changes.items():
        file = "scheduler_config.json" if part == "scheduler" else "config.json"
        path = to / "model_index.json" if part == "index" else to / part / file
        path.write_text(json.dumps(json.loads(path.read_text()) | dict(more)))
    return to


def single_file(path: Path, tensors: Mapping[str, Sequence[int]]) -> Path:
    """A safetensors file of zeros with these names and shapes."""
    header, end = {}, 0
    for name, shape in tensors.items():
        size = 1
        for side in shape:
            size *= side
        header[name] = {"dtype": "U8", "shape": list(shape), "data_offsets": [end, end + size]}
        end += size
    text = json.dumps(header).encode()
    path.write_bytes(struct.pack("<Q", len(text)) + text + bytes(end))
    return path


def test_a_folder_says_its_class_network_prediction_and_size(composed: Composed) -> None:
    model = composed("model=auto", f"model.weights={MINI}").model
    assert (model.pipeline, model.denoiser, model.task) == (
        "StableDiffusionPipeline", "unet", "text"
    )  # fmt: skip
    assert (model.prediction, model.height, model.width) == ("v", 64, 64)
    # The defaults of the class.
    assert (model.steps, model.guidance_scale, model.prompts) == (50, 7.5, "general")
    assert locate(model).path_or_id == str(MINI)


def test_what_is_typed_wins_over_what_is_read(composed: Composed) -> None:
    typed = ("model.steps=7", "model.prediction=noise", "model.height=96", "model.scorer=null")
    model = composed("model=auto", f"model.weights={MINI}", *typed).model
    assert (model.steps, model.prediction, model.height, model.width) == (7, "noise", 96, 64)
    assert (model.pipeline, model.scorer) == ("StableDiffusionPipeline", None)


@pytest.mark.parametrize(
    "name",
    ["sd15", "sd21", "sdxl", "sdxl-turbo", "pixart-alpha", "pixart-sigma", "dit", "sd3", "flux",
     "flux-schnell"],
)  # fmt: skip
def test_a_fine_tune_inherits_from_the_model_whose_network_it_has(
    composed: Composed, tmp_path: Path, name: str
) -> None:
    denoiser = catalogue.entry(name)["denoiser"]
    # Fine-tunes have further keys, such as where their training began.
    folder = copied(name, tmp_path / "mine", **{denoiser: {"_name_or_path": "x", "more": 1}})
    model = composed("model=auto", f"model.weights={folder}").model
    parent = catalogue.entry(name)
    for key in ("pipeline", "backbone", "denoiser", "task", "steps", "guidance_scale", "height",
                "width", "dtype", "prediction", "prompts"):  # fmt: skip
        assert getattr(model, key) == parent[key], key


def test_a_network_of_its_own_takes_the_defaults_of_its_class(
    composed: Composed, tmp_path: Path
) -> None:
    folder = copied("sd3", tmp_path / "own", transformer={"num_layers": 38, "sample_size": 64})
    model = composed("model=auto", f"model.weights={folder}").model
    # diffusers' defaults of StableDiffusion3Pipeline, not those of the card of SD 3.5 medium.
    assert (model.steps, model.guidance_scale, model.height) == (28, 7.0, 512)
    assert (model.prediction, model.dtype) == ("flow", "bfloat16")


def test_what_the_folder_does_not_say_is_asked_for(composed: Composed, tmp_path: Path) -> None:
    folder = copied("flux", tmp_path / "own", transformer={"num_layers": 3})
    with pytest.raises(UsageError, match=r"does not say its height; type model\.height=NUMBER"):
        composed("model=auto", f"model.weights={folder}")
    typed = ("model.height=512", "model.width=768")
    model = composed("model=auto", f"model.weights={folder}", *typed).model
    assert (model.height, model.width, model.steps) == (512, 768, 28)


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"index": {"_class_name": "NoSuchPipeline"}}, "has no pipeline NoSuchPipeline"),
        ({"index": {"_class_name": ["pipeline", "Mine"]}}, "needs code of its own"),
        (
            {"scheduler": {"prediction_type": "sample"}},
            "does not say its prediction; type model.prediction=noise, v or flow",
        ),
    ],
)
def test_what_cannot_run_is_refused(
    composed: Composed, tmp_path: Path, changes: dict[str, Any], words: str
) -> None:
    folder = copied("sd15", tmp_path / "own", **changes)
    with pytest.raises(UsageError, match=words) as caught:
        composed("model=auto", f"model.weights={folder}")
    assert "\n" not in str(caught.value)


def test_a_model_must_be_named(composed: Composed) -> None:
    with pytest.raises(UsageError, match=r"model=auto needs a model; type model\.id=ORG/NAME"):
        composed("model=auto")
    for place in ("mini", "random"):
        with pytest.raises(UsageError, match=f"model=auto has no model.weights={place}"):
            composed("model=auto", f"model.weights={place}")
    with pytest.raises(UsageError, match=r"model\.weights=/no/such is no folder with a model_ind"):
        composed("model=auto", "model.weights=/no/such")


def test_a_model_of_the_hub_is_read_from_the_cache(
    composed: Composed, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from huggingface_hub import constants

    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
    with pytest.raises(UsageError, match="me/mine is not in the local cache and HF_HUB_OFFLINE"):
        composed("model=auto", "model.id=me/mine")
    cached = tmp_path / "hub" / "models--me--mine"
    copied("sdxl", cached / "snapshots" / ("a" * 40))
    (cached / "refs").mkdir()
    (cached / "refs" / "main").write_text("a" * 40)
    model = composed("model=auto", "model.id=me/mine").model
    assert (model.id, model.pipeline, model.height) == (
        "me/mine", "StableDiffusionXLPipeline", 1024
    )  # fmt: skip
    with pytest.raises(UsageError, match="me/mine is not in the local cache"):
        locate(model)
    # The folder of the cache itself does too.
    model = composed("model=auto", f"model.weights={cached}").model
    assert (model.pipeline, model.steps) == ("StableDiffusionXLPipeline", 50)


# --- single files

V1 = "model.diffusion_model.output_blocks.11.0.skip_connection.weight"
V2 = "model.diffusion_model.input_blocks.2.1.transformer_blocks.0.attn2.to_k.weight"
XL = "conditioner.embedders.1.model.transformer.resblocks.9.mlp.c_proj.bias"
FLUX = "double_blocks.0.img_attn.norm.key_norm.scale"
VAE = {"first_stage_model.a": (1,)}
SD = VAE | {"cond_stage_model.a": (1,)}
SDXL = VAE | {"conditioner.embedders.0.a": (1,), "conditioner.embedders.1.a": (1,)}
T5 = {"vae.a": (1,), "text_encoders.clip_l.a": (1,), "text_encoders.t5xxl.a": (1,)}


@pytest.mark.parametrize(
    ("tensors", "name"),
    [
        (SD | {V1: (1, 1), V2: (1, 768)}, "sd15"),
        (SD | {V1: (1, 1), V2: (1, 1024)}, "sd21"),
        (SDXL | {XL: (1,)}, "sdxl"),
        (T5 | {FLUX: (1,), "guidance_in.in_layer.bias": (1,), "img_in.weight": (1, 64)}, "flux"),
        (T5 | {FLUX: (1,)}, "flux-schnell"),
    ],
)
def test_a_single_file_is_known_by_its_tensors(
    composed: Composed, tmp_path: Path, tensors: dict[str, Sequence[int]], name: str
) -> None:
    file = single_file(tmp_path / "mine.safetensors", tensors)
    model = composed("model=auto", f"model.weights={file}").model
    entry = catalogue.entry(name)
    for key in ("id", "pipeline", "denoiser", "prediction", "steps", "height", "dtype"):
        assert getattr(model, key) == entry[key], key


@pytest.mark.parametrize(
    ("tensors", "words"),
    [
        (
            {"a.weight": (1, 1)},
            "tells no kind of checkpoint; a single file can be sd15, sd21, sdxl",
        ),
        ({"control_model.time_embed.0.weight": (1, 1)}, "is of the kind controlnet; a single file"),
        ({FLUX: (1,)}, r"\(flux-schnell\) lacks tensors first_stage_model\.\*, text_encoders\.cl"),
        (VAE | {V1: (1, 1)}, r"\(sd15\) lacks tensors cond_stage_model\.\*: it holds no whole"),
    ],
)
def test_a_file_that_does_not_say_what_it_is_is_refused(
    composed: Composed, tmp_path: Path, tensors: dict[str, Sequence[int]], words: str
) -> None:
    file = single_file(tmp_path / "mine.safetensors", tensors)
    with pytest.raises(UsageError, match=words):
        composed("model=auto", f"model.weights={file}")


def test_a_file_of_another_model_or_form_is_refused(composed: Composed, tmp_path: Path) -> None:
    file = single_file(tmp_path / "mine.safetensors", SDXL | {XL: (1,)})
    with pytest.raises(UsageError, match=r"is a checkpoint of sdxl.*type model=sdxl or model=auto"):
        locate(composed("model=sd15", f"model.weights={file}").model)
    other = single_file(tmp_path / "other.safetensors", SD | {V1: (1, 1)})
    with pytest.raises(UsageError, match=r"is a checkpoint of sd15.*type model=sd15 or model=auto"):
        locate(composed("model=sdxl", f"model.weights={other}").model)
    image = composed("model=sd15-img2img", f"model.weights={other}", f"model.id={MINI}").model
    assert locate(image).config == str(MINI)
    old = file.rename(tmp_path / "mine.ckpt")
    with pytest.raises(UsageError, match="is no safetensors file; only those are read"):
        locate(composed("model=sdxl", f"model.weights={old}").model)
    cut = single_file(tmp_path / "cut.safetensors", {XL: (64,)})
    cut.write_bytes(cut.read_bytes()[:-9])
    with pytest.raises(UsageError, match=r"cut\.safetensors is damaged"):
        locate(composed("model=sdxl", f"model.weights={cut}").model)


def test_the_configs_of_a_single_file_come_from_the_models_id(
    composed: Composed, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from huggingface_hub import constants

    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
    file = single_file(tmp_path / "mine.safetensors", SD | {V1: (1, 1)})
    with pytest.raises(UsageError, match=r"needs the configs and the vocabulary of .*model\.id="):
        locate(composed("model=auto", f"model.weights={file}").model)
    found = locate(composed("model=auto", f"model.weights={file}", f"model.id={MINI}").model)
    assert (found.path_or_id, found.config) == (str(file), str(MINI))
    assert found.configs == {str(MINI): str(MINI)}
    told: list[object] = []

    def configs(*asked: object) -> Path:
        told.append(asked)
        return MINI

    monkeypatch.setattr(hub, "configs", configs)
    found = locate(composed("model=auto", f"model.weights={file}").model)
    assert found.configs == {"stable-diffusion-v1-5/stable-diffusion-v1-5": str(MINI)}
    assert told == [("stable-diffusion-v1-5/stable-diffusion-v1-5", None, None)]
