"""Whole studies through the command line, on the miniature that ships, interrupted and resumed."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import psutil
import pytest

from engine import handover, results
from engine.results import Genome, Result
from tests.agent.evolve import searched

ROOT = Path(__file__).resolve().parents[1]
TINY = ("+sweep=ga", "+debug=tiny", "objective=flops", "study=s")
TRIALS = 4
pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="POSIX signals")


def start(folder: Path, *arguments: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-m", "engine", *arguments],
        cwd=folder,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        # Where the tests are a background job, the signal would be ignored.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )


def finish(folder: Path, *arguments: str) -> str:
    process = start(folder, *arguments)
    output, _ = process.communicate(timeout=400)
    assert process.returncode == 0, output
    return output


def wait_for(path: Path, process: subprocess.Popen[str], within_s: float = 200) -> None:
    deadline = time.monotonic() + within_s
    while not path.exists():
        assert process.poll() is None, process.communicate()[0]
        assert time.monotonic() < deadline, f"{path} did not come"
        time.sleep(0.05)


def family(process: subprocess.Popen[str], within_s: float = 100) -> list[psutil.Process]:
    """The processes that a running study has started, as soon as there are any."""
    deadline = time.monotonic() + within_s
    while time.monotonic() < deadline:
        found: list[psutil.Process] = psutil.Process(process.pid).children(recursive=True)
        if found:
            return found
        time.sleep(0.05)
    raise AssertionError("no worker was started")


def alive(processes: list[psutil.Process], within_s: float) -> list[psutil.Process]:
    _, left = psutil.wait_procs(processes, timeout=within_s)
    return [p for p in left if p.status() != psutil.STATUS_ZOMBIE]


def essence(found: dict[int, Result]) -> list[tuple[Any, ...]]:
    return [(t, r.genome, r.cost_flops, r.loss, r.accuracy) for t, r in sorted(found.items())]


@pytest.fixture(scope="module")
def uninterrupted(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str]:
    folder = tmp_path_factory.mktemp("whole")
    return folder, finish(folder, *TINY)


def test_a_study_hands_over_front_report_and_program(uninterrupted: tuple[Path, str]) -> None:
    folder, output = uninterrupted
    study = folder / "outputs" / "sweeps" / "s"
    front = json.loads((study / "front.json").read_text(encoding="utf-8"))
    assert front["study"]["evaluations"] == TRIALS
    assert 0 <= front["study"]["overhead_share"] < 1
    rows = front["front"]
    assert rows
    assert [r["speedup"] for r in rows] == sorted((r["speedup"] for r in rows), reverse=True)
    for row in rows:
        assert (study / row["program"]).exists()
        assert row["cost_flops"] > 0
    assert (study / "report.html").stat().st_size > 10_000
    best = next(row for row in rows if row["meets_goal"])
    shipped = (study / "best" / "accelerated.py").read_text(encoding="utf-8")
    assert shipped == (study / best["program"]).read_text(encoding="utf-8")
    assert "first pair of images" in output
    assert (study / "first_pair.png").exists()


def test_an_interrupted_and_killed_study_equals_an_uninterrupted_one(
    uninterrupted: tuple[Path, str], tmp_path: Path
) -> None:
    study = tmp_path / "outputs" / "sweeps" / "s"
    process = start(tmp_path, *TINY)
    wait_for(study / "0" / "proposal.json", process)
    workers = family(process)
    process.send_signal(signal.SIGINT)
    assert alive(workers, 10.0) == []
    output, _ = process.communicate(timeout=30)
    assert process.returncode == 130
    assert "python -m engine +sweep=ga" in output
    assert "study=s" in output
    for moment in (1.0, 8.0, 14.0):
        process = start(tmp_path, *TINY)
        workers = family(process)
        time.sleep(moment)
        if process.poll() is not None:
            # A fast machine may be done by then; the earlier moments have been tried.
            assert process.returncode == 0, process.communicate()[0]
            break
        workers += family(process)
        process.kill()
        process.communicate()
        assert alive(workers, 5.0) == []
    told_before = essence(searched(study))
    finish(tmp_path, *TINY)
    found = searched(study)
    assert sorted(found) == list(range(TRIALS))
    assert len({r.key for r in found.values()}) == TRIALS
    assert [row for row in essence(found) if row in told_before] == told_before
    whole = searched(uninterrupted[0] / "outputs" / "sweeps" / "s")
    assert essence(found) == essence(whole)


def test_a_study_of_another_space_is_refused_and_left_as_it_is(
    uninterrupted: tuple[Path, str],
) -> None:
    folder, _ = uninterrupted
    ledger = folder / "outputs" / "sweeps" / "s" / "ledger.db"
    before = ledger.read_bytes()
    process = start(folder, *TINY, "goal.max_loss=0.5")
    output, _ = process.communicate(timeout=200)
    assert process.returncode == 2
    assert "max_loss" in output
    assert ledger.read_bytes() == before


def test_a_stored_trial_shows_its_program_and_its_difference(
    uninterrupted: tuple[Path, str],
) -> None:
    folder, _ = uninterrupted
    text = finish(folder, "+trial=s/0", "+program=true")
    assert text == (folder / "outputs/sweeps/s/0/accelerated.py").read_text(encoding="utf-8")
    changed = finish(folder, "+trial=s/0", "+diff=baseline")
    assert changed.startswith("--- baseline\n+++ trial 0\n")


MINE = """
import torch
from diffusers import StableDiffusionPipeline, UniPCMultistepScheduler

