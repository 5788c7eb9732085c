"""Train a miniature and write its folder: ``python -m engine.minis.train dit-mini preset=cpu``.

Resumable: the same command goes on where the last one stopped (checkpoints lie under
``outputs/train/<name>``). ``preset=gpu`` trains longer; ``out=FOLDER`` writes elsewhere than
into the repository. All but sd-mini build upon the shipped autoencoder and CLIP, ControlNets upon
their U-Net, SD3 and FLUX upon PixArt's T5; ``preset=random`` leaves their denoiser untrained.
"""

from __future__ import annotations

import json
import platform
import sys
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from engine.errors import UsageError
from engine.hardware import processor_name, usable_cores
from engine.minis import denoisers, folders, judge, loop, networks, pipelines, stages
from engine.minis.loop import Schedule
from engine.minis.pipelines import NAMES
from engine.minis.stages import Place

if TYPE_CHECKING:
    import torch
    from diffusers import AutoencoderKL, StableDiffusionPipeline, UNet2DConditionModel
    from transformers import CLIPModel, CLIPTokenizer

ROOT = Path(__file__).resolve().parents[2]
CHECKPOINTS = Path(__file__).parent / "checkpoints"


@dataclass(frozen=True)
class Preset:
    """Training lengths of one kind of machine; ``pool`` is the number of encoded scenes."""

    vae: Schedule
    decoder: Schedule
    clip: Schedule
    unet: Schedule
    pool: int
    captions: int = 300
    """Held-out captions on which the model card's scores are measured."""


PRESETS = {
    "cpu": Preset(
        vae=Schedule(steps=2000, batch=16, rate=2e-3),
        decoder=Schedule(steps=800, batch=16, rate=1e-3),
        clip=Schedule(steps=2000, batch=32, rate=1e-3),
        unet=Schedule(steps=3200, batch=48, rate=8e-4, average=0.999),
        pool=24_000,
    ),
    "gpu": Preset(
        vae=Schedule(steps=6000, batch=32, rate=1e-3),
        decoder=Schedule(steps=3000, batch=32, rate=1e-3),
        clip=Schedule(steps=8000, batch=64, rate=1e-3),
        unet=Schedule(steps=40_000, batch=128, rate=8e-4, average=0.9995),
        pool=100_000,
    ),
    # For tests of the machinery: a minute of training that draws nothing recognisable.
    "smoke": Preset(
        vae=Schedule(steps=3, batch=2, rate=1e-3),
        decoder=Schedule(steps=3, batch=2, rate=1e-3),
        clip=Schedule(steps=3, batch=2, rate=1e-3),
        unet=Schedule(steps=3, batch=2, rate=1e-3, average=0.9),
        pool=64,
        captions=20,
    ),
}
RANDOM = "random"


def train_sd_mini(preset: Preset, place: Place, out: Path) -> dict[str, float]:
    """Train all parts, write the pipeline's folder and return each part's training seconds."""
    from transformers import CLIPTextModel

    tokenizer = networks.build_tokenizer(place.folder / "tokenizer")
    vae = stages.train_vae(preset.vae, place).eval().requires_grad_(False)
    stages.refine_decoder(preset.decoder, place, vae)
    clip = stages.train_clip(preset.clip, place, tokenizer, vae).eval().requires_grad_(False)
    text_encoder = CLIPTextModel(clip.config.text_config)
    text_encoder.load_state_dict(_text_part(clip, text_encoder))
    text_encoder = text_encoder.to(place.device).eval().requires_grad_(False)

    def snapshot(step: int) -> None:
        _write_samples(
            assemble(tokenizer, text_encoder, vae, unet_now()),
            place.folder / f"unet-{step:06d}.png",
        )

    def unet_now() -> UNet2DConditionModel:
        import torch

        unet = networks.build_unet()
        state = torch.load(place.checkpoint("unet"), weights_only=True, map_location="cpu")
        unet.load_state_dict(state["module"] | state["mean"])
        return unet.to(place.device)

    unet = stages.train_unet(
        preset.unet, place, tokenizer, text_encoder, vae, preset.pool, snapshot
    )
    pipeline = assemble(tokenizer, text_encoder, vae, unet)
    _save_half(pipeline, clip, out)
    return {s: loop.seconds_spent(place.checkpoint(s)) for s in ("vae", "decoder", "clip", "unet")}


def _text_part(clip: CLIPModel, text_encoder: Any) -> dict[str, torch.Tensor]:
    """The text tower's weights under the names that a lone text encoder uses."""
    wanted = text_encoder.state_dict()
    found = {}
    for name, value in clip.state_dict().items():
        for key in (name, name.removeprefix("text_model.")):
            if key in wanted and name.startswith("text_model."):
                found[key] = value
    missing = sorted(set(wanted) - set(found))
    if missing:
        raise RuntimeError(f"the CLIP lacks weights of the text encoder: {missing[:3]}")
    return found


def assemble(
    tokenizer: CLIPTokenizer, text_encoder: Any, vae: AutoencoderKL, unet: UNet2DConditionModel
) -> StableDiffusionPipeline:
    """A plain pipeline with DDIM, the published default of the paper's baselines."""
    parts = {"tokenizer": tokenizer, "text_encoder": text_encoder, "vae": vae, "unet": unet}
    pipeline: StableDiffusionPipeline = pipelines.assemble("sd-mini", parts)
    return pipeline


