"""What a configuration asks of its programs: the cases of each part, the workload, the chance."""

from __future__ import annotations

import dataclasses
from collections import Counter
from collections.abc import Collection, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from engine.inputs import Inputs
from engine.measure.paired import Pairs
from engine.requests import Case, Request, Shape, read_cases, split

if TYPE_CHECKING:
    import numpy as np

    from engine.schema import Config


SIZES = 8
"""Sizes of a user's images that a program names as measured."""


class Asked:
    """Cases, requests and chance of one configuration; all follow from it, so that a study can be
    repeated. The parts search and acceptance share no prompt."""

    def __init__(self, config: Config, inputs: Inputs) -> None:
        self._config = config
        self._inputs = inputs
        self.shapes: tuple[Shape, ...] = config.workload.shapes
        self._own: dict[str, list[Case]] | None = None
        if config.data is not None:
            cases = read_cases(Path(config.data).expanduser())
            inputs.check(cases, f"data={config.data}")
            self._own = split(cases)
        inputs.check_shapes(self.shapes)

    def measured(self) -> tuple[Shape, ...]:
        """The shapes that programs are measured for: the workload's or, where images to start
        from keep their size, the commonest sizes of the user's; none for the model's own."""
        if self.shapes or self._own is None or self._config.model.task != "image":
            return self.shapes
        from PIL import Image

        sizes: Counter[tuple[int, int]] = Counter()
        for case in (case for part in self._own.values() for case in part):
            with Image.open(str(case.image)) as image:
                sizes[image.height, image.width] += 1
        return tuple(Shape(height, width) for (height, width), _ in sizes.most_common(SIZES))

    def cases(self, count: int, part: str, salt: int = 0) -> list[Case]:
        """``count`` cases of a part; ``salt`` chooses others of the same part."""
        if self._config.prompt is not None:
            return [self._inputs.case(self._config.prompt)] * count
        seed = self._config.search.seed + 7919 * salt
        if self._own is None:
            return self._inputs.cases(count, seed, part)
        import numpy as np

        pool = self._own[part]
        order = np.random.default_rng(seed).permutation(len(pool))
        return [pool[order[i % len(pool)]] for i in range(count)]

    def seeded(self, seed: int) -> Asked:
        """The same with another seed in place of ``search.seed``."""
        search = dataclasses.replace(self._config.search, seed=seed)
        return Asked(dataclasses.replace(self._config, search=search), self._inputs)

    def pairs(
        self, count: int, part: str, rng: np.random.Generator, salt: int = 0, after: int = 0
    ) -> Pairs:
        """Fresh requests over so many cases, those that follow the first ``after``."""
        return Pairs(self.cases(after + count, part, salt)[after:], rng, self.shapes)

    def trials(self, salt: int = 0, besides: Collection[str] = ()) -> list[tuple[Request, float]]:
        """One request of each shape, with its share of the requests, for warm-up and counting;
        ``salt`` chooses other cases, and prompts ``besides`` are left out as far as there are
        others."""
        shapes: Sequence[Shape | None] = self.shapes or (None,)
        weights = [shape.weight if shape else 1.0 for shape in shapes]
        found = []
        for shape, weight in zip(shapes, weights, strict=True):
            batch = shape.batch if shape else 1
            drawn = self.cases(batch + len(besides), "search", salt)
            cases = tuple(sorted(drawn, key=lambda case: case.prompt in besides)[:batch])
            found.append((Request(cases, 0, shape), weight / sum(weights)))
        return found

    def rng(self, purpose: str, *numbers: int) -> np.random.Generator:
        """Chance that depends on the study's seed alone, so that a study can be repeated."""
        import numpy as np

        words = [ord(letter) for letter in purpose]
        return np.random.default_rng([self._config.search.seed, *words, *numbers])

    def data(self) -> dict[str, Any] | None:
        """The user's file and its two parts as JSON; None where the model's own set is used."""
        if self._own is None:
            return None
        parts = {part: [case.prompt for case in cases] for part, cases in self._own.items()}
        return {"file": self._config.data, **parts}

    def workload(self) -> dict[str, Any] | None:
        """The mix of shapes as JSON; None for single images of the model's size."""
        if not self.shapes:
            return None
        shapes = [dataclasses.asdict(shape) for shape in self.shapes]
        return {"name": self._config.workload.name, "shapes": shapes}
