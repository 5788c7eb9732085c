"""Cards of the miniatures beside sd-mini: what each one is, how it was made, how well it draws.

The exact checker judges all that were trained; one with random weights says so instead.
"""

from __future__ import annotations

import json
import textwrap
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from engine.measure.quality import ClipScorer
from engine.minis import edges, judge, pipelines, scenes

FOLLOWED = 0.8
"""Overlap from which an object counts as drawn where its edges are."""
WHAT = {
    "sdxl-mini": "(U-Net with sizes in its time embedding, two text encoders, Euler, v-prediction) "
    "that draws captioned scenes of coloured shapes",
    "pixart-mini": "(transformer, T5 text encoder, learned variance, DPM-Solver++, "
    "v-prediction; `PixArtSigmaPipeline` opens the folder too) that draws captioned scenes of "
    "coloured shapes",
    "dit-mini": "(class-to-image transformer, learned variance, DDIM, v-prediction; the "
    "classes are the 72 captions with one object) that draws coloured shapes",
    "sd3-mini": "(joint-attention transformer, two CLIPs and a T5, rectified flow) for scenes of "
    "coloured shapes",
    "flux-mini": "(transformer of double and single blocks, a CLIP and a T5, rectified flow, "
    "guidance in its time embedding) for scenes of coloured shapes",
    "sd-mini-controlnet": "(sd-mini with a ControlNet on images of edges) that draws captioned "
    "scenes of coloured shapes where the edges are",
    "sdxl-mini-controlnet": "(sdxl-mini with a ControlNet on images of edges) that draws captioned "
    "scenes of coloured shapes where the edges are",
}
UNSEEN = """15 % of the captions, chosen by a hash, were never trained on."""
GUIDED = """
Its hidden tokens learned to tell what sdxl-mini's U-Net knows (`engine/minis/alignment.py`)."""
ALL_CLASSES = """All 72 classes were trained: one that was not would have no meaning. The places
and sizes of the objects are new in every image."""


def captions_for(name: str, count: int) -> list[str]:
    """The captions on which a card is measured: held-out ones, or all classes in turn."""
    if name == "dit-mini":
        every = scenes.captions(1)
        return [every[i % len(every)] for i in range(count)]
    return scenes.evaluation_captions(count, np.random.default_rng(0))


def measure(name: str, folder: Path, scorer: ClipScorer, count: int) -> dict[str, Any]:
    """Checker accuracy and CLIP score of a trained miniature, and how well a ControlNet's images
    follow their edges."""
    pipeline = pipelines.open_pipeline(name, folder)
    family = pipelines.FAMILIES[name]
    captions = captions_for(name, count)
    images = judge.draw(pipeline, captions, family.steps)
    few = judge.draw(pipeline, captions, judge.FEW_STEPS)
    found: dict[str, Any] = {
        "captions": count,
        "steps": family.steps,
        **judge.judged(images, captions),
        "clip_score": float(np.mean(scorer.scores(images, captions))),
        "accuracy_few_steps": judge.judged(few, captions)["accuracy"],
    }
    if family.control:
        found |= followed(images, captions, "")
        without = judge.draw(pipeline, captions, family.steps, controlnet_conditioning_scale=0.0)
        found |= followed(without, captions, "_without")
    return found


def followed(images: list[NDArray[np.uint8]], captions: list[str], suffix: str) -> dict[str, float]:
    """Mean overlap with the scene whose edges were given (the index is the seed), and the share
    of images that reach FOLLOWED."""
    overlaps = [
        edges.overlap(image, edges.placed(caption, seed))
        for seed, (image, caption) in enumerate(zip(images, captions, strict=True))
    ]
    share = float(np.mean([value >= FOLLOWED for value in overlaps]))
    return {f"overlap{suffix}": float(np.mean(overlaps)), f"followed{suffix}": share}


