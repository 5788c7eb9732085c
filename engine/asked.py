"""What a configuration asks of its programs: the cases of each part, the workload, the chance."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from engine import models
from engine.measure.paired import Pairs
from engine.requests import Case, Request, Shape, read_cases, split

if TYPE_CHECKING:
    import numpy as np

    from engine.schema import Config


class Asked:
    """Cases, requests and chance of one configuration; all follow from it, so that a study can be
    repeated. The parts search and acceptance share no prompt."""

    def __init__(self, config: Config) -> None:
        self._config = config
        self.shapes: tuple[Shape, ...] = config.workload.shapes
        self._own: dict[str, list[Case]] | None = None
        if config.data is not None:
            self._own = split(read_cases(Path(config.data).expanduser()))

    def cases(self, count: int, part: str, salt: int = 0) -> list[Case]:
        """``count`` cases of a part; ``salt`` chooses others of the same part."""
        if self._config.prompt is not None:
            return [Case(self._config.prompt)] * count
        seed = self._config.search.seed + 7919 * salt
        if self._own is None:
            return [Case(text) for text in models.prompts(self._config.model, count, seed, part)]
        import numpy as np

        pool = self._own[part]
        order = np.random.default_rng(seed).permutation(len(pool))
        return [pool[order[i % len(pool)]] for i in range(count)]

    def pairs(self, count: int, part: str, rng: np.random.Generator, salt: int = 0) -> Pairs:
        """Fresh requests over so many cases."""
        return Pairs(self.cases(count, part, salt), rng, self.shapes)

    def trials(self) -> list[tuple[Request, float]]:
        """One request of each shape, with its share of the requests, for warm-up and counting."""
        shapes: Sequence[Shape | None] = self.shapes or (None,)
        weights = [shape.weight if shape else 1.0 for shape in shapes]
        found = []
        for shape, weight in zip(shapes, weights, strict=True):
            cases = tuple(self.cases(shape.batch if shape else 1, "search"))
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
