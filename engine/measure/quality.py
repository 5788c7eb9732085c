"""From pixels to quality: CLIP score, fidelity to another image, the exact checker.

This is the trusted scorer; no candidate's code runs where it runs. Images are uint8 arrays of
height x width x 3.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
from numpy.typing import NDArray

from engine.errors import UsageError
from engine.minis import scenes
from engine.minis.checker import check

if TYPE_CHECKING:
    import torch

Image = NDArray[np.uint8]

IDENTICAL_DB = 120.0
"""PSNR of identical images, which is infinite: no 8-bit image of a usual size reaches it."""
BATCH = 16
"""Images that are scored at once; bounds the scorer's memory."""


class Scorer(Protocol):
    """Says how well images show their prompts."""

    def scores(self, images: Sequence[Image], prompts: Sequence[str]) -> list[float]: ...


class ClipScorer:
    """CLIP score as Hessel et al. 2021 scale it for tables: 100 * max(cosine, 0).

    ``folder`` holds a ``CLIPModel`` and its ``CLIPTokenizer``; raises UsageError if it does not.
    """

    def __init__(self, folder: Path | str) -> None:
        import torch
        from transformers import CLIPModel, CLIPTokenizer
        from transformers.utils import logging

        logging.disable_progress_bar()
        try:
            # The scorer stays on the CPU in float32, away from what is timed and in full precision.
            model: Any = CLIPModel.from_pretrained(folder, dtype=torch.float32)
            self._tokenizer: Any = CLIPTokenizer.from_pretrained(folder)
        except (OSError, ValueError) as error:
            reason = str(error).partition("\n")[0]
            raise UsageError(
                f"{folder} holds no CLIP model with its tokenizer ({reason}); allowed: a folder "
                "that CLIPModel.from_pretrained opens"
            ) from error
        self._model = model.eval()
        self._side = int(self._model.config.vision_config.image_size)
        self._processor: Any = None
        if self._side != scenes.SIZE:
            from transformers import CLIPImageProcessor

            self._processor = CLIPImageProcessor.from_pretrained(folder)

    def scores(self, images: Sequence[Image], prompts: Sequence[str]) -> list[float]:
        """One score for each image and its prompt, in order."""
        import torch

        if len(images) != len(prompts):
            raise ValueError(f"{len(images)} images for {len(prompts)} prompts")
        found: list[float] = []
        with torch.no_grad():
            for start in range(0, len(images), BATCH):
                part = slice(start, start + BATCH)
                cosines = (self._pictures(images[part]) * self._texts(prompts[part])).sum(-1)
                found += (100 * cosines.clamp(min=0)).tolist()
        return found

    def table(self, images: Sequence[Image], prompts: Sequence[str]) -> NDArray[np.float64]:
        """The score of every image (rows) for every prompt (columns)."""
        import torch

        with torch.no_grad():
            seen = torch.cat([self._pictures(images[s]) for s in _parts(len(images))])
            said = torch.cat([self._texts(prompts[s]) for s in _parts(len(prompts))])
            found: NDArray[np.float64] = (100 * (seen @ said.T).clamp(min=0)).double().numpy()
        return found

    def likeness(self, images: Sequence[Image], others: Sequence[Image]) -> NDArray[np.float64]:
        """Cosine of every image (rows) to every other one (columns) by the image tower alone."""
        import torch

        with torch.no_grad():
            ours = torch.cat([self._pictures(images[s]) for s in _parts(len(images))])
            theirs = torch.cat([self._pictures(others[s]) for s in _parts(len(others))])
            found: NDArray[np.float64] = (ours @ theirs.T).double().numpy()
        return found

    def _pictures(self, images: Sequence[Image]) -> torch.Tensor:
        if self._processor is None:
            pixels = self._as_trained(images)
        else:
            pixels = self._processor(images=list(images), return_tensors="pt").pixel_values
        return _normalised(self._model.get_image_features(pixel_values=pixels))

    def _as_trained(self, images: Sequence[Image]) -> torch.Tensor:
        """The miniature's CLIP was trained on pixels in [-1, 1] without any other normalisation;
        pictures of another size are resampled."""
        import torch
        from PIL import Image as pil

        size = (self._side, self._side)
        fitted = [
            image
            if image.shape[:2] == size
            else np.asarray(pil.fromarray(image).resize(size, pil.Resampling.BICUBIC))
            for image in images
        ]
        stacked = torch.from_numpy(np.stack(fitted).astype(np.float32))
        return stacked.permute(0, 3, 1, 2) / 127.5 - 1

    def _texts(self, prompts: Sequence[str]) -> torch.Tensor:
        tokens = self._tokenizer(
            list(prompts),
            padding="max_length",
            truncation=True,
            max_length=self._model.config.text_config.max_position_embeddings,
            return_tensors="pt",
        )
        # Only the ids, as in training: the causal mask already hides the padding from the end.
        return _normalised(self._model.get_text_features(input_ids=tokens.input_ids))