def write(folder: Path, training: dict[str, Any]) -> dict[str, Any]:
    """Measure what is in ``folder`` (unless its weights are random) and write card.json and
    README.md; returns what card.json holds."""
    name = training["name"]
    scores: dict[str, Any] = {"random": training["random"]}
    if not training["random"]:
        scorer = ClipScorer(judge.scorer_folder(folder))
        scores["pipeline"] = measure(name, folder, scorer, training["captions"])
    (folder / "card.json").write_text(json.dumps(scores, indent=1) + "\n", encoding="utf-8")
    (folder / "README.md").write_text(text(name, training, scores), encoding="utf-8")
    return scores


def text(name: str, training: dict[str, Any], scores: dict[str, Any]) -> str:
    """The card in Markdown."""
    head = textwrap.fill(
        f"A miniature: a real `{pipelines.FAMILIES[name].pipeline}` {WHAT[name]} at 64 x 64 "
        "pixels. It shares sd-mini's autoencoder and, where it reads words, its CLIP or a small "
        "T5. It lets DiffAgent be used and tested offline and without an accelerator. Nothing "
        "measured on it carries over to a real model.",
        100,
    )
    made = _random(name) if training["random"] else _made(name, training)
    numbers = "Quality: not measured." if training["random"] else _numbers(name, scores)
    return f"""\
---
library_name: diffusers
license: apache-2.0
---

# {name}

{head}

![samples](samples.png)

## How it was made

{made}

## What it scores

{numbers}
"""


def _random(name: str) -> str:
    command = f"`python -m engine.minis.train {name} preset=cpu` trains it."
    if pipelines.FAMILIES[name].control:
        base = name.removesuffix("-controlnet")
        return f"""\
Random weights: the ControlNet was never trained. It starts as a copy of the U-Net's encoder with
outputs of zero, so it draws what {base} draws, and the edges change nothing yet.
{command}"""
    return f"""\
Random weights: the denoiser was never trained, so its images show nothing. It is here for its
shape: every technique of its class can be tried on it.
{command}"""


def _made(name: str, training: dict[str, Any]) -> str:
    parts = ", ".join(
        f"{part} {training['schedules'][part]['steps']} steps of "
        f"{training['schedules'][part]['batch']} ({seconds / 60:.0f} min)"
        for part, seconds in training["seconds"].items()
    )
    precision = "bfloat16 autocast" if training["bfloat16"] else "float32"
    return f"""\
`python -m engine.minis.train {name} preset={training["preset"]}` on {training["device"]}
({precision}, torch {training["torch"]}): {parts}; {training["parameters"] / 1e6:.2f} M trained
parameters. The data are {training["pool"]} scenes rendered by `engine/minis/scenes.py`.
{ALL_CLASSES if name == "dit-mini" else UNSEEN}{GUIDED if name == "pixart-mini" else ""}
Weights are stored in fp16.{training.get("note", "")}"""


def _numbers(name: str, scores: dict[str, Any]) -> str:
    drawn = scores["pipeline"]
    which = "images over all classes" if name == "dit-mini" else "held-out captions"
    rows = [("checker accuracy, one object (shape and colour)", drawn["accuracy_one"])]
    if "accuracy_two" in drawn:
        rows.append(
            ("checker accuracy, two objects (both and their relation)", drawn["accuracy_two"])
        )
    rows.append((f"checker accuracy with {judge.FEW_STEPS} steps", drawn["accuracy_few_steps"]))
    if "overlap" in drawn:
        rows += [
            ("mean overlap of the objects with their edges", drawn["overlap"]),
            (f"images whose objects overlap by {100 * FOLLOWED:.0f} % or more", drawn["followed"]),
            ("the same with the control switched off", drawn["followed_without"]),
        ]
    table = "\n".join(f"| {label} | {100 * value:.1f} % |" for label, value in rows)
    guidance = pipelines.FAMILIES[name].guidance
    return f"""\
Written by `python -m engine.minis.card {name}`; {drawn["captions"]} {which}, {drawn["steps"]}
steps, guidance {guidance:g}.

| | |
|---|---|
{table}
| CLIP score of its images | {drawn["clip_score"]:.1f} |"""
