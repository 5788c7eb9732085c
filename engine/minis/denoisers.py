"""Training of a miniature beside sd-mini: one denoiser on the shipped autoencoder and CLIP."""

from __future__ import annotations

import copy
import hashlib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from engine.files import replacing
from engine.minis import conditions, loop, pipelines, scenes, tasks
from engine.minis.loop import Schedule
from engine.minis.scenes import Scene
from engine.minis.stages import EMPTY_CAPTION_SHARE, Place, attention_in_float32, to_tensor
from engine.minis.tasks import Shared, Task

if TYPE_CHECKING:
    import torch

READING_BATCH = 256


@dataclass(frozen=True)
class Preset:
    """Training lengths on one kind of machine; ``pool`` is the number of encoded scenes."""

    denoiser: Schedule
    pool: int
    reading: Schedule | None = None
    """PixArt's T5 alone, before the transformer learns from it."""
    captions: int = 300
    """Held-out captions on which the model card's scores are measured."""
    half: bool = True
    """Whether bfloat16 may be used where it is fast; it costs narrow layers more than it gives."""


def _presets(
    steps: int,
    batch: int,
    rate: float,
    reading: int = 0,
    pool: int = 20_000,
    captions: int = 300,
    matrices: float = 0.0,
    half: bool = True,
) -> dict[str, Preset]:
    """The three presets of a miniature; ``steps``, ``batch`` and ``half`` are for a CPU."""

    def words(count: int, size: int) -> Schedule | None:
        return Schedule(count, size, 2e-3) if reading else None

    return {
        "cpu": Preset(
            Schedule(steps, batch, rate, average=0.998, matrices=matrices),
            pool,
            words(reading, READING_BATCH),
            captions,
            half,
        ),
        "gpu": Preset(
            Schedule(30_000, 256, rate, average=0.9995, matrices=matrices),
            100_000,
            words(4000, READING_BATCH),
            captions,
        ),
        # For tests of the machinery: seconds of training that draw nothing recognisable.
        "smoke": Preset(
            Schedule(3, 2, 1e-3, average=0.9, matrices=matrices), 64, words(3, 8), captions=20
        ),
    }


PRESETS: dict[str, dict[str, Preset]] = {
    "dit-mini": _presets(10_000, 64, 2e-3, pool=12_000),
    "pixart-mini": _presets(8000, 32, 1.5e-3, reading=500, matrices=0.02, half=False),
    "sdxl-mini": _presets(7000, 64, 2e-3),
    # A control image takes the U-Net's time too, in training and on the card.
    "sd-mini-controlnet": _presets(400, 32, 1e-3, captions=100),
    "sdxl-mini-controlnet": _presets(400, 32, 1e-3, captions=100),
    "sd3-mini": _presets(4000, 64, 2e-3),
    "flux-mini": _presets(4000, 64, 2e-3),
}


def pool_scenes(name: str, count: int) -> list[Scene]:
    """The scenes of a training. A class-to-image model knows only the 72 scenes with one object,
    and all of them: a class that was never trained has no meaning that it could be asked for."""
    rng = np.random.default_rng(8 if name == "dit-mini" else 4)
    if name != "dit-mini":
        return [scenes.sample(rng) for _ in range(count)]
    captions = scenes.captions(1)
    drawn = []
    for index in range(count):
        scene = scenes.parse(captions[index % len(captions)])
        assert scene is not None
        drawn.append(scenes.placed(scene, rng))
    return drawn