SAMPLE_CAPTIONS = (
    "a red circle on a white background",
    "a blue triangle on a gray background",
    "a yellow ring on a black background",
    "a green square on a white background",
    "a purple circle left of a cyan square on a gray background",
    "a red triangle above a blue ring on a white background",
    "a green ring right of a yellow circle on a black background",
    "a cyan square below a purple triangle on a white background",
)
CLASS_CAPTIONS = (
    "a purple circle on a gray background",
    "a cyan square on a black background",
    "a red ring on a white background",
    "a green triangle on a black background",
)


def _write_samples(pipeline: Any, path: Path) -> None:
    from PIL import Image

    captions = list(SAMPLE_CAPTIONS)
    if pipelines.family_of(pipeline).subject == "class_labels":
        captions = [*captions[:4], *CLASS_CAPTIONS]
    sheet = Image.new("RGB", (4 * 64, 2 * 64))
    for index, image in enumerate(judge.draw(pipeline, captions, 20)):
        sheet.paste(Image.fromarray(image), (index % 4 * 64, index // 4 * 64))
    sheet.resize((4 * 192, 2 * 192), Image.Resampling.NEAREST).save(path)


def _save_half(pipeline: StableDiffusionPipeline, clip: CLIPModel, out: Path) -> None:
    """Write the pipeline, and the CLIP that scores it beside it, in fp16."""
    import torch

    pipeline.to("cpu", torch.float16).save_pretrained(out, safe_serialization=True)
    scorer = out.parent / "clip"
    clip.to("cpu", torch.float16).save_pretrained(scorer)
    pipeline.tokenizer.save_pretrained(scorer)


def main(arguments: list[str]) -> int:
    options = {"preset": "cpu", "out": "", "work": ""}
    names = [a for a in arguments if "=" not in a]
    given = dict(a.split("=", 1) for a in arguments if "=" in a)
    unknown = sorted(set(given) - set(options))
    if len(names) != 1 or names[0] not in NAMES or unknown:
        print(
            f"usage: python -m engine.minis.train {{{','.join(NAMES)}}} "
            f"[preset={'|'.join([*PRESETS, RANDOM])}] [out=FOLDER] [work=FOLDER]",
            file=sys.stderr,
        )
        return 2
    options |= given
    # The U-Net of sd-mini is trained with the parts that all others share.
    allowed = [*PRESETS] if names[0] == "sd-mini" else [*PRESETS, RANDOM]
    if options["preset"] not in allowed:
        print(
            f"preset={options['preset']} is unknown; presets of {names[0]} are "
            f"{', '.join(allowed)}",
            file=sys.stderr,
        )
        return 2
    try:
        return _run(names[0], options)
    except UsageError as error:
        print(error, file=sys.stderr)
        return 2


def _run(name: str, options: dict[str, str]) -> int:
    import torch

    from engine.hardware import fast_dtypes
    from engine.minis import card

    device = "cuda" if torch.cuda.is_available() else "cpu"
    work = Path(options["work"] or ROOT / "outputs" / "train" / f"{name}-{options['preset']}")
    out = Path(options["out"] or CHECKPOINTS / name)
    # sd-mini's presets stand here, and random weights have none.
    preset_beside = denoisers.PRESETS.get(name, {}).get(options["preset"])
    half = "bfloat16" in fast_dtypes(device) and (preset_beside is None or preset_beside.half)
    place = Place(device, half, work)
    print(
        f"training {name}, preset {options['preset']}, on {device} "
        f"({'bfloat16' if place.half else 'float32'}); work folder {work}",
        flush=True,
    )
    if name == "sd-mini":
        preset = PRESETS[options["preset"]]
        seconds = train_sd_mini(preset, place, out)
        training: dict[str, Any] = {"captions": preset.captions}
        training |= {"schedules": asdict(preset), "seconds": seconds}
    else:
        training = _train_beside(name, options["preset"], place, out)
    training = {
        "name": name,
        "preset": options["preset"],
        **training,
        "device": _machine(device),
        "bfloat16": place.half,
        "torch": torch.__version__,
        "python": platform.python_version(),
    }
    _write_samples(pipelines.open_pipeline(name, out), out / "samples.png")
    (out / "training.json").write_text(json.dumps(training, indent=1) + "\n")
    card.write(out)
    print(f"wrote {out}")
    return 0


def _machine(device: str) -> str:
    import torch

    if device == "cuda":
        return torch.cuda.get_device_name()
    return f"{processor_name()}, {torch.get_num_threads()} of {usable_cores()} cores"


def _train_beside(name: str, preset_name: str, place: Place, out: Path) -> dict[str, Any]:
    """Train (or with RANDOM only build) what is no sd-mini and write its pipeline; returns what
    belongs in training.json."""
    if preset_name == RANDOM:
        pipeline = denoisers.untrained(name, place, CHECKPOINTS)
        folders.write(name, pipeline, out, CHECKPOINTS)
        return {"random": True}
    preset = denoisers.PRESETS[name][preset_name]
    pipeline, seconds = denoisers.train(name, preset, place, CHECKPOINTS, _write_samples)
    trained = [pipelines.trained_part(name, pipeline)]
    schedules = {"denoiser": asdict(preset.denoiser)}
    if preset.reading is not None:
        schedules["text encoder"] = asdict(preset.reading)
        trained.append(pipeline.text_encoder)
    folders.write(name, pipeline, out, CHECKPOINTS)
    return {
        "random": False,
        "captions": preset.captions,
        "pool": preset.pool,
        "parameters": sum(value.numel() for part in trained for value in part.parameters()),
        "schedules": schedules,
        "seconds": seconds,
    }


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
