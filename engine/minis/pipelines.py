"""Whole pipelines of the miniatures, in memory: the published class of each, its scheduler, and
how it is called.

``build_pipeline("flux-mini")`` has random weights; ``assemble`` makes a pipeline of trained parts.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal

from engine.minis import families, networks, scenes

if TYPE_CHECKING:
    from pathlib import Path

NAMES = (
    "sd-mini",
    "sdxl-mini",
    "pixart-mini",
    "dit-mini",
    "sd3-mini",
    "flux-mini",
    "sd-mini-controlnet",
    "sdxl-mini-controlnet",
)


@dataclass(frozen=True)
class Family:
    """How the miniatures of one pipeline class are called: with the published pipeline's steps
    and guidance, but at ``scenes.SIZE`` pixels."""

    pipeline: str
    denoiser: Literal["unet", "transformer"]
    steps: int = 50
    guidance: float = 5.0
    subject: Literal["prompt", "class_labels"] = "prompt"
    control: bool = False
    """Whether the call takes an image of edges."""
    extra: Mapping[str, Any] = field(default_factory=dict)


_SIZE = {"height": scenes.SIZE, "width": scenes.SIZE}
FAMILIES: dict[str, Family] = {
    "sd-mini": Family("StableDiffusionPipeline", "unet"),
    "sd-mini-controlnet": Family(
        "StableDiffusionControlNetPipeline", "unet", steps=20, control=True
    ),
    "sdxl-mini": Family("StableDiffusionXLPipeline", "unet"),
    "sdxl-mini-controlnet": Family(
        "StableDiffusionXLControlNetPipeline", "unet", steps=20, control=True
    ),
    # The table of sizes that the pipeline would round to begins at 256 pixels.
    "pixart-mini": Family(
        "PixArtAlphaPipeline",
        "transformer",
        steps=20,
        guidance=4.5,
        extra={**_SIZE, "use_resolution_binning": False, "clean_caption": False},
    ),
    "dit-mini": Family("DiTPipeline", "transformer", guidance=4.0, subject="class_labels"),
    "sd3-mini": Family(
        "StableDiffusion3Pipeline",
        "transformer",
        steps=28,
        extra={**_SIZE, "max_sequence_length": networks.TOKENS},
    ),
    "flux-mini": Family(
        "FluxPipeline",
        "transformer",
        steps=28,
        guidance=3.5,
        extra={**_SIZE, "max_sequence_length": networks.TOKENS},
    ),
}


def family_of(pipeline: Any) -> Family:
    """The family of a pipeline object; raises KeyError for a class without a miniature."""
    kind = type(pipeline).__name__
    kind = {"PixArtSigmaPipeline": "PixArtAlphaPipeline"}.get(kind, kind)
    return {family.pipeline: family for family in FAMILIES.values()}[kind]


def pipeline_class(name: str) -> Any:
    """The class that opens the folder of a miniature."""
    import diffusers

    return getattr(diffusers, FAMILIES[name].pipeline)


def build_scheduler(name: str) -> Any:
    """The scheduler that a miniature is published and was trained with."""
    import diffusers

    # Stable Diffusion's schedule, and that of DiT and PixArt (their scheduler_config.json).
    scaled = {"beta_schedule": "scaled_linear", "beta_start": 0.00085, "beta_end": 0.012}
    linear = {"beta_schedule": "linear", "beta_start": 0.0001, "beta_end": 0.02}
    if name.startswith("sdxl-mini"):
        return diffusers.EulerDiscreteScheduler(
            **scaled, timestep_spacing="leading", steps_offset=1, prediction_type="v_prediction"
        )
    if name.startswith("sd-mini"):
        return diffusers.DDIMScheduler(
            **scaled,
            clip_sample=False,
            set_alpha_to_one=False,
            steps_offset=1,
            prediction_type="v_prediction",
        )
    if name == "pixart-mini":
        return diffusers.DPMSolverMultistepScheduler(**linear, prediction_type="v_prediction")
    if name == "dit-mini":
        return diffusers.DDIMScheduler(**linear, clip_sample=False, prediction_type="v_prediction")
    if name == "sd3-mini":
        return diffusers.FlowMatchEulerDiscreteScheduler(shift=3.0)
    if name == "flux-mini":
        return diffusers.FlowMatchEulerDiscreteScheduler(shift=3.0, use_dynamic_shifting=True)
    raise ValueError(f"no miniature {name!r}; there are {', '.join(NAMES)}")


def assemble(name: str, parts: Mapping[str, Any]) -> Any:
    """The pipeline of a miniature from its parts under their names in the folder; the scheduler
    is added. Raises TypeError for a part that its class does not take."""
    parts = {**parts, "scheduler": build_scheduler(name)}
    if name.startswith("sd-mini"):
        parts |= {"safety_checker": None, "feature_extractor": None}
        parts |= {"requires_safety_checker": False}
    if name.startswith("sdxl-mini"):
        parts |= {"add_watermarker": False}
    labels = {str(number): caption for number, caption in families.class_names().items()}
    if name == "dit-mini":
        parts |= {"id2label": labels}
    pipeline = pipeline_class(name)(**parts)
    if name == "dit-mini":
        pipeline.register_to_config(id2label=labels)  # the class itself would not save them
    pipeline.set_progress_bar_config(disable=True)
    return pipeline


def build_denoiser(name: str) -> Any:
    """The U-Net or transformer of a miniature with fresh weights."""
    builders = {
        "sd-mini": networks.build_unet,
        "sd-mini-controlnet": networks.build_unet,
        "sdxl-mini": families.build_sdxl_unet,
        "sdxl-mini-controlnet": families.build_sdxl_unet,
        "pixart-mini": families.build_pixart,
        "dit-mini": families.build_dit,
        "sd3-mini": families.build_sd3,
        "flux-mini": families.build_flux,
    }
    return builders[name]()


def build_pipeline(name: str, seed: int = 0) -> Any:
    """A miniature with random weights on the CPU in float32; equal seeds give equal weights.

    Raises ValueError for a name outside NAMES.
    """
    import torch

    if name not in NAMES:
        raise ValueError(f"no miniature {name!r}; there are {', '.join(NAMES)}")
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        parts = _random_parts(name)
    for part in parts.values():
        if hasattr(part, "eval"):
            part.eval()
    return assemble(name, parts)


def _random_parts(name: str) -> dict[str, Any]:
    import torch

    vae = networks.build_vae()
    if name in ("sd3-mini", "flux-mini"):
        vae.register_to_config(shift_factor=0.0)  # their pipelines add it without asking
    family = FAMILIES[name]
    parts: dict[str, Any] = {"vae": vae, family.denoiser: build_denoiser(name)}
    if name.startswith(("sd-mini", "sdxl-mini", "sd3", "flux")):
        parts |= _random_clips(name)
    if name in ("pixart-mini", "sd3-mini", "flux-mini"):
        place = {"pixart-mini": "", "flux-mini": "_2", "sd3-mini": "_3"}[name]
        tokenizer = families.build_t5_tokenizer()
        encoder = families.build_t5(tokenizer)
        parts |= {f"tokenizer{place}": tokenizer, f"text_encoder{place}": encoder}
    if family.control:
        controlnet: Any = families.build_controlnet(parts["unet"])
        # Trained from zero, but a random one has to change the picture.
        for module in controlnet.modules():
            if isinstance(module, torch.nn.Conv2d) and not module.weight.any():
                torch.nn.init.normal_(module.weight, std=0.3)
        parts["controlnet"] = controlnet
    return parts


def _random_clips(name: str) -> dict[str, Any]:
    """One CLIP text tower, or the same twice where the pipeline wants two."""
    from transformers import CLIPTextModel, CLIPTextModelWithProjection

    tokenizer = families.build_clip_tokenizer()
    config = networks.build_clip(tokenizer).config.text_config
    with_projection = CLIPTextModelWithProjection(config)
    plain = CLIPTextModel(config)
    plain.load_state_dict(with_projection.text_model.state_dict())
    if name.startswith(("sd-mini", "flux")):
        return {"tokenizer": tokenizer, "text_encoder": plain}
    first = with_projection if name == "sd3-mini" else plain
    return {
        "tokenizer": tokenizer,
        "text_encoder": first,
        "tokenizer_2": tokenizer,
        "text_encoder_2": with_projection,
    }


def trained_part(name: str, pipeline: Any) -> Any:
    """The network that a miniature's own training makes: its ControlNet or else its denoiser."""
    family = FAMILIES[name]
    return pipeline.controlnet if family.control else getattr(pipeline, family.denoiser)


def open_pipeline(name: str, folder: Path) -> Any:
    """A miniature's folder opened with its published class, in float32, without a progress bar."""
    import torch

    pipeline = pipeline_class(name).from_pretrained(folder, dtype=torch.float32)
    pipeline.set_progress_bar_config(disable=True)
    return pipeline


def arguments(pipeline: Any, captions: list[str], seeds: list[int]) -> dict[str, Any]:
    """Keywords of a call that draws each caption with its seed; steps are left to the caller.

    A ControlNet gets the edges of one scene that the caption names, placed by the seed; a
    class-to-image pipeline takes only captions with one object.
    """
    import torch

    from engine.minis import edges

    family = family_of(pipeline)
    given: dict[str, Any] = {
        "guidance_scale": family.guidance,
        "generator": [torch.Generator().manual_seed(seed) for seed in seeds],
        **family.extra,
    }
    if family.subject == "class_labels":
        return given | {"class_labels": pipeline.get_label_ids(captions)}
    if family.control:
        given["image"] = [edges.picture(c, s) for c, s in zip(captions, seeds, strict=True)]
    return given | {"prompt": captions}