def encoded(
    pool: list[Scene], shared: Shared, place: Place, cache: Path
) -> tuple[torch.Tensor, NDArray[np.intp], list[str]]:
    """Scaled latents (N x 4 x 16 x 16, half precision), the index of each one's caption, and the
    captions. Kept under ``cache``, where the next training with the same scenes finds them."""
    import torch

    captions: dict[str, int] = {}
    owners = np.asarray([captions.setdefault(s.caption, len(captions)) for s in pool])
    digest = hashlib.sha256(repr(pool).encode())
    for value in shared.vae.state_dict().values():
        digest.update(value.cpu().numpy().tobytes())
    file = cache / f"latents-{digest.hexdigest()[:16]}.pt"
    if file.exists():
        latents = torch.load(file, weights_only=True, map_location=place.device)
        return latents, owners, list(captions)
    parts = []
    for start in range(0, len(pool), 64):
        images = to_tensor([scenes.render(s) for s in pool[start : start + 64]]).to(place.device)
        with torch.no_grad(), place.autocast():
            mode = shared.vae.encode(images).latent_dist.mode()
        parts.append((mode.float() * shared.vae.config.scaling_factor).half())
    latents = torch.cat(parts)
    with replacing(file) as partial:
        torch.save(latents.cpu(), partial)
    return latents, owners, list(captions)


def untrained(name: str, place: Place, checkpoints: Path) -> Any:
    """The pipeline of a miniature whose own network was not trained and whose shared parts are
    the shipped ones.

    A denoiser has random weights, not the silent ones that a training starts from: its images
    must change with its input. A ControlNet is as a training starts it: it changes nothing yet.
    """
    import torch

    torch.manual_seed(0)
    task = tasks.build(name, tasks.load_shared(checkpoints, place), [], [], place, checkpoints)
    parts = task.parts(task.module)
    family = pipelines.FAMILIES[name]
    if not family.control:
        parts[family.denoiser] = pipelines.build_denoiser(name).eval()
    return pipelines.assemble(name, parts)


def train(
    name: str,
    preset: Preset,
    place: Place,
    checkpoints: Path,
    snapshot: Callable[[Any, Path], None] | None = None,
) -> tuple[Any, dict[str, float]]:
    """Train a miniature; returns its pipeline and each stage's training seconds.

    ``checkpoints`` holds the shared parts, and the U-Net or T5 that this one builds upon;
    ``snapshot(pipeline, file)`` draws what has been learned so far.
    """
    import torch

    shared = tasks.load_shared(checkpoints, place)
    pool = pool_scenes(name, preset.pool)
    latents, owners, captions = encoded(pool, shared, place, place.folder.parent / "latents")
    torch.manual_seed(0)
    task = tasks.build(name, shared, pool, captions, place, checkpoints)
    seconds = {}
    if preset.reading is not None:
        _teach_reading(preset.reading, task, shared, captions, place)
        seconds["text encoder"] = loop.seconds_spent(place.checkpoint("reading"))
    loss_at = _loss(name, task, latents, owners, preset.denoiser.batch, place)

    def now(step: int) -> None:
        if snapshot is not None:
            state = torch.load(place.checkpoint("denoiser"), weights_only=True)
            module = copy.deepcopy(task.module)
            module.load_state_dict(state["module"] | state["mean"])
            pipeline = pipelines.assemble(name, task.parts(module))
            snapshot(pipeline, place.folder / f"{step:06d}.png")

    file = place.checkpoint("denoiser")
    loop.train(task.module, loss_at, preset.denoiser, file, title=name, snapshot=now)
    seconds["denoiser"] = loop.seconds_spent(file)
    return pipelines.assemble(name, task.parts(task.module)), seconds


