"""Published architectures: their counts of parameters, random numbers in them, their limits."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Iterator
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from engine import architectures, catalogue
from engine.architectures import FOLDER, require_room
from engine.errors import UsageError
from engine.models import locate
from engine.program import generate
from engine.requests import Request
from engine.schema import Config
from engine.worker import randomised
from engine.worker.conversation import Load
from engine.worker.pool import Pool
from engine.worker.preamble import RANDOM
from tests.test_program import CHECKPOINT, SUBJECT

Composed = Callable[..., Config]
PUBLISHED = [
    # Counts that the hub shows beside the files, and that the papers round to.
    ("sd15", "unet", 859_520_964, "SD 1.5, 860 M: model card; Rombach 2022"),
    ("sd15", "text_encoder", 123_060_480, "CLIP ViT-L/14 text tower, hub"),
    ("sd15", "vae", 83_653_863, "autoencoder kl-f8, hub"),
    ("sd21", "unet", 865_910_724, "SD 2, 865 M: model card"),
    ("sd21", "text_encoder", 340_387_840, "OpenCLIP ViT-H/14 text tower, one layer less, hub"),
    ("sdxl", "unet", 2_567_463_684, "SDXL, 2.6 B: arXiv 2307.01952, table 1"),
    ("sdxl", "text_encoder_2", 694_659_840, "OpenCLIP ViT-bigG/14 text tower, hub"),
    ("sdxl-turbo", "unet", 2_567_463_684, "the network of SDXL: its model card"),
    ("pixart-alpha", "text_encoder", 4_762_310_656, "T5 v1.1 XXL encoder, 4.3 B in the paper, hub"),
    ("flux", "transformer", 11_901_408_320, "FLUX.1-dev, 12 B: model card, hub"),
    ("flux-schnell", "transformer", 11_891_178_560, "FLUX.1-schnell, 12 B: model card, hub"),
    ("sd15-controlnet", "controlnet", 361_279_120, "1.45 GB in float32 on the hub"),
]  # fmt: skip
FILES = [
    # Sizes of published files in bytes, and bytes a number; a header takes less than a thousandth.
    ("pixart-alpha", "transformer", 2_445_465_672, 4),
    ("pixart-sigma", "transformer", 2_443_492_488, 4),
    ("sd3", "transformer", 4_940_000_000, 2),
    ("dit", "transformer", 3_000_000_000, 4),
    ("sdxl-controlnet", "controlnet", 5_000_000_000, 4),
    ("sd3", "vae", 168_000_000, 2),
    ("flux", "vae", 168_000_000, 2),
]


@cache
def _built(config: str, library: str, kind: str) -> Any:
    folder = next(
        path.parent for path in sorted(FOLDER.rglob("config.json")) if path.read_text() == config
    )
    # Tables of positions are real numbers elsewhere, and here take longer than all the rest.
    with torch.device("meta"):
        return randomised.skeleton(folder, library, kind)


def network(name: str, part: str) -> Any:
    """The network with its parameters on the meta device; equal configs are built once."""
    index = FOLDER / name / "model_index.json"
    parts = json.loads(index.read_text()) if index.exists() else {}
    library, kind = parts.get(part, ("diffusers", "ControlNetModel"))
    return _built((FOLDER / name / part / "config.json").read_text(), library, kind)


@pytest.mark.parametrize(("name", "part", "count", "source"), PUBLISHED)
def test_an_architecture_has_the_published_number_of_parameters(
    name: str, part: str, count: int, source: str
) -> None:
    assert randomised.parameters(network(name, part)) == count, source


@pytest.mark.parametrize(("name", "part", "size", "each"), FILES)
def test_an_architecture_fills_the_published_file(
    name: str, part: str, size: int, each: int
) -> None:
    built = network(name, part)
    stored = sum(value.numel() for value in built.state_dict().values())
    assert each * stored == pytest.approx(size, rel=0.01)


def test_the_transformer_of_dit_has_the_675_million_parameters_of_its_paper() -> None:
    """arXiv 2212.09748, table 4. The paper's code has one embedding of time and class for all
    blocks; the published weights for diffusers repeat it in each."""
    built = network("dit", "transformer")
    repeated = sum(
        parameter.numel()
        for path, parameter in built.named_parameters()
        if ".norm1.emb." in path and not path.startswith("transformer_blocks.0.")
    )
    assert randomised.parameters(built) - repeated == pytest.approx(675e6, rel=0.005)


@pytest.mark.parametrize("name", sorted(path.name for path in FOLDER.iterdir() if path.is_dir()))
def test_the_stored_counts_are_those_of_the_networks(name: str) -> None:
    stored = json.loads((FOLDER / name / "parameters.json").read_text())
    parts = sorted(path.parent.name for path in (FOLDER / name).glob("*/config.json"))
    assert stored == {part: randomised.parameters(network(name, part)) for part in parts}
    if name == "sd15":
        assert architectures.counted(FOLDER / name) == stored


def test_every_published_model_has_its_architecture(composed: Composed) -> None:
    names = [n for n in catalogue.names() if catalogue.entry(n)["weights"] == "hub" and n != "auto"]
    for name in names:
        model = composed(f"model={name}", "model.weights=random").model
        found = locate(model)
        assert (found.is_random, found.for_worker) == (True, f"{RANDOM}{found.path_or_id}")
        index = json.loads((Path(found.path_or_id) / "model_index.json").read_text())
        assert model.denoiser in index
        assert model.denoiser in architectures.parameters(model)
        assert ("controlnet" in architectures.parameters(model)) is (model.task == "control")


def test_a_model_without_stored_architecture_is_refused(composed: Composed) -> None:
    model = composed("model=sd-mini", "model.weights=random").model
    with pytest.raises(UsageError, match=r"architecture of model=sd-mini is not stored.*stored: d"):
        locate(model)


@pytest.mark.parametrize(
    ("name", "device", "free", "words"),
    [
        (
            "sdxl",
            "cpu",
            500,
            "3.5 billion parameters, and a CPU gets at most 1.5 billion;.*mini",
        ),
        ("sd15", "cpu", 4, "take 8 GiB for the baseline and a candidate, and 4 GiB are free"),
        ("flux", "cuda", 24, "16.9 billion parameters, which take 63 GiB.*24 GiB are free"),
    ],
)
def test_what_would_not_fit_is_refused_in_one_sentence(
    composed: Composed, name: str, device: str, free: float, words: str
) -> None:
    model = composed(f"model={name}", "model.weights=random").model
    with pytest.raises(UsageError, match=words) as caught:
        require_room(model, device, free)
    assert "\n" not in str(caught.value)
    require_room(composed("model=sd15", "model.weights=random").model, "cpu", 16)
    require_room(composed("model=flux", "model.weights=random").model, "cuda", 79)


# --- random numbers, in small architectures


def without_weights(folder: Path) -> Path:
    """The configs of the miniature without weights and vocabulary, written to a folder."""
    shutil.copytree(CHECKPOINT, folder, ignore=shutil.ignore_patterns("*.safetensors", "token*"))
    (folder / "tokenizer").mkdir()
    config = json.loads((CHECKPOINT / "text_encoder" / "config.json").read_text())
    length = {"model_max_length": config["max_position_embeddings"]}
    text = json.dumps(length | {"vocab_size": config["vocab_size"]})
    (folder / "tokenizer" / "tokenizer_config.json").write_text(text)
    (folder / "parameters.json").write_text(json.dumps({"unet": 6_000_000}))
    return folder


@pytest.fixture
def tiny(tmp_path: Path) -> Path:
    return without_weights(tmp_path / "tiny")


@pytest.fixture
def pool(tmp_path: Path) -> Iterator[Pool]:
    made = Pool("cpu", tmp_path / "logs")
    yield made
    made.close()


def test_a_program_runs_unchanged_on_random_numbers_that_are_the_same_in_every_worker(
    tiny: Path, pool: Pool
) -> None:
    images = []
    for genome in ({}, {}, {"deepcache": {"interval": 3}}):
        worker = pool.spawn()
        load = Load(
            program=generate(SUBJECT, genome, "test"),
            strategies=tuple(genome),
            models={SUBJECT.id: f"{RANDOM}{tiny}"},
            denoiser="unet",
            device="cpu",
            threads=1,
            timeout_s=120.0,
        )
        worker.load(load)
        images.append([worker.generate(Request.of(text, 1)).images for text in ("one", "another")])
        worker.check_active()
        worker.close()
    plain, again, cached = images
    assert np.array_equal(plain, again)
    assert not np.array_equal(plain[0], plain[1]), "the text matters"
    assert not np.array_equal(plain, cached)
    assert plain[0].std() > 1


def test_options_of_reading_weights_have_weights_to_read(tiny: Path) -> None:
    """Such as a quantization; here one that changes nothing."""
    from diffusers import StableDiffusionPipeline

    options = {"force_download": False, "dtype": torch.float32}
    load = StableDiffusionPipeline.from_pretrained.__func__
    read = randomised.through_disk(StableDiffusionPipeline, tiny, options, "cpu", load)
    made = randomised.pipeline(StableDiffusionPipeline, tiny, torch.float32, "cpu", {})
    assert isinstance(read.tokenizer, randomised.RandomTokenizer)
    for part in ("unet", "vae", "text_encoder"):
        ours, theirs = getattr(made, part).state_dict(), getattr(read, part).state_dict()
        assert ours.keys() == theirs.keys()
        assert all(torch.equal(ours[name], theirs[name]) for name in ours)
    with pytest.raises(ValueError, match="random numbers cannot take quantization_config"):
        randomised.pipeline(
            StableDiffusionPipeline, tiny, torch.float32, "cpu", {"quantization_config": 1}
        )


def test_token_ids_follow_from_the_text_and_stay_within_the_vocabulary() -> None:
    tokenizer = randomised.RandomTokenizer(77, 1000)
    both = tokenizer(["a cat", "a dog"], padding="max_length", max_length=77, truncation=True)
    again = tokenizer("a cat", padding="max_length", max_length=77)
    assert both.input_ids.shape == both.attention_mask.shape == (2, 77)
    assert (both.input_ids[0] == again.input_ids[0]).all()
    assert not (both.input_ids[0] == both.input_ids[1]).all()
    assert both.input_ids.min() >= 0
    assert (both.input_ids.argmax(1) == 76).all(), "the end is where CLIP looks for it"
    assert both.input_ids.max() == 999
    # Shorter than the limit, so that no pipeline warns of words that were cut off.
    assert tokenizer("a cat", padding="longest").input_ids.shape[1] < 77


SMALL: dict[str, Any] = {
    # transformers' text encoders
    "hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2, "projection_dim": 32,
    "vocab_size": 100, "d_model": 32, "d_ff": 64, "d_kv": 16, "num_heads": 2,
    # U-Nets and autoencoders
    "norm_num_groups": 8, "layers_per_block": 1, "addition_time_embed_dim": 8,
    "projection_class_embeddings_input_dim": 32 + 6 * 8,
    # transformers
    "num_layers": 1, "num_single_layers": 1, "num_attention_heads": 2, "joint_attention_dim": 32,
    "axes_dims_rope": [4, 6, 6], "caption_channels": 32, "sample_size": 16,
    "dual_attention_layers": [0], "pos_embed_max_size": 32,
}  # fmt: skip


def shrunk(name: str, to: Path) -> Path:
    """A published architecture with a few channels and layers, of the same classes."""
    shutil.copytree(FOLDER / name, to)
    for path in [*to.glob("*/config.json"), *to.glob("tokenizer*/*.json")]:
        config = json.loads(path.read_text())
        for key, value in SMALL.items():
            # PixArt's pipeline tells its large model by the sample size.
            if key in config and not (key == "sample_size" and name.startswith("pixart")):
                config[key] = value
        if "block_out_channels" in config:
            config["block_out_channels"] = [16] * len(config["block_out_channels"])
            config["attention_head_dim"] = 8
        elif "attention_head_dim" in config:
            # PixArt embeds three sizes in equal shares of its width.
            config["attention_head_dim"] = 24 if name.startswith("pixart") else 16
        if "cross_attention_dim" in config:
            # That of the text: SDXL sees two encoders side by side.
            widths = {"sdxl": 64, "pixart-alpha": 48, "pixart-sigma": 48}
            config["cross_attention_dim"] = widths.get(name, 32)
        if name == "sd3":
            # Two CLIP encoders stand side by side, and T5 is as wide as both.
            wide = ("pooled_projection_dim", "joint_attention_dim", "d_model")
            config |= {key: 64 for key in wide if key in config}
        elif "pooled_projection_dim" in config:
            config["pooled_projection_dim"] = 32
        if "caption_projection_dim" in config:
            config["caption_projection_dim"] = 32
        if "transformer_layers_per_block" in config:
            config["transformer_layers_per_block"] = 1
        path.write_text(json.dumps(config))
    return to


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
@pytest.mark.parametrize(
    "name", ["sd21", "sdxl", "pixart-alpha", "pixart-sigma", "dit", "sd3", "flux"]
)
def test_every_class_draws_with_random_numbers_and_without_a_vocabulary(
    tmp_path: Path, name: str, dtype: str
) -> None:
    import diffusers

    folder = shrunk(name, tmp_path / name)
    cls = getattr(diffusers, catalogue.entry(name)["pipeline"])
    pipe = randomised.pipeline(cls, folder, getattr(torch, dtype), "cpu", {})
    pipe.set_progress_bar_config(disable=True)
    asked: dict[str, Any] = {"prompt": "a cat", "height": 32, "width": 32}
    if name == "dit":
        asked = {"class_labels": pipe.get_label_ids(["goldfish"])}
    if name.startswith("pixart"):
        asked |= {"use_resolution_binning": False, "clean_caption": False}
    generator = torch.Generator().manual_seed(0)
    image = pipe(**asked, num_inference_steps=2, generator=generator, output_type="np").images[0]
    assert np.isfinite(image).all()
    assert image.std() > 0
    for part in pipe.components.values():
        if isinstance(part, torch.nn.Module):
            assert {p.dtype for p in part.parameters()} == {getattr(torch, dtype)}
            assert not any(p.is_meta for p in part.parameters())
            assert not any(b.is_meta for b in part.buffers())
            assert not part.training
