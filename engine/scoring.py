"""From timed requests to scored samples, with their pictures beside the result."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from engine import models
from engine.measure import quality
from engine.measure.paired import Series, Timed
from engine.measure.summary import similarities
from engine.results import Sample
from engine.schema import ModelConfig


@dataclass
class Scoring:
    """The trusted scorer of one model's images; its CLIP model is loaded on first use."""

    model: ModelConfig
    miniature: bool
    cache: str | None = None
    """Folder of downloaded models; None takes the hub library's."""
    measured: bool = True
    """Whether the pictures mean anything; of random weights nothing is scored or compared."""
    _scorer: quality.ClipScorer | None = None

    def scorer(self) -> quality.ClipScorer | None:
        """The model's scorer; None when the model names none (quality is then not measured)."""
        if self._scorer is None and self.measured and self.model.scorer is not None:
            self._scorer = quality.ClipScorer(models.locate_scorer(self.model, self.cache))
        return self._scorer

    def text(self, prompt: str) -> str:
        """What an image is scored against: a class's name in the sentence of CLIP's authors
        (Radford et al. 2021, arXiv 2103.00020, section 3.1.4), anything else as it is."""
        named = self.model.task == "class" and not self.miniature
        return f"A photo of a {prompt}." if named else prompt

    def samples(self, timed: Sequence[Timed], folder: Path) -> list[Sample]:
        """One sample an image, in the order of measurement; pictures of what was timed go to
        ``folder/images``."""
        shown = [(t, i, image) for t in timed for i, image in enumerate(t.images)]
        images = [image for _, _, image in shown]
        prompts = [t.request.cases[i].prompt for t, i, _ in shown]
        scores: list[float | None] = [None] * len(shown)
        scorer = self.scorer()
        if scorer is not None:
            scores = list(scorer.scores(images, [self.text(prompt) for prompt in prompts]))
        correct: Sequence[bool | None] = [None] * len(shown)
        if self.miniature and self.measured:
            correct = quality.checker(images, prompts)
        (folder / "images").mkdir(parents=True, exist_ok=True)
        samples = [
            replace(_sample(t, i), score=score, correct=right)
            for (t, i, _), score, right in zip(shown, scores, correct, strict=True)
        ]
        from PIL import Image

        for sample, image in zip(samples, images, strict=True):
            if sample.image is not None:
                Image.fromarray(image).save(folder / sample.image)
        return _compared(samples, Series(tuple(timed))) if self.measured else samples


def _sample(timed: Timed, index: int) -> Sample:
    request = timed.request
    place = f"images/{timed.round:02d}-{timed.position}-{timed.arm}"
    picture = f"{place}.png" if index == 0 else f"{place}-{index}.png"
    return Sample(
        arm=timed.arm,
        round=timed.round,
        position=timed.position,
        prompt=request.cases[index].prompt,
        seed=request.seed + index,
        seconds=timed.seconds,
        image=picture if timed.clocked else None,
        clocked=timed.clocked,
        height=int(timed.images.shape[1]),
        width=int(timed.images.shape[2]),
        batch=len(request.cases),
        index=index,
    )


def _compared(samples: list[Sample], series: Series) -> list[Sample]:
    """The samples with each candidate's similarity to the baseline's image."""
    found = iter(similarities(series))
    order = {
        (t.round, t.position, index): next(found)
        for t in series.of("candidate")
        for index in range(len(t.images))
    }
    return [
        replace(s, psnr=pair[0], ssim=pair[1])
        if s.arm == "candidate" and (pair := order[s.round, s.position, s.index]) is not None
        else s
        for s in samples
    ]
