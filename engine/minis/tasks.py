"""What each miniature beside sd-mini learns: which module trains, on which condition, to say what.

Only denoisers, ControlNets and PixArt's T5 are new; the autoencoder, the CLIP and its tokenizer
are the shipped ones and stay as they are.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from numpy.typing import NDArray

from engine.minis import conditions, edges, families, networks, pipelines
from engine.minis.scenes import Scene
from engine.minis.stages import Place

if TYPE_CHECKING:
    import torch

    Tensors = dict[str, torch.Tensor]


@dataclass(frozen=True)
class Shared:
    """The parts that all miniatures have in common, in float32, frozen."""

    vae: Any
    tokenizer: Any
    text: Any
    """The CLIP's text tower with its projection; ``text.text_model`` is the tower alone."""


@dataclass(frozen=True)
class Task:
    """One training: ``predict(noisy, times, rows)`` is the denoiser on a batch.

    ``table`` has a row for every caption, row 0 is that of an empty one; ``extra(indices)`` gives
    what belongs to single scenes of the pool; ``parts(module)`` are the pipeline's parts.
    """

    module: Any
    table: Tensors
    predict: Callable[[torch.Tensor, torch.Tensor, Tensors], torch.Tensor]
    target: Literal["v", "flow"]
    parts: Callable[[Any], dict[str, Any]]
    extra: Callable[[NDArray[np.intp]], Tensors] | None = None
    extra_loss: Callable[[torch.Tensor, torch.Tensor, Tensors], torch.Tensor] | None = None
    """A further loss of the prediction just made, from the same arguments."""


def load_shared(checkpoints: Path, place: Place) -> Shared:
    """The shipped autoencoder and CLIP."""
    import torch
    from diffusers import AutoencoderKL
    from transformers import CLIPModel, CLIPTextModelWithProjection, CLIPTokenizer

    vae = AutoencoderKL.from_pretrained(checkpoints / "sd-mini" / "vae", dtype=torch.float32)
    whole = CLIPModel.from_pretrained(checkpoints / "clip", dtype=torch.float32)
    text = CLIPTextModelWithProjection(whole.config.text_config)
    own = text.state_dict()
    text.load_state_dict({n: v for n, v in whole.state_dict().items() if n in own})
    for part in (vae, text):
        part.to(place.device).eval().requires_grad_(False)
    return Shared(vae, CLIPTokenizer.from_pretrained(checkpoints / "sd-mini" / "tokenizer"), text)


def build(
    name: str, shared: Shared, pool: list[Scene], captions: list[str], place: Place, root: Path
) -> Task:
    """The task of a miniature on a pool of scenes; ``root`` holds what was trained before it."""
    if name == "sdxl-mini":
        return _sdxl(shared, captions, place)
    if name.endswith("-controlnet"):
        return _controlnet(name, shared, pool, captions, place, root)
    if name == "pixart-mini":
        return _pixart(shared, captions, place, root)
    if name == "dit-mini":
        return _dit(shared, captions, place)
    return _flow(name, shared, captions, place, root)


def _placed(module: Any, place: Place) -> Any:
    """On its device, in evaluation mode: nothing here has dropout but DiT's class tables, and
    there every block drops on its own, so that no batch would ever be without a class."""
    import torch

    return module.to(place.device, memory_format=torch.channels_last).eval()


def _frozen_unet(name: str, place: Place, root: Path) -> Any:
    """The U-Net of a miniature as it was trained."""
    import torch
    from diffusers import UNet2DConditionModel

    unet = UNet2DConditionModel.from_pretrained(root / name / "unet", dtype=torch.float32)
    return _placed(unet, place).requires_grad_(False)


def _clip_parts(shared: Shared) -> dict[str, Any]:
    return {
        "vae": shared.vae,
        "tokenizer": shared.tokenizer,
        "text_encoder": shared.text.text_model,
    }


def _sdxl_parts(shared: Shared) -> dict[str, Any]:
    second = {"tokenizer_2": shared.tokenizer, "text_encoder_2": shared.text}
    return _clip_parts(shared) | second


def _sdxl(shared: Shared, captions: list[str], place: Place) -> Task:
    """By v-prediction, which the class allows and which drew best at this size (sd-mini)."""
    unet = _placed(families.build_sdxl_unet(), place)

    def predict(noisy: torch.Tensor, times: torch.Tensor, rows: Tensors) -> torch.Tensor:
        guess: torch.Tensor = unet(noisy, times, **conditions.sdxl_words(rows)).sample
        return guess

    return Task(
        module=unet,
        table=conditions.sdxl_table(shared, captions, place),
        predict=predict,
        target="v",
        parts=lambda module: {**_sdxl_parts(shared), "unet": module},
    )


