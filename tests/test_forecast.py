"""The forecast of time and disk, held against arithmetic and against a real small study."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from engine import forecast
from engine.config import CONF
from engine.errors import UsageError
from engine.finalists import ACCEPTED
from engine.forecast import SURE, Disk, Work
from engine.requests import Shape, turns
from engine.schema import Config

Composed = Callable[..., Config]
MIB = 2**20


def used(folder: Path) -> int:
    """What a study takes on a disk that gives out whole blocks, folders included."""
    sizes = [forecast.BLOCK if p.is_dir() else p.stat().st_size for p in folder.rglob("*")]
    return sum(map(forecast.allocated, sizes))


def test_work_counts_what_a_search_will_measure(composed: Composed) -> None:
    assert Work.of(composed()) == Work(28, ACCEPTED, ACCEPTED // 3)
    assert Work.of(composed("+debug=tiny")) == Work(4, 3, 1)
    started = composed("search.start=[unet-tome]", "search.population=1", "search.generations=1")
    assert Work.of(started) == Work(2, 2, 1)
    # A word may stand for many presets; how many there are is known when the study begins.
    assert Work.of(composed("+sweep=quick"), 8) == Work(8, 6, 2)


def test_disk_grows_with_pictures_prompts_and_batches(composed: Composed) -> None:
    work = Work(28, 8, 2)
    small = forecast.disk(composed(), {None: 3_400}, 8_000, work).most
    large = forecast.disk(composed(), {None: 400_000}, 8_000, work).most
    # 28 trials of 16 pictures, 8 acceptances and the plain program of 72 each, and the 16 of the
    # baseline that are only scored.
    pictures = 28 * 16 + 9 * 72 + 16
    more = pictures * (forecast.allocated(400_000) - forecast.allocated(3_400))
    assert large - small == pytest.approx(more, rel=0.02)
    again = forecast.disk(composed("measure.acceptance_prompts=72"), {None: 400_000}, 8_000, work)
    assert again.most - large == pytest.approx(9 * 72 * 400_000, rel=0.05)
    batches = composed("workload.shapes=[{batch: 4}]")
    four = forecast.disk(batches, {batches.workload.shapes[0]: 400_000}, 8_000, work)
    assert four.most == pytest.approx(4 * large, rel=0.05)


def test_keep_front_keeps_less_and_says_so(composed: Composed) -> None:
    work = Work(28, 8, 2)
    every = forecast.disk(composed(), {None: 400_000}, 8_000, work)
    front = forecast.disk(composed("keep=front"), {None: 400_000}, 8_000, work)
    assert every.kept == every.most == front.most
    assert 3 * 72 * 400_000 < front.kept < every.most / 2
    assert "MB of it kept" in front.words()
    assert "kept" not in every.words()


def test_a_full_disk_is_refused_and_a_nearly_full_one_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    usage = type("Usage", (), {"free": 100 * MIB})
    monkeypatch.setattr("shutil.disk_usage", lambda _: usage)
    assert forecast.check_space(tmp_path, Disk(60 * MIB, 0)) is None
    assert "may become full" in str(forecast.check_space(tmp_path, Disk(80 * MIB, 0)))
    with pytest.raises(UsageError, match=r"needs about 120 MB more.*100 MB free.*\+prune=all"):
        forecast.check_space(tmp_path, Disk(120 * MIB, 0))
    # A study that goes on has what it took before.
    (tmp_path / "pictures").write_bytes(b"0" * 30 * MIB)
    assert "may become full" in str(forecast.check_space(tmp_path, Disk(120 * MIB, 0)))


def test_times_of_single_images_follow_from_the_median(composed: Composed) -> None:
    ahead = forecast.times(composed(), [1.0, 1.0, 1.0, 9.0], 2.0, Work(28, 8, 2))
    warm = 2.0 + 0.5 * 7
    assert ahead.image == 1.0
    # A candidate draws 16 more without the baseline, which draws them once.
    assert ahead.search == pytest.approx(28 * (warm + 1.5 * 8 + 0.5 * 16) + 16)
    assert ahead.acceptance == pytest.approx(8 * (warm + 1.5 * 36) + 4 * 36)


def test_times_of_a_mix_weigh_every_shape_by_its_share(composed: Composed) -> None:
    config = composed("workload.shapes=[{weight: 3}, {batch: 4, weight: 1}]")
    order = turns(config.workload.shapes, 8)
    seconds = [1.0 if shape == Shape(64, 64, 1, 3.0) else 3.0 for shape in order]
    ahead = forecast.times(config, seconds, 0.0, Work(1, 1, 1))
    # Of 4 requests 3 take a second for one image and one takes 3 for four.
    assert ahead.image == pytest.approx(6 / 7)
    assert ahead.search == pytest.approx(0.5 * 7 * 4 + 1.5 * 1.5 * (8 + 16))


@pytest.mark.slow
@pytest.mark.parametrize("workload", ["single", "mixed"])
def test_a_real_study_takes_the_disk_that_was_foretold(tmp_path: Path, workload: str) -> None:
    arguments = ["+sweep=ga", "+debug=tiny", "objective=flops", "study=s", f"workload={workload}"]
    done = subprocess.run(
        [sys.executable, "-m", "engine", *arguments],
        cwd=tmp_path,
        env=dict(os.environ, PYTHONPATH=str(CONF.parent), OMP_NUM_THREADS="1"),
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    words = re.search(r"about ([\d.]+) MB of disk", done.stdout)
    assert words is not None, done.stdout
    real = used(tmp_path / "outputs" / "sweeps" / "s") / MIB
    assert 1 / SURE <= real / float(words[1]) <= SURE
