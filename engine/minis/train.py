"""Train a miniature and write its folder: ``python -m engine.minis.train sd-mini preset=cpu``.

Resumable: the same command goes on where the last one stopped (checkpoints lie under
``outputs/train/<name>``). ``preset=gpu`` trains longer; ``out=FOLDER`` writes elsewhere than
into the repository.
"""

from __future__ import annotations

import json
import platform
import sys
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from engine.minis import loop, networks, stages
from engine.minis.loop import Schedule
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
NAMES = ("sd-mini",)


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
    from diffusers import DDIMScheduler, StableDiffusionPipeline

    scheduler = DDIMScheduler(
        beta_schedule="scaled_linear",
        beta_start=0.00085,
        beta_end=0.012,
        clip_sample=False,
        set_alpha_to_one=False,
        steps_offset=1,
        prediction_type="v_prediction",
    )
    pipeline = StableDiffusionPipeline(
        vae=vae,
        text_encoder=text_encoder,
        tokenizer=tokenizer,
        unet=unet,
        scheduler=scheduler,
        safety_checker=None,
        feature_extractor=None,
        requires_safety_checker=False,
    )
    pipeline.set_progress_bar_config(disable=True)
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


def _write_samples(pipeline: StableDiffusionPipeline, path: Path) -> None:
    import torch
    from PIL import Image

    generators = [torch.Generator().manual_seed(i) for i in range(len(SAMPLE_CAPTIONS))]
    images = pipeline(
        list(SAMPLE_CAPTIONS), num_inference_steps=20, guidance_scale=5.0, generator=generators
    ).images
    sheet = Image.new("RGB", (4 * 64, 2 * 64))
    for index, image in enumerate(images):
        sheet.paste(image, (index % 4 * 64, index // 4 * 64))
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
            f"[preset={'|'.join(PRESETS)}] [out=FOLDER] [work=FOLDER]",
            file=sys.stderr,
        )
        return 2
    options |= given
    if options["preset"] not in PRESETS:
        print(
            f"preset={options['preset']} is unknown; presets are {', '.join(PRESETS)}",
            file=sys.stderr,
        )
        return 2
    return _run(names[0], options)


def _run(name: str, options: dict[str, str]) -> int:
    import torch
    from diffusers import StableDiffusionPipeline

    from engine.hardware import fast_dtypes
    from engine.minis import card

    preset = PRESETS[options["preset"]]
    device = "cuda" if torch.cuda.is_available() else "cpu"
    work = Path(options["work"] or ROOT / "outputs" / "train" / f"{name}-{options['preset']}")
    out = Path(options["out"] or CHECKPOINTS / name)
    place = Place(device, "bfloat16" in fast_dtypes(device), work)
    print(
        f"training {name}, preset {options['preset']}, on {device} "
        f"({'bfloat16' if place.half else 'float32'}); work folder {work}",
        flush=True,
    )
    seconds = train_sd_mini(preset, place, out)
    training = {
        "preset": options["preset"],
        "schedules": asdict(preset),
        "seconds": seconds,
        "device": device,
        "bfloat16": place.half,
        "torch": torch.__version__,
        "python": platform.python_version(),
    }
    whole: Any = StableDiffusionPipeline.from_pretrained(out, dtype=torch.float32)
    whole.set_progress_bar_config(disable=True)
    _write_samples(whole, out / "samples.png")
    (out / "training.json").write_text(json.dumps(training, indent=1) + "\n")
    card.write(out, preset.captions)
    print(f"wrote {out}")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
