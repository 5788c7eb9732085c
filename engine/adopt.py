"""A model that nobody described: what its folder or file says about it (``model=auto``).

Whatever is null in the model's configuration is read: the pipeline's class and the network that
denoises from ``model_index.json``, what that network predicts from the scheduler's config, the size
of its images from the configs of network and autoencoder, steps and guidance from the class. Where
its network is that of a published model it is taken for a fine-tune of it and inherits the steps,
guidance, size and dtype of that model. No code that comes with a model is run.
"""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from engine import architectures, catalogue, weights
from engine.errors import UsageError

OPTIONAL = ("revision", "controlnet", "mini", "scorer")
"""Settings that may be null."""
INHERITED = ("steps", "guidance_scale", "height", "width", "dtype")
SINGLE = {
    "v1": "sd15",
    "v2": "sd21",
    "xl_base": "sdxl",
    "sd35_medium": "sd3",
    "flux-dev": "flux",
    "flux-schnell": "flux-schnell",
}
"""diffusers' kinds of single-file checkpoints: the model whose architecture each has."""
AUTOENCODER = ("first_stage_model.", "vae.")
TEXT = {
    "sd15": ("cond_stage_model.",),
    "sd21": ("cond_stage_model.",),
    "sdxl": ("conditioner.embedders.0.", "conditioner.embedders.1."),
    "sd3": ("text_encoders.clip_l.", "text_encoders.clip_g.", "text_encoders.t5xxl."),
    "flux": ("text_encoders.clip_l.", "text_encoders.t5xxl."),
    "flux-schnell": ("text_encoders.clip_l.", "text_encoders.t5xxl."),
}
"""Beginnings of the names of tensors of autoencoder and text encoders, without which a file is no
whole pipeline."""


def filled(model: Mapping[str, Any], cache: str | None = None) -> dict[str, Any]:
    """The model's settings with what was null and can be read; raises UsageError in one line."""
    from engine import models

    if all(value is not None or name in OPTIONAL for name, value in model.items()):
        return dict(model)
    place = str(model["weights"])
    if place in ("mini", "random"):
        raise UsageError(
            f"model={model['name']} has no model.weights={place}; type model.id=ORG/NAME, or "
            "model.weights=PATH of a folder or a single-file checkpoint"
        )
    if place == "hub":
        if model.get("id") is None:
            raise UsageError(
                f"model={model['name']} needs a model; type model.id=ORG/NAME, or model.weights="
                "PATH of a diffusers folder or a single-file checkpoint"
            )
        folder = models.configs(str(model["id"]), model.get("revision"), cache)
        found = described(folder)
    elif Path(place).expanduser().is_file():
        found = of_file(Path(place).expanduser())
    else:
        folder = weights.snapshot(Path(place).expanduser())
        models.require_pipeline(folder, f"model.weights={place}")
        found = described(folder)
    found = {"id": place, "download_gib": 0.0, **found}
    whole = {name: found.get(name) if value is None else value for name, value in model.items()}
    for name, value in whole.items():
        if value is None and name in found:
            takes = "noise, v or flow" if name == "prediction" else "NUMBER, as its card says"
            raise UsageError(f"{place} does not say its {name}; type model.{name}={takes}")
    return whole


def described(folder: Path) -> dict[str, Any]:
    """What a pipeline's folder says, as settings of a model, None where it says nothing; its
    weights are not read."""
    index = weights.read_json(folder / "model_index.json")
    name = index.get("_class_name")
    denoiser = next((d for d in ("unet", "transformer") if d in index), None)
    if not isinstance(name, str):
        raise UsageError(f"{folder} needs code of its own ({name}), which is never run")
    if denoiser is None:
        raise UsageError(f"{folder} ({name}) has neither a U-Net nor a transformer")
    call = _call(name)
    own = _own(folder, index, denoiser, call)
    parent = _parent(folder / denoiser, name)
    if parent is not None:
        own |= {key: catalogue.entry(parent)[key] for key in INHERITED}
    return own


def of_file(file: Path) -> dict[str, Any]:
    """The settings of the published model whose architecture a single-file checkpoint has."""
    entry = catalogue.entry(kind(file))
    taken = ("id", "pipeline", "backbone", "denoiser", "task", "prediction", "prompts", *INHERITED)
    return {key: entry[key] for key in taken} | {"gated": False}


