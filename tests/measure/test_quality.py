"""Fidelity measures against hand-computed cases, the CLIP scorer on a small model."""

from __future__ import annotations

import math
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from engine.errors import UsageError
from engine.measure.quality import ClipScorer, checker, psnr, ssim
from engine.minis import scenes

ROOT = Path(__file__).parents[2]


def picture(seed: int) -> np.ndarray[tuple[int, ...], np.dtype[np.uint8]]:
    rng = np.random.default_rng(seed)
    return (scenes.render(scenes.sample(rng)) * 255).round().astype(np.uint8)


def flat(value: int) -> np.ndarray[tuple[int, ...], np.dtype[np.uint8]]:
    return np.full((16, 20, 3), value, np.uint8)


def test_psnr_of_a_known_error() -> None:
    assert psnr(flat(100), flat(110)) == pytest.approx(10 * math.log10(255**2 / 100))
    assert psnr(flat(0), flat(255)) == pytest.approx(0.0)
    assert psnr(flat(7), flat(7)) == 120.0


def test_ssim_of_flat_images_is_the_luminance_term() -> None:
    c1 = (0.01 * 255) ** 2
    expected = (2 * 100 * 150 + c1) / (100**2 + 150**2 + c1)
    assert ssim(flat(100), flat(150)) == pytest.approx(expected)
    assert ssim(picture(0), picture(0)) == pytest.approx(1.0)


def test_ssim_agrees_with_a_direct_sum_over_one_window() -> None:
    rng = np.random.default_rng(0)
    a = rng.integers(0, 256, (11, 11, 3), np.uint8)
    b = rng.integers(0, 256, (11, 11, 3), np.uint8)
    grid = np.arange(11) - 5
    window = np.exp(-(grid[:, None] ** 2 + grid[None, :] ** 2) / 4.5)
    window /= window.sum()
    c1, c2 = (0.01 * 255) ** 2, (0.03 * 255) ** 2
    found = []
    for channel in range(3):
        x, y = a[:, :, channel].astype(float), b[:, :, channel].astype(float)
        mx, my = (window * x).sum(), (window * y).sum()
        vx, vy = (window * (x - mx) ** 2).sum(), (window * (y - my) ** 2).sum()
        shared = (window * (x - mx) * (y - my)).sum()
        found.append(
            (2 * mx * my + c1) * (2 * shared + c2) / ((mx**2 + my**2 + c1) * (vx + vy + c2))
        )
    assert ssim(a, b) == pytest.approx(np.mean(found))


def test_fidelity_falls_with_damage() -> None:
    image = picture(1)
    noise = np.random.default_rng(0).normal(0, 1, image.shape)
    damaged = [np.clip(image + s * noise, 0, 255).astype(np.uint8) for s in (5, 20, 60)]
    for measure in (psnr, ssim):
        values = [measure(image, one) for one in damaged]
        assert values == sorted(values, reverse=True)


def test_images_that_cannot_be_compared_are_refused() -> None:
    with pytest.raises(ValueError, match="shape"):
        psnr(flat(0), flat(0)[:-1])
    with pytest.raises(ValueError, match="too small"):
        ssim(flat(0)[:8], flat(0)[:8])


def test_the_checker_judges_scenes_and_nothing_else() -> None:
    scene = scenes.sample(np.random.default_rng(2))
    image = (scenes.render(scene) * 255).round().astype(np.uint8)
    captions = [scene.caption, scene.caption, "a photo of a cat"]
    assert checker([image, np.zeros_like(image), image], captions) == [True, False, None]
    assert checker([image[:, :48]], captions[:1]) == [None], "an image of another size"


@pytest.fixture(scope="module")
def clip_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    import torch

    from engine.minis import networks

    folder = tmp_path_factory.mktemp("clip")
    torch.manual_seed(0)
    tokenizer = networks.build_tokenizer(folder)
    tokenizer.save_pretrained(folder)
    networks.build_clip(tokenizer).save_pretrained(folder)
    return folder


def test_scores_are_those_of_training_and_independent_of_the_batch(clip_folder: Path) -> None:
    import torch
    from transformers import CLIPModel, CLIPTokenizer

    from engine.minis import stages

    images = [picture(i) for i in range(20)]
    prompts = [f"a {c} {s}" for c in list(scenes.COLOURS)[:4] for s in ("circle", "square")] * 3
    prompts = prompts[:20]
    found = ClipScorer(clip_folder).scores(images, prompts)
    model = CLIPModel.from_pretrained(clip_folder)
    ids = stages.tokenize(CLIPTokenizer.from_pretrained(clip_folder), prompts)
    pixels = stages.to_tensor([i.astype(np.float32) / np.float32(255) for i in images])
    with torch.no_grad():
        seen = model.get_image_features(pixel_values=pixels).pooler_output
        read = model.get_text_features(input_ids=ids).pooler_output
        cosines = torch.nn.functional.cosine_similarity(seen, read)
    assert found == pytest.approx((100 * cosines.clamp(min=0)).tolist(), abs=1e-3)
    assert ClipScorer(clip_folder).scores(images[:1], prompts[:1]) == pytest.approx(
        found[:1], abs=1e-3
    )


def test_pictures_of_another_size_are_scored(clip_folder: Path) -> None:
    large = np.repeat(np.repeat(picture(0), 2, axis=0), 2, axis=1)
    scorer = ClipScorer(clip_folder)
    same, small = scorer.scores([large, picture(0)], ["a red circle"] * 2)
    assert same == pytest.approx(small, abs=2.0)
    with pytest.raises(ValueError, match="1 images for 2 prompts"):
        scorer.scores([large], ["a", "b"])


def test_a_clip_of_another_size_uses_its_own_processor(tmp_path: Path) -> None:
    import torch
    from transformers import CLIPImageProcessor, CLIPModel

    from engine.minis import networks

    torch.manual_seed(0)
    tokenizer = networks.build_tokenizer(tmp_path)
    tokenizer.save_pretrained(tmp_path)
    config: Any = networks.build_clip(tokenizer).config
    config.vision_config.image_size = 32
    model: Any = CLIPModel(config)
    model.eval()
    model.save_pretrained(tmp_path)
    processor = CLIPImageProcessor(
        size={"shortest_edge": 32}, crop_size={"height": 32, "width": 32}
    )
    processor.save_pretrained(tmp_path)
    (found,) = ClipScorer(tmp_path).scores([picture(0)], ["a red circle"])
    pixels = processor(images=[picture(0)], return_tensors="pt").pixel_values
    ids = tokenizer(["a red circle"], padding="max_length", return_tensors="pt").input_ids
    with torch.no_grad():
        seen = model.get_image_features(pixel_values=pixels).pooler_output
        read = model.get_text_features(input_ids=ids).pooler_output
    expected = float(torch.nn.functional.cosine_similarity(seen, read))
    assert found == pytest.approx(100 * max(expected, 0), abs=1e-3)


def test_a_folder_without_a_model_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="holds no CLIP model"):
        ClipScorer(tmp_path)


@pytest.mark.parametrize("module", ["engine.measure.quality", "engine.search.ledger"])
def test_importing_costs_no_heavy_library(module: str) -> None:
    heavy = "{'torch', 'transformers', 'optuna', 'sqlalchemy'} & set(sys.modules)"
    code = f"import sys, {module}; print(sorted({heavy}))"
    seen = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True
    )
    assert seen.stdout.strip() == "[]"
