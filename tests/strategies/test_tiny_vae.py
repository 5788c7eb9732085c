"""The tiny autoencoder: only for latents that it knows and with weights that are here."""

from __future__ import annotations

from collections.abc import Callable
from importlib import import_module
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from engine.strategy import find
from engine.worker.probe import inapplicable
from strategies import tiny_vae

diffusers: Any = import_module("diffusers")


@pytest.fixture
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A hub cache of our own, empty, with the network switched off."""
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    return tmp_path


def store(hub: Path, name: str) -> None:
    """Random weights under that name, as the hub's cache lays them out."""
    torch.manual_seed(0)
    home = hub / f"models--{name.replace('/', '--')}"
    (home / "refs").mkdir(parents=True)
    (home / "refs" / "main").write_text("0" * 40)
    diffusers.AutoencoderTiny(
        encoder_block_out_channels=(8,) * 4, decoder_block_out_channels=(8,) * 4
    ).save_pretrained(home / "snapshots" / ("0" * 40))


def wide(pipe: Any) -> Any:
    """The pipeline with an autoencoder that enlarges 8 times, as Stable Diffusion's does."""
    pipe.vae = diffusers.AutoencoderKL(
        down_block_types=("DownEncoderBlock2D",) * 4,
        up_block_types=("UpDecoderBlock2D",) * 4,
        block_out_channels=(8,) * 4,
        norm_num_groups=4,
        latent_channels=4,
    ).eval()
    pipe.vae_scale_factor = 8
    return pipe


def refusal(pipe: Any) -> str | None:
    return inapplicable(find("tiny_vae"), pipe, "unet", "cpu")


def test_it_decodes_in_place_of_the_models_own(
    hub: Path, ready: Callable[..., Any], fresh: Callable[[], Any]
) -> None:
    store(hub, "madebyollin/taesd")
    pipe = wide(fresh())
    assert refusal(pipe) is None
    made = ready({"tiny_vae": {}}, steps=2, pipe=pipe)
    image = made.latents(output_type="pt", height=128, width=128)
    assert image.shape == (1, 3, 128, 128)
    assert torch.isfinite(image).all()
    assert made.reasons() == {"tiny_vae": None}
    assert type(made.pipe.components["vae"]).__name__ == "AutoencoderTiny"
    made.latents(height=128, width=128)
    assert made.reasons() == {"tiny_vae": "the tiny autoencoder decoded nothing"}


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_fusion_layout_and_precision_act_on_it(
    hub: Path, ready: Callable[..., Any], fresh: Callable[[], Any], dtype: str
) -> None:
    store(hub, "madebyollin/taesd")
    genome: dict[str, Any] = {"tiny_vae": {}, "qkv_fusion": {}, "channels_last": {}}
    if dtype != "float32":
        genome["precision"] = {"dtype": dtype, "vae": "float32"}
    made = ready(genome, steps=2, pipe=wide(fresh()))
    made.latents(output_type="pt", height=128, width=128)
    assert set(made.reasons().values()) == {None}
    weight = made.pipe.vae.decoder.layers[0].weight
    assert weight.is_contiguous(memory_format=torch.channels_last)


def test_weights_that_are_not_here_are_named(hub: Path, fresh: Callable[[], Any]) -> None:
    assert refusal(wide(fresh())) == (
        "madebyollin/taesd is not in the hub's cache: hf download madebyollin/taesd"
    )


def test_latents_of_another_kind_are_refused(
    hub: Path, fresh: Callable[[], Any], sdxl: Callable[[], Any]
) -> None:
    store(hub, "madebyollin/taesd")
    pipe = fresh()
    assert "this model's own 4 times" in str(tiny_vae.unfit(pipe))
    with pytest.raises(ValueError, match="enlarges 8 times"):
        tiny_vae.apply(pipe, SimpleNamespace(dtype="float32"))
    pipe = wide(pipe)
    pipe.vae.register_to_config(scaling_factor=1.5305)
    assert "no tiny autoencoder is known" in str(tiny_vae.unfit(pipe))
    pipe.vae.register_to_config(scaling_factor=0.13025)
    assert "madebyollin/taesdxl is not" in str(refusal(pipe))
