"""The three trained parts of a text-to-image miniature: autoencoder, CLIP, denoiser."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from engine.minis import damage, loop, networks, scenes
from engine.minis.loop import Schedule
from engine.minis.scenes import Scene

if TYPE_CHECKING:
    import torch
    from diffusers import AutoencoderKL, UNet2DConditionModel
    from transformers import CLIPModel, CLIPTextModel, CLIPTokenizer

KL_WEIGHT = 1e-7
"""Weight of the KL term, summed over a latent, against errors that are means over pixels. With
1e-5 the posterior's spread equalled the latents' own and colours were lost."""
EMPTY_CAPTION_SHARE = 0.1
DECODER_NOISE = 0.03
"""Noise on the latents while the decoder is refined, as a share of their spread."""
DAMAGED_FROM = 0.15
"""Noise from which an image counts as wrong in CLIP training; below it counts as right."""


@dataclass(frozen=True)
class Place:
    """Where to train: device, whether bfloat16 autocast pays there, and the working folder."""

    device: str
    half: bool
    folder: Path

    def autocast(self) -> Any:
        import torch

        return torch.autocast(self.device, torch.bfloat16, enabled=self.half)

    def checkpoint(self, stage: str) -> Path:
        return self.folder / f"{stage}.pt"


def to_tensor(images: NDArray[np.float32] | list[NDArray[np.float32]]) -> torch.Tensor:
    """Images in [0, 1], N x H x W x 3, as the networks take them: N x 3 x H x W in [-1, 1]."""
    import torch

    return (
        torch.from_numpy(np.ascontiguousarray(np.stack(list(images)))).permute(0, 3, 1, 2) * 2 - 1
    )


def train_vae(schedule: Schedule, place: Place) -> AutoencoderKL:
    """Autoencoder by L1, squared error and a light KL term; no adversary is needed for shapes."""
    import torch

    torch.manual_seed(0)
    vae = networks.build_vae().to(place.device)

    def loss_at(step: int) -> torch.Tensor:
        rng = np.random.default_rng((1, step))
        images = to_tensor([scenes.render(scenes.sample(rng)) for _ in range(schedule.batch)]).to(
            place.device
        )
        with place.autocast():
            posterior = vae.encode(images).latent_dist
            restored = vae.decode(posterior.sample()).sample.float()
        gap = restored - images
        spread: torch.Tensor = posterior.kl().mean()
        error: torch.Tensor = gap.abs().mean() + gap.square().mean()
        return error + KL_WEIGHT * spread

    loop.train(vae, loss_at, schedule, place.checkpoint("vae"), title="autoencoder")
    vae.register_to_config(scaling_factor=1.0 / _latent_spread(vae, place))
    return vae


def refine_decoder(schedule: Schedule, place: Place, vae: AutoencoderKL) -> None:
    """Train the decoder alone, in place, on nearly exact latents: the posterior's noise of the
    first stage blurs corners, and a denoiser delivers latents without it."""
    import torch

    decoder = torch.nn.ModuleList([vae.post_quant_conv, vae.decoder])
    decoder.requires_grad_(True)

    def loss_at(step: int) -> torch.Tensor:
        rng = np.random.default_rng((6, step))
        drawn = [scenes.render(scenes.sample(rng)) for _ in range(schedule.batch)]
        images = to_tensor(drawn).to(place.device)
        with torch.no_grad(), place.autocast():
            latents = vae.encode(images).latent_dist.mode().float()
            latents += DECODER_NOISE * latents.std() * torch.randn_like(latents)
        with place.autocast():
            restored = vae.decode(latents).sample.float()
        gap = restored - images
        loss: torch.Tensor = gap.abs().mean() + gap.square().mean()
        return loss

    loop.train(decoder, loss_at, schedule, place.checkpoint("decoder"), title="decoder")
    decoder.requires_grad_(False)


def _latent_spread(vae: AutoencoderKL, place: Place) -> float:
    import torch

    rng = np.random.default_rng(2)
    images = to_tensor([scenes.render(scenes.sample(rng)) for _ in range(256)]).to(place.device)
    with torch.no_grad():
        return round(float(vae.encode(images).latent_dist.sample().std()), 4)


def train_clip(
    schedule: Schedule, place: Place, tokenizer: CLIPTokenizer, vae: AutoencoderKL
) -> CLIPModel:
    """Contrastive training in which each scene stands beside two scenes with one thing wrong
    and beside a damaged picture of itself, so that nothing but the details can tell them apart.

    Half of the right pictures pass through the autoencoder: what a pipeline draws well must not
    look damaged.
    """
    import torch

    torch.manual_seed(0)
    clip = networks.build_clip(tokenizer).to(place.device)

    def loss_at(step: int) -> torch.Tensor:
        rng = np.random.default_rng((3, step))
        batch = [s for _ in range(schedule.batch) for s in _with_hard_negatives(rng)]
        right = to_tensor([_lightly_changed(scenes.render(s), rng) for s in batch])
        through = torch.from_numpy(rng.random(len(batch)) < 0.5)
        right = right.to(place.device)
        with torch.no_grad(), place.autocast():
            restored = vae.decode(vae.encode(right[through]).latent_dist.mode()).sample
        right[through] = restored.float().clamp(-1, 1)
        wrong = to_tensor([_damaged(s, rng) for s in batch[:: len(batch) // schedule.batch]])
        captions = [s.caption for s in batch]
        ids = tokenize(tokenizer, captions).to(place.device)
        with place.autocast():
            pictures = _features(
                clip.get_image_features(torch.cat([right, wrong.to(right.device)]))
            )
            texts = _features(clip.get_text_features(input_ids=ids))
            logits = (clip.logit_scale.clamp(max=4.0).exp() * texts @ pictures.T).float()
        # The same caption may come twice; only its own picture is asked for.
        same = np.equal.outer(captions, captions) & ~np.eye(len(captions), dtype=bool)
        mask = torch.from_numpy(same).to(place.device)
        logits[:, : len(batch)] = logits[:, : len(batch)].masked_fill(mask, -1e4)
        target = torch.arange(len(batch), device=place.device)
        by_text = torch.nn.functional.cross_entropy(logits, target)
        by_picture = torch.nn.functional.cross_entropy(logits[:, : len(batch)].T, target)
        return by_text + by_picture

    loop.train(clip, loss_at, schedule, place.checkpoint("clip"), title="CLIP")
    return clip


def _features(output: Any) -> torch.Tensor:
    """Normalised embeddings; transformers 5 wraps them in an output object."""
    import torch

    tensor: torch.Tensor = getattr(output, "pooler_output", output)
    return torch.nn.functional.normalize(tensor, dim=-1)


def tokenize(tokenizer: CLIPTokenizer, captions: list[str]) -> torch.Tensor:
    """Token ids, N x 16."""
    ids: torch.Tensor = tokenizer(
        captions,
        padding="max_length",
        truncation=True,
        max_length=networks.TOKENS,
        return_tensors="pt",
    ).input_ids
    return ids


def _with_hard_negatives(rng: np.random.Generator) -> list[Scene]:
    scene = scenes.sample(rng)
    kinds = list(rng.permutation(["shape", "colour", "background"]))
    if scene.relation is not None:
        kinds.insert(0, "relation")
    return [scene, *(damage.wrong_scene(scene, kind, rng) for kind in kinds[:2])]


def _lightly_changed(image: NDArray[np.float32], rng: np.random.Generator) -> NDArray[np.float32]:
    """What still counts as right: a little noise, a slight shift of all colours."""
    changed = image + rng.normal(0, 0.02, 3).astype(np.float32)
    return damage.noisy(changed, rng.uniform(0, 0.04), rng)


def _damaged(scene: Scene, rng: np.random.Generator) -> NDArray[np.float32]:
    kind = rng.random()
    if kind < 0.5:
        return damage.melted(scene, rng)
    if kind < 0.75:
        return damage.noisy(scenes.render(scene), rng.uniform(DAMAGED_FROM, 0.6), rng)
    return damage.blurred(scenes.render(scene), int(rng.integers(9, 24)))


def latent_pool(
    vae: AutoencoderKL, place: Place, count: int
) -> tuple[torch.Tensor, NDArray[np.intp], list[str]]:
    """``count`` scaled latents (N x 4 x 16 x 16, half precision), and for each the index of its
    caption in the returned list; encoded once because encoding costs more than the denoiser."""
    import torch

    rng = np.random.default_rng(4)
    captions: dict[str, int] = {}
    latents, owners = [], []
    for start in range(0, count, 64):
        batch = [scenes.sample(rng) for _ in range(min(64, count - start))]
        owners += [captions.setdefault(s.caption, len(captions)) for s in batch]
        with torch.no_grad(), place.autocast():
            images = to_tensor([scenes.render(s) for s in batch]).to(place.device)
            mode = vae.encode(images).latent_dist.mode()
        latents.append((mode.float() * vae.config.scaling_factor).half())
    return torch.cat(latents), np.asarray(owners), list(captions)


def train_unet(
    schedule: Schedule,
    place: Place,
    tokenizer: CLIPTokenizer,
    text_encoder: CLIPTextModel,
    vae: AutoencoderKL,
    pool: int,
    snapshot: Callable[[int], None] | None = None,
) -> UNet2DConditionModel:
    """Denoiser by v-prediction (Salimans and Ho 2022, appendix D) over SD's noise schedule."""
    import torch

    latents, owners, captions = latent_pool(vae, place, pool)
    with torch.no_grad():
        embeddings = torch.cat(
            [
                text_encoder(tokenize(tokenizer, part).to(place.device))[0]
                for part in ([""], *chunks(captions, 256))
            ]
        )
    betas = torch.linspace(0.00085**0.5, 0.012**0.5, 1000, device=place.device) ** 2
    kept = torch.cumprod(1 - betas, 0)
    torch.manual_seed(0)
    unet: Any = networks.build_unet()
    unet = unet.to(place.device, memory_format=torch.channels_last)

    def loss_at(step: int) -> torch.Tensor:
        generator = torch.Generator().manual_seed(1_000_003 * 5 + step)
        rng = np.random.default_rng((5, step))
        rows = rng.integers(len(owners), size=schedule.batch)
        caption = torch.from_numpy(owners[rows] + 1)
        caption[torch.from_numpy(rng.random(schedule.batch) < EMPTY_CAPTION_SHARE)] = 0
        clean = latents[torch.from_numpy(rows)].float()
        noise = torch.randn(clean.shape, generator=generator).to(place.device)
        times = torch.randint(0, 1000, (schedule.batch,), generator=generator).to(place.device)
        signal = kept[times].sqrt().view(-1, 1, 1, 1)
        spread = (1 - kept[times]).sqrt().view(-1, 1, 1, 1)
        noisy = signal * clean + spread * noise
        with place.autocast(), attention_in_float32(place):
            guess = unet(noisy, times, embeddings[caption.to(place.device)]).sample
        gap: torch.Tensor = guess.float() - (signal * noise - spread * clean)
        return gap.square().mean()

    loop.train(unet, loss_at, schedule, place.checkpoint("unet"), title="U-Net", snapshot=snapshot)
    return unet


@contextlib.contextmanager
def attention_in_float32(place: Place) -> Iterator[None]:
    """Attention outside autocast on a CPU, whose bfloat16 backward kernel takes 3.5 times as long
    as the float32 one (248 against 72 ms of a 0.6 s step on a 2-core EPYC with AVX512-BF16)."""
    import torch
    from torch.nn import functional

    if place.device != "cpu" or not place.half:
        yield
        return
    original: Any = functional.scaled_dot_product_attention

    def attention(query: Any, key: Any, value: Any, **options: Any) -> Any:
        with torch.autocast("cpu", enabled=False):
            wide = original(query.float(), key.float(), value.float(), **options)
        return wide.to(query.dtype)

    functional.scaled_dot_product_attention = attention  # type: ignore[assignment]
    try:
        yield
    finally:
        functional.scaled_dot_product_attention = original


def chunks(values: list[str], size: int) -> list[list[str]]:
    return [values[i : i + size] for i in range(0, len(values), size)]
