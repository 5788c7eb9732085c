"""A small study on disk: 12 trials, 3 on the front, 2 failed, pictures of rendered scenes."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from engine.minis import scenes
from engine.results import Result, Sample, row, save, write_json

HOSTILE = "a <script>alert('x')</script> & \"quoted\" circle"
FRONT = (3, 7, 9)
FAILED = (4, 10)
LONG = "CalledProcessError: " + "x" * 300 + "\nsecond line <b>of output</b>"


@dataclass(frozen=True)
class Study:
    """Where the study lies and what was written there."""

    folder: Path
    trials: tuple[Result, ...]
    study: dict[str, Any]
    front: dict[str, Any]


def _genome(trial: int) -> dict[str, dict[str, Any]]:
    genome: dict[str, dict[str, Any]] = {"sampler": {"name": "unipc", "steps": 4 + trial}}
    if trial % 2:
        genome["deepcache"] = {"interval": 3, "branch": 0}
    if trial % 3 == 0:
        genome["guidance"] = {"stop": 0.5}
    return genome


def _samples(folder: Path, trial: int, count: int) -> tuple[Sample, ...]:
    """Pairs in random arm order; every seventh prompt of the candidate loses points."""
    (folder / "images").mkdir(parents=True)
    rng = np.random.default_rng(0)
    found = []
    for i in range(count):
        scene = scenes.sample(rng)
        prompt = HOSTILE if i == 5 else scene.caption
        for arm in ("base", "candidate"):
            worse = arm == "candidate" and i % 7 == 3
            picture = scenes.render(scene)
            if arm == "candidate":
                noise = rng.normal(0, 0.3 if worse else 0.02, picture.shape)
                picture = picture + noise.astype(np.float32)
            name = f"images/{i}_{arm}.png"
            pixels = (np.clip(picture, 0, 1) * 255).astype(np.uint8)
            Image.fromarray(pixels).save(folder / name)
            score = 31.0 + 0.1 * (i % 5) - (4.0 + i / 10 + trial / 100 if worse else 0.0)
            seconds = 0.3 if arm == "base" else 0.08
            found.append(
                Sample(arm, i // 2, i % 2, prompt, 1000 + i, seconds, score, not worse, name)
            )
    return tuple(found)


def _trial(folder: Path, trial: int) -> Result:
    failed = trial in FAILED
    accepted = trial in FRONT
    speedup = 1.3 + 0.38 * trial
    loss = 0.004 * trial + (0.03 if trial % 2 == 0 or trial == 11 else 0.0)
    result = Result(
        trial=trial,
        genome=_genome(trial),
        key=f"key{trial}",
        origin="seed" if trial < 4 else "crossover",
        parents=(trial - 3, trial - 2) if trial >= 4 else (),
        rung=2 if accepted else 1,
        samples=_samples(folder, trial, 36) if accepted else (),
    )
    if failed:
        reason = LONG if trial == 4 else "no answer within 120 s"
        return replace(result, rung=0, stage="run" if trial == 4 else "timeout", reason=reason)
    return replace(
        result,
        speedup=speedup,
        speedup_low=speedup * 0.96,
        speedup_high=speedup * 1.05,
        speedup_paper=speedup * 1.01,
        loss=loss if trial != 8 else 0.62,
        loss_low=loss - 0.01,
        loss_high=loss + 0.012,
        accuracy=34 / 36,
        accuracy_base=35 / 36,
        memory_gib=0.61 + trial / 100,
        memory_base_gib=0.58,
        cost_flops=4.1e10 / speedup,
        cost_base_flops=4.1e10,
        seconds_per_image=0.31 / speedup,
        seconds_base=0.31,
        program=f"outputs/sweeps/mine/{trial}/accelerated.py",
        notes=("2 rounds repeated: other load on the device.",) if trial == 7 else (),
    )


def describe_study() -> dict[str, Any]:
    return {
        "study": "mine",
        "command": "python -m engine +sweep=ga study=mine",
        "resume": "python -m engine +sweep=ga study=mine",
        "started": "2026-11-23T05:20:00",
        "wall_s": 483.0,
        "overhead_share": 0.09,
        "model": {
            "name": "sd-mini",
            "id": "sd-mini",
            "pipeline": "StableDiffusionPipeline",
            "steps": 50,
            "guidance_scale": 5.0,
            "height": 64,
            "width": 64,
            "weights": "mini",
        },
        "machine": {
            "processor": "A processor with a rather long name and 2 cores",
            "cores": 2,
            "memory_gib": 7.6,
            "device": "cpu",
            "device_name": "cpu",
            "system": "Linux",
            "python": "3.11.9",
            "threads": 2,
            "versions": {"torch": "2.13.0", "diffusers": "0.42.1"},
            "fast_dtypes": ["float32"],
        },
        "goal": {"max_loss": 0.05, "accuracy_drop": 0.05, "keep_steps": False, "speedup": None},
        "objective": "time",
        "baseline": {
            "name": "strong",
            "label": "DPM-Solver++ 2M, 20 steps",
            "seconds_per_image": 0.31,
            "score": 31.2,
            "accuracy": 0.972,
            "program": "baseline/accelerated.py",
        },
        "plain": {"label": "DDIM, 50 steps", "ratio": 2.5, "ratio_low": 2.4, "ratio_high": 2.6},
        "control": {"low": 0.99, "high": 1.01, "median": 1.0, "ok": True, "word": "steady"},
        "config": "model:\n  name: sd-mini\ngoal:\n  max_loss: 0.05\n# <config>\n",
        "single": {"genome": {"deepcache": {"interval": 3}}, "speedup": 2.3, "trial": 1},
        "profile": {"text_ms": 2.0, "denoiser_ms": 280.0, "vae_ms": 28.0},
        "miniature": True,
        "evaluations": 12,
        "failed": 2,
    }


def front_of(trials: tuple[Result, ...]) -> dict[str, Any]:
    rows = []
    for trial in sorted((t for t in trials if t.trial in FRONT), key=lambda t: -(t.speedup or 0)):
        figures = (trial.speedup or 0, trial.speedup_low or 0, trial.speedup_high or 0)
        plain = [a * b for a, b in zip(figures, (2.5, 2.4, 2.6), strict=True)]
        more = {
            "speedup_plain": plain[0],
            "speedup_plain_low": plain[1],
            "speedup_plain_high": plain[2],
            "accuracy": trial.accuracy,
            "accuracy_base": trial.accuracy_base,
            "meets_goal": trial.trial != 9,
            "command": f"python -m engine +trial=mine/{trial.trial}",
        }
        rows.append(row(trial, **more))
    return {"study": {"study": "mine", "model": "sd-mini", "evaluations": 12}, "front": rows}


def write_study(folder: Path) -> Study:
    """Write the study's files into a folder."""
    trials = []
    for number in range(12):
        trial = _trial(folder / str(number), number)
        save(trial, folder / str(number) / "result.json")
        trials.append(trial)
    described, front = describe_study(), front_of(tuple(trials))
    write_json(folder / "study.json", described)
    write_json(folder / "front.json", front)
    return Study(folder, tuple(trials), described, front)