def _controlnet(
    name: str,
    shared: Shared,
    pool: list[Scene],
    captions: list[str],
    place: Place,
    root: Path,
) -> Task:
    """The U-Net as it was trained, frozen; the ControlNet starts from its encoder and learns the
    place of things from their edges."""
    import torch

    base = name.removesuffix("-controlnet")
    unet = _frozen_unet(base, place, root)
    controlnet: Any = families.build_controlnet(unet)
    families.copy_encoder(controlnet, unet)
    controlnet = _placed(controlnet, place)
    wide = base == "sdxl-mini"
    clip = conditions.clip_table(shared, captions, place)

    def predict(noisy: torch.Tensor, times: torch.Tensor, rows: Tensors) -> torch.Tensor:
        given: Any = (
            conditions.sdxl_words(rows) if wide else {"encoder_hidden_states": rows["words"]}
        )
        down, mid = controlnet(
            noisy, times, controlnet_cond=rows["edges"], return_dict=False, **given
        )
        guess: torch.Tensor = unet(
            noisy,
            times,
            down_block_additional_residuals=down,
            mid_block_additional_residual=mid,
            **given,
        ).sample
        return guess

    def extra(indices: NDArray[np.intp]) -> Tensors:
        lines = np.stack([edges.of(pool[i]) for i in indices]).transpose(0, 3, 1, 2)
        return {"edges": torch.from_numpy(np.ascontiguousarray(lines)).to(place.device)}

    own = _sdxl_parts(shared) if wide else _clip_parts(shared)
    return Task(
        module=controlnet,
        table=conditions.sdxl_table(shared, captions, place) if wide else {"words": clip["last"]},
        predict=predict,
        target="v",
        parts=lambda module: {**own, "unet": unet, "controlnet": module},
        extra=extra,
    )


def quiet(transformer: Any) -> Any:
    """A transformer whose blocks and output begin at zero (Peebles and Xie 2023, section 3.2);
    deep and untrained, it would first have to unlearn its own noise.

    The learned variance (the upper half of the output) stays at zero, the middle of its range:
    the pipelines of DiT and PixArt cut it off before the sampler, so no loss could teach it
    anything that a picture shows.
    """
    import torch

    for name, module in transformer.named_modules():
        silent = name.endswith(("norm1.linear", "adaln_single.linear", "attn2.to_out.0"))
        if silent or name in ("proj_out", "proj_out_1", "proj_out_2"):
            torch.nn.init.zeros_(module.weight)
            torch.nn.init.zeros_(module.bias)
    return transformer


def _pixart(shared: Shared, captions: list[str], place: Place, root: Path) -> Task:
    """The transformer on the words of its T5, which learned to read before and stays as it is, as
    in the published recipe (Chen et al. 2023, arXiv 2310.00426); by v-prediction, aligned with
    sdxl-mini's U-Net."""
    import torch

    from engine.minis.alignment import Alignment

    tokenizer = families.build_t5_tokenizer()
    transformer = quiet(families.build_pixart())
    unet = _frozen_unet("sdxl-mini", place, root)
    alignment = Alignment(
        transformer,
        unet,
        lambda noisy, times, rows: unet(noisy, times, **conditions.sdxl_words(rows)),
        pipelines.build_scheduler("pixart-mini").alphas_cumprod,
        pipelines.build_scheduler("sdxl-mini").alphas_cumprod,
    )
    module = torch.nn.ModuleDict(
        {
            "transformer": transformer,
            "text_encoder": families.build_t5(tokenizer),
            "heads": alignment.heads,
        }
    )
    module = _placed(module, place)

    def predict(noisy: torch.Tensor, times: torch.Tensor, rows: Tensors) -> torch.Tensor:
        with torch.no_grad():
            words = module["text_encoder"](rows["ids"], attention_mask=rows["mask"])[0]
        guess: torch.Tensor = module["transformer"](
            noisy,
            encoder_hidden_states=words,
            encoder_attention_mask=rows["mask"],
            timestep=times,
            added_cond_kwargs={"resolution": None, "aspect_ratio": None},
        ).sample
        return guess[:, : families.CHANNELS]

    return Task(
        module=module,
        table=conditions.t5_table(tokenizer, captions, place)
        | conditions.sdxl_table(shared, captions, place),
        predict=predict,
        target="v",
        parts=lambda m: {
            "vae": shared.vae,
            "tokenizer": tokenizer,
            "text_encoder": m["text_encoder"],
            "transformer": m["transformer"],
        },
        extra_loss=alignment.loss,
    )


