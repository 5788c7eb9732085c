"""What a model is asked by default, for each task: prompts, class names, images to start from,
control images.

Images of miniatures, and of random weights, whose quality nobody measures, come from scenes that
are rendered exactly, so that their captions are known. For other models no images ship.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from engine import models
from engine.errors import UsageError
from engine.files import replacing
from engine.requests import Case, Shape
from engine.strategy import nearest

if TYPE_CHECKING:
    from engine.minis.scenes import Scene
    from engine.schema import ModelConfig

CLASSES = models.ROOT.parent / "prompts" / "sets" / "classes.txt"
"""Common classes of ImageNet by the first of their published names."""
IMAGES = {"image": "an image to start from", "control": "a control image"}
"""The tasks that need an image, and what it is."""
RECOLOURED = 2
"""Places by which colours move on between a scene and the image to start from."""


@dataclass(frozen=True)
class Inputs:
    """The cases of one model. ``folder`` receives the images that are rendered, in ``inputs/``;
    ``labels`` are the names of its classes as its folder has them, none where it has no classes.
    """

    model: ModelConfig
    folder: Path
    labels: tuple[str, ...] = ()

    def cases(self, count: int, seed: int, part: str) -> list[Case]:
        """``count`` cases of a part, which share no prompt with the other part's.

        Raises UsageError where the task needs images and none can be made.
        """
        if self.model.task == "class":
            return [Case(name) for name in self._classes(count, seed, part)]
        return [self.case(text) for text in models.prompts(self.model, count, seed, part)]

    def case(self, prompt: str) -> Case:
        """The case of a prompt; raises UsageError for a class that the model lacks and for a
        prompt whose image cannot be made."""
        if self.model.task == "class":
            return Case(self._known(prompt, "prompt"))
        if self.model.task in IMAGES:
            return Case(prompt, image=str(self._image(prompt)))
        return Case(prompt)

    def check(self, cases: Iterable[Case], where: str) -> None:
        """Raises UsageError for the first of the user's cases that this model cannot run."""
        task, name = self.model.task, self.model.name
        for number, case in enumerate(cases, 1):
            here = f"{where}, case {number} ({case.prompt[:40]!r})"
            if task in IMAGES and case.image is None:
                raise UsageError(
                    f"{here} has no image; model={name} needs {IMAGES[task]} in every case, as in "
                    '{"prompt": "...", "image": "FILE.png"}'
                )
            if task not in IMAGES and case.image is not None:
                raise UsageError(
                    f"{here} has an image, and model={name} takes none; leave it out, or type a "
                    "model that starts from an image, such as model=sd15-img2img"
                )
            if task == "class":
                self._known(case.prompt, here)
                if case.negative_prompt is not None:
                    raise UsageError(f"{here} has a negative_prompt; model={name} takes none")

    def check_shapes(self, shapes: Iterable[Shape]) -> None:
        """Raises UsageError for a size that a model of one size cannot draw."""
        own = (self.model.height, self.model.width)
        for shape in shapes:
            if self.model.task == "class" and (shape.height, shape.width) != own:
                raise UsageError(
                    f"workload.shapes has {shape.name}, and model={self.model.name} draws "
                    f"{own[0]}x{own[1]} only; leave out height and width, or type workload=single"
                )

    # --- classes

    def _classes(self, count: int, seed: int, part: str) -> list[str]:
        """Class names in an order of the seed; a longer list begins with the shorter one."""
        import numpy as np

        names = self._common()
        # As the prompts of other models: two in five for the search, by their hashes.
        names = sorted(names, key=lambda name: hashlib.sha256(name.encode()).hexdigest())
        cut = max(1, round(0.4 * len(names)))
        pool = names[:cut] if part == "search" else names[cut:]
        order = np.random.default_rng(seed).permutation(len(pool))
        return [pool[order[i % len(pool)]] for i in range(count)]

    def _common(self) -> list[str]:
        """Names that people know, as far as this model has them; else its own."""
        if self.model.prompts == "scenes" or _are_scenes(self.labels):
            from engine.minis import scenes

            wanted: Sequence[str] = scenes.captions(1)
        else:
            lines = CLASSES.read_text(encoding="utf-8").splitlines()
            wanted = [line.strip() for line in lines if line.strip()]
        synonyms = self._names()
        known = [name for name in wanted if not synonyms or name in synonyms]
        return known or [label.partition(",")[0].strip() for label in self.labels]

    def _names(self) -> set[str]:
        """Every name of every class."""
        return {part.strip() for label in self.labels for part in label.split(",")}

    def _known(self, name: str, where: str) -> str:
        names = self._names()
        if not names or names & {part.strip() for part in name.split(",")}:
            return name
        close = nearest(name, names).partition(" (known")[0]
        raise UsageError(f"{where}: model={self.model.name} has no class {name!r}{close}")

    # --- images

    def _image(self, prompt: str) -> Path:
        """The rendered image that belongs to a prompt, written once."""
        task = self.model.task
        scene = self._scene(prompt)
        if scene is None:
            raise UsageError(
                f"model={self.model.name} needs {IMAGES[task]} for each prompt, and none ship for "
                'it; type data=FILE with lines such as {"prompt": "...", "image": "FILE.png"}'
            )
        size = (self.model.width, self.model.height)
        name = hashlib.sha256(f"{prompt} {size}".encode()).hexdigest()[:16]
        path = self.folder / "inputs" / f"{task}-{name}.png"
        if not path.exists():
            with replacing(path) as partial:
                _picture(scene, task, size).save(partial, "PNG")
        return path

    def _scene(self, prompt: str) -> Scene | None:
        """The scene that a prompt names, placed by its hash; for random weights any will do."""
        import numpy as np

        from engine.minis import scenes

        scene = scenes.parse(prompt)
        number = int(hashlib.sha256(prompt.encode()).hexdigest()[:8], 16)
        if scene is None and self.model.weights == "random":
            captions = scenes.captions(2)
            scene = scenes.parse(captions[number % len(captions)])
        return None if scene is None else scenes.placed(scene, np.random.default_rng(number))


def _are_scenes(labels: Sequence[str]) -> bool:
    from engine.minis import scenes

    return bool(labels) and scenes.parse(labels[0]) is not None


def start_of(scene: Scene) -> Scene:
    """The scene to start from on the way to another: the same shapes at the same places on the
    same background, in other colours.

    What an image to start from gives is the layout, and what the prompt asks for beside it can
    be seen and checked: the colours of the caption. Two objects of different colours keep
    different ones.
    """
    from engine.minis.scenes import COLOURS

    names = list(COLOURS)
    items = tuple(
        replace(item, colour=names[(names.index(item.colour) + RECOLOURED) % len(names)])
        for item in scene.items
    )
    return replace(scene, items=items)


def _picture(scene: Scene, task: str, size: tuple[int, int]) -> Any:
    """The image of a scene for a task as a PIL image of a size (width, height)."""
    import numpy as np
    from PIL import Image

    from engine.minis import edges, scenes

    pixels = edges.of(scene) if task == "control" else scenes.render(start_of(scene))
    image = Image.fromarray((255 * pixels).round().astype(np.uint8))
    return image if image.size == size else image.resize(size, Image.Resampling.BICUBIC)


def labels_of(folder: Path) -> tuple[str, ...]:
    """The names of a pipeline's classes, by number, from its folder; none where it has none."""
    import json

    path = folder / "model_index.json"
    if not path.is_file():
        return ()
    found = json.loads(path.read_text(encoding="utf-8")).get("id2label") or {}
    return tuple(found[key] for key in sorted(found, key=int))
