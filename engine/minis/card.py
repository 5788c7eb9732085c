"""Score a miniature and write its model card: ``python -m engine.minis.card sd-mini``."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from engine.measure.quality import ClipScorer
from engine.minis import cards, damage, judge, pipelines, scenes
from engine.minis.checker import check

CAPTIONS = 300
DAMAGE_SCENES = 200


def scores_of_pipeline(folder: Path, scorer: ClipScorer, count: int) -> dict[str, Any]:
    """Checker accuracy on held-out captions, and how well the CLIP score knows what is right."""
    pipeline = pipelines.open_pipeline("sd-mini", folder)
    captions = scenes.evaluation_captions(count, np.random.default_rng(0))
    images = judge.draw(pipeline, captions, 50)
    right = [check(image, caption).ok for image, caption in zip(images, captions, strict=True)]
    score = scorer.scores(images, captions)
    few = judge.draw(pipeline, captions, judge.FEW_STEPS)
    few_right = [check(image, caption).ok for image, caption in zip(few, captions, strict=True)]
    few_score = scorer.scores(few, captions)
    return {
        "captions": count,
        **judge.judged(images, captions),
        "clip_score": float(np.mean(score)),
        "accuracy_few_steps": float(np.mean(few_right)),
        "clip_score_few_steps": float(np.mean(few_score)),
        "auc": auc(score + few_score, right + few_right),
    }


def scores_of_clip(scorer: ClipScorer) -> dict[str, Any]:
    """The damage ladder: mean score of exact scenes, and what each damage costs (fractions)."""
    rng = np.random.default_rng(1)
    drawn = [scenes.sample(rng, training=False) for _ in range(DAMAGE_SCENES)]
    pictures = np.stack([scenes.render(scene) for scene in drawn])
    captions = [scene.caption for scene in drawn]

    def mean(images: NDArray[np.float32], texts: list[str]) -> float:
        whole = [(255 * image).round().astype(np.uint8) for image in images]
        return float(np.mean(scorer.scores(whole, texts)))

    matched = mean(pictures, captions)
    costs: dict[str, float] = {}
    for kind in damage.KINDS:
        able = [i for i, s in enumerate(drawn) if kind != "relation" or s.relation is not None]
        wrong = [damage.wrong_scene(drawn[i], kind, rng).caption for i in able]
        own = mean(pictures[able], [captions[i] for i in able])
        costs[kind] = 1 - mean(pictures[able], wrong) / own
    ladder = {
        name: [[strength, 1 - mean(images, captions) / matched] for strength, images in steps]
        for name, steps in damage.image_ladder(pictures, rng).items()
    }
    melted = np.stack([damage.melted(scene, rng) for scene in drawn])
    costs["melted"] = 1 - mean(melted, captions) / matched
    return {"matched": matched, "costs": costs, "ladder": ladder}


def auc(scores: list[float], right: list[bool]) -> float | None:
    """Chance that a right image scores higher than a wrong one; None without both kinds."""
    good = np.asarray([s for s, ok in zip(scores, right, strict=True) if ok])
    bad = np.asarray([s for s, ok in zip(scores, right, strict=True) if not ok])
    if not len(good) or not len(bad):
        return None
    above = (good[:, None] > bad).mean() + 0.5 * (good[:, None] == bad).mean()
    return float(above)


def write(folder: Path) -> dict[str, Any]:
    """Measure the pipeline in ``folder`` with the CLIP beside it, as its training.json says; write
    card.json and README.md."""
    training = json.loads((folder / "training.json").read_text(encoding="utf-8"))
    if training.get("name", "sd-mini") != "sd-mini":
        return cards.write(folder, training)
    scorer = ClipScorer(judge.scorer_folder(folder))
    captions = training.get("captions", CAPTIONS)
    scores = {
        "pipeline": scores_of_pipeline(folder, scorer, captions),
        "clip": scores_of_clip(scorer),
    }
    (folder / "card.json").write_text(json.dumps(scores, indent=1) + "\n", encoding="utf-8")
    (folder / "README.md").write_text(_text(folder.name, training, scores), encoding="utf-8")
    return scores


def _text(name: str, training: dict[str, Any], scores: dict[str, Any]) -> str:
    drawn, clip = scores["pipeline"], scores["clip"]
    minutes = {part: seconds / 60 for part, seconds in training["seconds"].items()}
    steps = {part: training["schedules"][part]["steps"] for part in minutes}
    made = ", ".join(f"{p} {steps[p]} steps ({minutes[p]:.0f} min)" for p in minutes)
    costs = "\n".join(f"| {kind} | {100 * cost:.1f} % |" for kind, cost in clip["costs"].items())
    ladder = "\n".join(
        f"| {name} {strength:g} | {100 * cost:.1f} % |"
        for name, steps_ in clip["ladder"].items()
        for strength, cost in steps_
    )
    few = judge.FEW_STEPS
    number = "not measured" if drawn["auc"] is None else f"{drawn['auc']:.3f}"
    return f"""\
---
library_name: diffusers
license: apache-2.0
---

# {name}

A miniature text-to-image model: a real `StableDiffusionPipeline` (U-Net, KL autoencoder, CLIP text
encoder, DDIM, v-prediction) that draws captioned scenes of coloured shapes at 64 x 64 pixels, such
as "a red circle left of a blue square on a white background". It lets DiffAgent be used and tested
offline and without an accelerator. Nothing measured on it carries over to a real model.

![samples](samples.png)

## How it was made

`python -m engine.minis.train {name} preset={training["preset"]}` on {training["device"]}
({"bfloat16 autocast" if training["bfloat16"] else "float32"}, torch {training["torch"]}): {made}.
The data are scenes rendered by `engine/minis/scenes.py`; 15 % of the captions, chosen by a hash,
were never trained on. Weights are stored in fp16.{training.get("note", "")}

## What it scores

Written by `python -m engine.minis.card {name}`; {drawn["captions"]} held-out captions, 50 DDIM
steps, guidance 5.

| | |
|---|---|
| checker accuracy, one object (shape and colour) | {100 * drawn["accuracy_one"]:.1f} % |
| checker accuracy, two objects (both and their relation) | {100 * drawn["accuracy_two"]:.1f} % |
| CLIP score of its images | {drawn["clip_score"]:.1f} |
| the same with {few} steps: checker accuracy | {100 * drawn["accuracy_few_steps"]:.1f} % |
| the same with {few} steps: CLIP score | {drawn["clip_score_few_steps"]:.1f} |
| AUC of the CLIP score against the checker, both sets | {number} |

## What its CLIP sees

Score of exact scenes with their captions: {clip["matched"]:.1f}. What damage costs, as a share of
that score ({DAMAGE_SCENES} held-out scenes):

| wrong in the caption, or melted shapes | cost |
|---|---|
{costs}

| damage to the image (noise: deviation; blur: pixels) | cost |
|---|---|
{ladder}
"""


def main(arguments: list[str]) -> int:
    from engine.minis.pipelines import NAMES
    from engine.minis.train import CHECKPOINTS

    if len(arguments) != 1 or arguments[0] not in NAMES:
        print(f"usage: python -m engine.minis.card {{{','.join(NAMES)}}}", file=sys.stderr)
        return 2
    scores = write(CHECKPOINTS / arguments[0])
    print(json.dumps(scores, indent=1))
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