def load_pipeline(device):
    pipe = StableDiffusionPipeline.from_pretrained("sd-mini", dtype=torch.float32).to(device)
    pipe.scheduler = UniPCMultistepScheduler.from_config(pipe.scheduler.config)
    pipe.set_progress_bar_config(disable=True)
    return pipe

def generate(pipe, prompt, *, seed, height=64, width=64, **options):
    count = 1 if isinstance(prompt, str) else len(prompt)
    generators = [torch.Generator().manual_seed(seed + i) for i in range(count)]
    return pipe(
        prompt, num_inference_steps=12, guidance_scale=5.0, height=height, width=width,
        generator=generators, **options,
    ).images
"""


def test_a_study_of_the_users_own_prompts_program_and_mix_of_shapes(tmp_path: Path) -> None:
    colours = ("red", "green", "blue", "yellow", "purple", "cyan")
    prompts = [f"a {colour} circle on a white background" for colour in colours]
    (tmp_path / "prompts.txt").write_text("\n".join(prompts), encoding="utf-8")
    (tmp_path / "mine.py").write_text(MINE, encoding="utf-8")
    shapes = "workload.shapes=[{weight: 1}, {width: 96, batch: 2, weight: 1}]"
    finish(
        tmp_path,
        *TINY[:-1],
        "study=own",
        "data=prompts.txt",
        "baseline=mine.py",
        shapes,
        "search.generations=1",
    )
    folder = tmp_path / "outputs" / "sweeps" / "own"
    study = json.loads((folder / "study.json").read_text(encoding="utf-8"))
    data = study["data"]
    assert sorted(data["search"] + data["acceptance"]) == sorted(prompts)
    assert not set(data["search"]) & set(data["acceptance"])
    assert [s["batch"] for s in study["workload"]["shapes"]] == [1, 2]
    assert (folder / "baseline" / "accelerated.py").read_text(encoding="utf-8") == MINE
    for path in folder.glob("*/result.json"):
        result = results.load(path)
        if not path.parent.name.isdigit() or not result.ok:
            continue
        part = "acceptance" if result.rung == 2 else "search"
        assert {s.prompt for s in result.samples} <= set(data[part])
        assert {(s.height, s.width, s.batch) for s in result.samples} == {(64, 64, 1), (64, 96, 2)}
        program = (folder / str(result.program)).read_text(encoding="utf-8")
        assert "SHAPES=((64,64,1),(64,96,2)" in "".join(program.split())
    page = (folder / "report.html").read_text(encoding="utf-8")
    assert "prompts.txt" in page
    assert "mine.py" in page


QUICK = ("+sweep=quick", "+debug=tiny", "objective=flops", "study=q")


@pytest.mark.slow
def test_a_quick_sweep_measures_presets_and_names_the_long_search(tmp_path: Path) -> None:
    output = finish(tmp_path, *QUICK, "search.only={sampler: {}, guidance: {}}")
    study = tmp_path / "outputs" / "sweeps" / "q"
    start = json.loads((study / "start.json").read_text(encoding="utf-8"))
    found = searched(study)
    assert {r.origin for r in found.values()} == {row["origin"] for row in start}
    assert {r.origin for r in found.values()} == {"preset:unipc", "preset:guidance-stop"}
    assert "left out preset unet-tgate, tgate: not named by search.only" in output
    assert "left out preset cpu-int8, dynamic_int8: it changes no counted operation" in output
    front = json.loads((study / "front.json").read_text(encoding="utf-8"))
    assert front["front"]
    assert front["study"]["evaluations"] == len(start)
    assert (study / "best" / "accelerated.py").exists()
    assert (study / "report.html").exists()
    command = next(line for line in output.splitlines() if "search.start=" in line)
    assert command.strip() == (
        "python -m engine +sweep=ga +debug=tiny objective=flops "
        "'search.only={sampler: {}, guidance: {}}' 'search.start=[q]'"
    )
    stored = json.loads((study / "study.json").read_text(encoding="utf-8"))
    assert stored["resume"].startswith("python -m engine +debug=tiny +sweep=quick")


def test_a_quick_sweep_without_anything_to_measure_says_so(tmp_path: Path) -> None:
    process = start(tmp_path, *QUICK, "search.only={vae: {}}")
    output, _ = process.communicate(timeout=200)
    assert process.returncode == 2, output
    assert "nothing to measure" in output


def test_commands_name_their_sweep_and_the_search_that_follows() -> None:
    assert handover.command(["study=s"]) == "python -m engine +sweep=ga study=s"
    quick = ["+debug=tiny", "+sweep=quick", "study=q", "model=sd15", "hydra.verbose=true"]
    assert handover.command(quick) == (
        "python -m engine +debug=tiny +sweep=quick study=q model=sd15"
    )
    assert handover.following([*quick, "search.start=[unipc]", "search.generations=0"], "q") == (
        "python -m engine +sweep=ga +debug=tiny model=sd15 'search.start=[q]'"
    )


def test_a_single_technique_differs_from_the_baseline_in_one_strategy() -> None:
    baseline: Genome = {"sampler": {"name": "dpmpp_2m", "steps": 20}}
    unipc: Genome = {"sampler": {"name": "unipc", "steps": 8}}
    tome: Genome = {"tome": {"ratio": 0.5}}
    assert handover.is_single(unipc, baseline)
    assert handover.is_single(baseline | tome, baseline)
    assert not handover.is_single(baseline, baseline)
    assert not handover.is_single(unipc | tome, baseline)