def kind(file: Path) -> str:
    """The model of the catalogue whose architecture a single-file checkpoint has.

    Raises UsageError where its tensors do not say it, or are those of one network only.
    """
    from types import SimpleNamespace

    from diffusers.loaders import single_file_utils as library

    tensors = weights.header(file)
    shapes = {name: SimpleNamespace(shape=entry["shape"]) for name, entry in tensors.items()}
    try:
        found = library.infer_diffusers_model_type(shapes)
    except (KeyError, IndexError):
        found = "unknown"
    # It is the library's answer to anything it does not know.
    if found == "v1" and library.CHECKPOINT_KEY_NAMES["v1"] not in tensors:
        found = "unknown"
    if found not in SINGLE:
        word = "tells no kind of checkpoint" if found == "unknown" else f"is of the kind {found}"
        raise UsageError(
            f"{file} {word}; a single file can be {', '.join(SINGLE.values())} or a fine-tune of "
            "them; convert others to a diffusers folder (from_single_file, save_pretrained)"
        )
    name = SINGLE[found]
    wanted = [AUTOENCODER, *((start,) for start in TEXT[name])]
    lacking = [w[0] for w in wanted if not any(tensor.startswith(w) for tensor in tensors)]
    if lacking:
        raise UsageError(
            f"{file} ({name}) lacks tensors {', '.join(f'{start}*' for start in lacking)}: it "
            "holds no whole pipeline; load its network into one (from_single_file), save that with "
            "save_pretrained(FOLDER) and type model.weights=FOLDER"
        )
    return name


def _call(name: str) -> Mapping[str, inspect.Parameter]:
    """Parameters of the call of a pipeline's class."""
    import diffusers

    cls = getattr(diffusers, name, None)
    if cls is None or not hasattr(cls, "from_pretrained"):
        raise UsageError(
            f"diffusers {diffusers.__version__} has no pipeline {name}, which this model needs"
        )
    return inspect.signature(cls.__call__).parameters


def _own(
    folder: Path, index: Mapping[str, Any], denoiser: str, call: Mapping[str, inspect.Parameter]
) -> dict[str, Any]:
    """What the folder and the class say themselves; None where they say nothing."""
    prediction = _prediction(folder)
    side = _side(folder, denoiser)
    task = _task(call, index)
    defaults = {
        key: call[key].default if key in call and _number(call[key].default) else None
        for key in ("num_inference_steps", "guidance_scale")
    }
    return {
        "pipeline": index["_class_name"],
        "backbone": denoiser,
        "denoiser": denoiser,
        "task": task,
        "prediction": prediction,
        "prompts": "classes" if task == "class" else "general",
        "steps": defaults["num_inference_steps"],
        "guidance_scale": defaults["guidance_scale"] if "guidance_scale" in call else 0.0,
        "height": side,
        "width": side,
        "dtype": "bfloat16" if prediction == "flow" else "float16",
        "gated": False,
    }


def _number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _task(call: Mapping[str, inspect.Parameter], index: Mapping[str, Any]) -> str:
    if "prompt" not in call:
        return "class"
    if "control_image" in call or "controlnet" in index:
        return "control"
    image = call.get("image")
    # Where an image may be left out the pipeline makes one from the prompt alone.
    return "image" if image is not None and "strength" in call else "text"


def _prediction(folder: Path) -> str | None:
    config = weights.read_json(folder / "scheduler" / "scheduler_config.json")
    if config.get("_class_name", "").startswith("FlowMatch") or config.get("use_flow_sigmas"):
        return "flow"
    kinds = {"epsilon": "noise", "v_prediction": "v", "flow_prediction": "flow"}
    return kinds.get(config.get("prediction_type", "epsilon"))


def _side(folder: Path, denoiser: str) -> int | None:
    """Pixels along a side: the network's sample size times the autoencoder's reduction."""
    size = weights.read_json(folder / denoiser / "config.json").get("sample_size")
    path = folder / "vae" / "config.json"
    if not _number(size) or not path.is_file():
        return None
    channels = weights.read_json(path).get("block_out_channels", [0] * 4)
    return int(size * 2 ** (len(channels) - 1))


def _parent(denoiser: Path, pipeline: str) -> str | None:
    """The published model with the same class of pipeline and network, number for number."""
    theirs = weights.read_json(denoiser / "config.json")
    for name in architectures.names():
        known = architectures.FOLDER / name
        index = weights.read_json(known / "model_index.json")
        if index["_class_name"] != pipeline or not (known / denoiser.name).is_dir():
            continue
        config = weights.read_json(known / denoiser.name / "config.json")
        same = all(theirs.get(k, v) == v for k, v in config.items() if not k.startswith("_"))
        if same and name in catalogue.names():
            return name
    return None
