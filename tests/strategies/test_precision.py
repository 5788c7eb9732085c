"""Half precision: what is cast, what is kept, and what an autoencoder is handed."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from engine import models
from engine.genome import context_fields
from engine.program import Subject, generate
from engine.requests import Request
from engine.worker.conversation import Load
from engine.worker.pool import Pool
from strategies import precision

HALVES = {"float16": torch.float16, "bfloat16": torch.bfloat16}


@pytest.mark.parametrize("name", HALVES)
@pytest.mark.parametrize("kept", ["float32", "same"])
def test_every_part_is_in_the_dtype_asked_for_and_draws(
    ready: Callable[..., Any], name: str, kept: str
) -> None:
    made = ready({"precision": {"dtype": name, "vae": kept}}, steps=2)
    image = made.latents(output_type="pt")
    assert image.shape == (1, 3, 64, 64)
    assert torch.isfinite(image).all()
    pipe = made.pipe
    assert {p.dtype for p in pipe.unet.parameters()} == {HALVES[name]}
    assert {p.dtype for p in pipe.text_encoder.parameters()} == {HALVES[name]}
    wanted = torch.float32 if kept == "float32" else HALVES[name]
    assert {p.dtype for p in pipe.vae.parameters()} == {wanted}
    assert made.reasons() == {"precision": None}


def test_the_gene_decides_the_dtype_in_which_a_program_loads() -> None:
    assert context_fields({"precision": {"dtype": "float16"}}) == {"dtype": "float16"}


def test_a_program_runs_in_it_beside_the_others_of_its_kind(tmp_path: Path) -> None:
    subject = Subject(
        name="sd-mini",
        id="sd-mini",
        revision=None,
        pipeline="StableDiffusionPipeline",
        denoiser="unet",
        steps=2,
        guidance_scale=5.0,
        height=64,
        width=64,
        miniature=True,
        device="cpu",
    )
    names = ("precision", "qkv_fusion", "vae", "attention")
    genome: dict[str, dict[str, object]] = {name: {} for name in names}
    load = Load(
        program=generate(subject, genome, "test"),
        strategies=names,
        models={"sd-mini": str(models.CHECKPOINTS / "sd-mini")},
        denoiser="unet",
        device="cpu",
        threads=1,
        timeout_s=120.0,
    )
    pool = Pool("cpu", tmp_path)
    try:
        worker = pool.spawn()
        worker.load(load)
        cost = worker.cost(Request.of("a red circle on a white background", 1))
        assert cost["dtypes"] == ["bfloat16"]
        assert cost["unknown"] == []
        worker.check_active()
    finally:
        pool.close()


def test_the_picture_is_that_of_float32_up_to_the_dtype(ready: Callable[..., Any]) -> None:
    genomes: list[dict[str, Any]] = [{}, {"precision": {"dtype": "float16"}}, {"precision": {}}]
    images = [ready(one, steps=4).latents(output_type="pt").float() for one in genomes]
    exact, half, brain = images
    assert (exact - half).abs().max() < 0.02
    # Three bits fewer.
    assert (exact - half).abs().max() < (exact - brain).abs().max() < 0.1


def test_an_autoencoder_in_float32_decodes_what_would_overflow(fresh: Callable[[], Any]) -> None:
    pipe = fresh()
    with torch.no_grad():
        pipe.vae.decoder.conv_in.weight.mul_(1e6)
    latents = torch.randn(1, 4, 16, 16, generator=torch.Generator().manual_seed(0))
    precision.apply(pipe, None, dtype="float16", vae="float32")
    with torch.no_grad():
        # Ten times the largest float16 passes through the first layer.
        assert torch.isfinite(pipe.vae.decode(latents.half()).sample).all()


def test_latents_of_a_given_image_come_back_in_the_denoisers_dtype(
    fresh: Callable[[], Any],
) -> None:
    pipe = fresh()
    precision.apply(pipe, None, dtype="bfloat16", vae="float32")
    with torch.no_grad():
        found = pipe.vae.encode(torch.zeros(1, 3, 64, 64, dtype=torch.bfloat16)).latent_dist.mode()
    assert found.dtype == torch.bfloat16


def test_sdxl_draws_with_its_autoencoder_kept_and_upcast(
    ready: Callable[..., Any], sdxl: Callable[[], Any]
) -> None:
    for kept in ("float32", "same"):
        pipe = sdxl()
        made = ready({"precision": {"dtype": "float16", "vae": kept}}, steps=2, pipe=pipe)
        prompt = {k: v.half() if torch.is_tensor(v) else v for k, v in pipe.embeddings.items()}
        image = made.latents(prompt=None, output_type="pt", **prompt)
        assert torch.isfinite(image).all()
        # The pipeline casts an autoencoder in float16 there and back.
        assert pipe.vae.dtype == (torch.float32 if kept == "float32" else torch.float16)
        assert made.reasons() == {"precision": None}


def test_a_denoiser_cast_back_is_reported(ready: Callable[..., Any]) -> None:
    made = ready({"precision": {"dtype": "bfloat16"}}, steps=2)
    made.pipe.unet.float()
    assert made.reasons() == {"precision": "the denoiser computes in float32"}