def _teach_reading(
    schedule: Schedule, task: Task, shared: Shared, captions: list[str], place: Place
) -> None:
    """Train PixArt's T5, in place, to tell at each word what the CLIP tells there.

    Both tokenizers give each word one token (the CLIP's begin with one more), and the CLIP knows
    which colour belongs to which shape; the denoiser would have to teach that from the pictures.
    """
    import torch

    clip = conditions.clip_table(shared, captions, place)["last"]
    text_encoder = task.module["text_encoder"]
    head = torch.nn.Linear(text_encoder.config.d_model, clip.shape[-1]).to(place.device)
    reader = torch.nn.ModuleList([text_encoder, head])
    target = torch.nn.functional.layer_norm(clip[:, 1:], clip.shape[-1:])

    def loss_at(step: int) -> torch.Tensor:
        rows = np.random.default_rng((9, step)).integers(len(captions) + 1, size=schedule.batch)
        index = torch.from_numpy(rows).to(place.device)
        ids, mask = task.table["ids"][index], task.table["mask"][index]
        told = head(text_encoder(ids, attention_mask=mask)[0])[:, :-1]
        gap = (told - target[index]).square().mean(-1)
        known = mask[:, :-1].float()
        loss: torch.Tensor = (gap * known).sum() / known.sum()
        return loss

    loop.train(reader, loss_at, schedule, place.checkpoint("reading"), title="T5")
    text_encoder.requires_grad_(False)


def _loss(
    name: str,
    task: Task,
    latents: torch.Tensor,
    owners: NDArray[np.intp],
    batch: int,
    place: Place,
) -> Callable[[int], torch.Tensor]:
    """The loss as a function of the step, which seeds its batch."""
    import torch

    kept = None
    if task.target != "flow":
        kept = pipelines.build_scheduler(name).alphas_cumprod.to(place.device)

    def loss_at(step: int) -> torch.Tensor:
        generator = torch.Generator().manual_seed(1_000_003 * 5 + step)
        rng = np.random.default_rng((5, step))
        rows = rng.integers(len(owners), size=batch)
        index = torch.from_numpy(owners[rows] + 1)
        index[torch.from_numpy(rng.random(batch) < EMPTY_CAPTION_SHARE)] = 0
        index = index.to(place.device)
        given = {key: values[index] for key, values in task.table.items()}
        if task.extra is not None:
            given |= task.extra(rows)
        clean = latents[torch.from_numpy(rows).to(latents.device)].float()
        noise = torch.randn(clean.shape, generator=generator).to(place.device)
        # Evenly spread instead of independent: the loss varies less (Kingma et al. 2021).
        share = (rng.random() + torch.arange(batch) / batch) % 1
        noisy, times, target = mixed(clean, noise, share.to(clean), kept)
        with place.autocast(), attention_in_float32(place):
            guess = task.predict(noisy, times, given)
            more = task.extra_loss(noisy, times, given) if task.extra_loss is not None else 0.0
        loss: torch.Tensor = (guess.float() - target).square().mean() + more
        return loss

    return loss_at


def mixed(
    clean: torch.Tensor,
    noise: torch.Tensor,
    share: torch.Tensor,
    kept: torch.Tensor | None,
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Noisy latents, their times in [0, 1000], and what the denoiser shall say; ``share`` in
    [0, 1) says how noisy, ``kept`` is the schedule's product of alphas (None for a flow).

    v: Salimans and Ho 2022, appendix D; flow: Liu et al. 2022 with the times of Esser et al. 2024.
    No miniature predicts the noise itself: at high noise it is nearly what the network is given,
    and what the picture shows is in the last digits, which bfloat16 does not have.
    """
    import torch

    if kept is None:
        # The logit-normal distribution, by its quantile function.
        sigma = torch.sigmoid(torch.special.ndtri(share.clamp(1e-4, 1 - 1e-4)))
        wide = sigma.view(-1, 1, 1, 1)
        return (1 - wide) * clean + wide * noise, 1000 * sigma, noise - clean
    # Evenly in the angle between signal and noise (Nichol and Dhariwal 2021 space a schedule so):
    # evenly in time, half of a linear schedule shows no more than where something is.
    angles = torch.acos(kept.sqrt())
    times = torch.searchsorted(angles, share * torch.pi / 2).clamp(max=len(kept) - 1)
    signal, spread = kept[times].sqrt(), (1 - kept[times]).sqrt()
    a, s = signal.view(-1, 1, 1, 1), spread.view(-1, 1, 1, 1)
    return a * clean + s * noise, times, a * noise - s * clean