def _dit(shared: Shared, captions: list[str], place: Place) -> Task:
    """By v-prediction; the class without a meaning stands in row 0."""
    import torch

    transformer = _placed(quiet(families.build_dit()), place)
    numbers = {caption: number for number, caption in families.class_names().items()}
    classes = [families.NULL_CLASS, *(numbers[caption] for caption in captions)]

    def predict(noisy: torch.Tensor, times: torch.Tensor, rows: Tensors) -> torch.Tensor:
        guess: torch.Tensor = transformer(
            noisy, timestep=times, class_labels=rows["classes"]
        ).sample
        return guess[:, : families.CHANNELS]

    return Task(
        module=transformer,
        table={"classes": torch.tensor(classes, device=place.device)},
        predict=predict,
        target="v",
        parts=lambda module: {"vae": shared.vae, "transformer": module},
    )


def _flow(name: str, shared: Shared, captions: list[str], place: Place, root: Path) -> Task:
    """Stable Diffusion 3 and FLUX by rectified flow, with the T5 that PixArt's training left."""
    import torch
    from transformers import T5EncoderModel, T5Tokenizer

    folder = root / "pixart-mini"
    t5: Any = T5EncoderModel.from_pretrained(folder / "text_encoder", dtype=torch.float32)
    t5 = t5.to(place.device).eval().requires_grad_(False)
    tokenizer = T5Tokenizer.from_pretrained(folder / "tokenizer")
    clip = conditions.clip_table(shared, captions, place)
    ids = conditions.t5_table(tokenizer, captions, place)["ids"]
    with torch.no_grad():  # without a mask, as both pipelines call it
        words = torch.cat([t5(part)[0] for part in ids.split(256)])
    if name == "sd3-mini":
        both = torch.cat([clip["hidden"]] * 2, dim=-1)
        table = {"words": torch.cat([both, words], 1)}
        table["pooled"] = torch.cat([clip["projected"]] * 2, -1)
    else:
        table = {"words": words, "pooled": clip["pooled"]}
    model = _placed(pipelines.build_denoiser(name), place)
    predict = _sd3_call(model) if name == "sd3-mini" else _flux_call(model)

    def parts(module: Any) -> dict[str, Any]:
        shared.vae.register_to_config(shift_factor=0.0)
        own = {"vae": shared.vae, "transformer": module}
        if name == "flux-mini":
            second = {"text_encoder_2": t5, "tokenizer_2": tokenizer}
            return own | _clip_parts(shared) | second
        first = {"text_encoder": shared.text}
        third = {"text_encoder_3": t5, "tokenizer_3": tokenizer}
        return own | _sdxl_parts(shared) | first | third

    return Task(model, table, predict, "flow", parts)


def _sd3_call(model: Any) -> Callable[[Any, Any, Tensors], torch.Tensor]:
    def predict(noisy: torch.Tensor, times: torch.Tensor, rows: Tensors) -> torch.Tensor:
        guess: torch.Tensor = model(
            hidden_states=noisy,
            timestep=times,
            encoder_hidden_states=rows["words"],
            pooled_projections=rows["pooled"],
        ).sample
        return guess

    return predict


def _flux_call(model: Any) -> Callable[[Any, Any, Tensors], torch.Tensor]:
    """FLUX on packed latents; its guidance is told at random, because nothing was distilled."""
    import torch
    from diffusers import FluxPipeline

    side = networks.LATENT

    def predict(noisy: torch.Tensor, times: torch.Tensor, rows: Tensors) -> torch.Tensor:
        count, dtype = len(noisy), noisy.dtype
        packed = FluxPipeline._pack_latents(noisy, count, families.CHANNELS, side, side)
        places = FluxPipeline._prepare_latent_image_ids(
            count, side // 2, side // 2, noisy.device, dtype
        )
        guess = model(
            hidden_states=packed,
            timestep=times / 1000,
            guidance=1 + 5 * torch.rand(count, device=noisy.device),
            pooled_projections=rows["pooled"],
            encoder_hidden_states=rows["words"],
            txt_ids=torch.zeros(rows["words"].shape[1], 3, device=noisy.device),
            img_ids=places,
        ).sample
        whole: torch.Tensor = FluxPipeline._unpack_latents(guess, 4 * side, 4 * side, 4)
        return whole

    return predict
