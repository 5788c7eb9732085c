"""Pairs of pictures and their thumbnails."""

from __future__ import annotations

import base64
import io
from pathlib import Path

import numpy as np
from PIL import Image

from engine.report import pictures
from engine.results import Sample
from tests.report.small_study import Study


def test_pairs_need_both_arms_and_equal_seeds() -> None:
    samples = [
        Sample("base", 0, 0, "a", 1, 0.1),
        Sample("candidate", 0, 1, "a", 2, 0.1),
        Sample("candidate", 0, 2, "a", 1, 0.1),
    ]
    (pair,) = pictures.pairs(samples)
    assert (pair.base.seed, pair.candidate.seed) == (1, 1)
    assert pair.drop is None


def test_the_worst_prompts_are_the_largest_drops_and_shown_once(study: Study) -> None:
    samples = study.trials[7].samples
    found = pictures.compare(samples)
    every = pictures.pairs(samples)
    drops = sorted((p.drop for p in every if p.drop is not None), reverse=True)
    assert [p.drop for p in found.worst] == drops[:4]
    assert min(p.drop or 0 for p in found.worst) > 1
    together = [*found.worst, *found.shown, *found.rest]
    assert len(found.shown) == 8
    assert sorted(p.base.seed for p in together) == sorted(p.base.seed for p in every)


def test_without_scores_there_are_no_worst_prompts() -> None:
    samples = [Sample(arm, 0, 0, "a", 1, 0.1) for arm in ("base", "candidate")]
    found = pictures.compare(samples)
    assert found.worst == ()
    assert len(found.shown) == 1


def test_large_pictures_are_reduced_and_small_ones_kept_exactly(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    pixels = rng.integers(0, 255, (64, 64, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(tmp_path / "small.png")
    Image.fromarray(pixels).resize((1024, 512)).save(tmp_path / "large.png")
    gallery = pictures.Gallery(tmp_path)
    small, large = gallery.add(tmp_path / "small.png"), gallery.add(tmp_path / "large.png")
    assert small is not None
    assert large is not None
    kept = Image.open(io.BytesIO(base64.b64decode(small.uri.partition(",")[2])))
    assert np.array_equal(np.asarray(kept), pixels)
    assert small.pixelated
    assert (large.width, large.height, large.pixelated) == (256, 128, False)


def test_identical_pictures_are_embedded_once(tmp_path: Path) -> None:
    for name in ("a.png", "b.png"):
        Image.new("RGB", (64, 64), "red").save(tmp_path / name)
    gallery = pictures.Gallery(tmp_path)
    assert gallery.add(tmp_path / "a.png") == gallery.add(tmp_path / "b.png")
    assert len(gallery.thumbnails) == 1


def test_missing_damaged_and_outside_pictures_are_left_out(tmp_path: Path) -> None:
    inside = tmp_path / "study"
    inside.mkdir()
    Image.new("RGB", (8, 8)).save(tmp_path / "outside.png")
    (inside / "damaged.png").write_bytes(b"\x89PNG no picture")
    gallery = pictures.Gallery(inside)
    for path in ("missing.png", "damaged.png", "../outside.png"):
        assert gallery.add(inside / path) is None
    assert gallery.add(tmp_path / "study" / ".." / "study" / "damaged.png") is None