def _parts(count: int) -> list[slice]:
    return [slice(start, start + BATCH) for start in range(0, count, BATCH)]


def _normalised(output: Any) -> torch.Tensor:
    """Unit embeddings; transformers 5 wraps them in an output object."""
    import torch

    tensor = output if isinstance(output, torch.Tensor) else output.pooler_output
    return torch.nn.functional.normalize(tensor, dim=-1)


def psnr(a: Image, b: Image) -> float:
    """Peak signal-to-noise ratio in dB; 120 for identical images. Raises ValueError when the
    shapes differ."""
    _same_shape(a, b)
    error = float(np.mean((a.astype(np.float64) - b.astype(np.float64)) ** 2))
    return IDENTICAL_DB if error == 0 else min(IDENTICAL_DB, 10 * math.log10(255**2 / error))


def ssim(a: Image, b: Image) -> float:
    """Structural similarity (Wang et al. 2004): Gaussian window of 11 pixels with sigma 1.5, only
    where it fits whole, K = 0.01 and 0.03; the mean over the colour channels, so that a change of
    colour at equal brightness counts. 1 means identical. Raises ValueError when the shapes differ
    or a side is below 11 pixels."""
    _same_shape(a, b)
    if min(a.shape[:2]) < 11:
        raise ValueError(f"images of {a.shape[:2]} are too small for a window of 11 pixels")
    x, y = a.astype(np.float64), b.astype(np.float64)
    mean_x, mean_y = _smooth(x), _smooth(y)
    var_x = _smooth(x * x) - mean_x**2
    var_y = _smooth(y * y) - mean_y**2
    shared = _smooth(x * y) - mean_x * mean_y
    c1, c2 = (0.01 * 255) ** 2, (0.03 * 255) ** 2
    similarity = ((2 * mean_x * mean_y + c1) * (2 * shared + c2)) / (
        (mean_x**2 + mean_y**2 + c1) * (var_x + var_y + c2)
    )
    return float(similarity.mean())


def _smooth(image: NDArray[np.float64]) -> NDArray[np.float64]:
    """Gaussian mean of the 11 x 11 neighbourhood, without the borders."""
    weights = np.exp(-(np.arange(-5, 6) ** 2) / (2 * 1.5**2))
    weights /= weights.sum()
    for axis in (0, 1):
        image = np.lib.stride_tricks.sliding_window_view(image, 11, axis=axis) @ weights
    return image


def _same_shape(a: Image, b: Image) -> None:
    if a.shape != b.shape:
        raise ValueError(f"images differ in shape: {a.shape} and {b.shape}")


def checker(images: Sequence[Image], prompts: Sequence[str]) -> list[bool | None]:
    """For each image whether it shows its scene; None for a prompt outside the scenes' grammar and
    for an image of another size than the scenes'."""
    size = (scenes.SIZE, scenes.SIZE)
    return [
        check(image, prompt).ok
        if scenes.parse(prompt) is not None and image.shape[:2] == size
        else None
        for image, prompt in zip(images, prompts, strict=True)
    ]
