"""Images that are scored and not timed, so that a loss is known better than a time needs.

A time is known after a few rounds, a loss is not: over 8 prompts its interval reaches some 5
points to either side, and the best of many candidates is then the luckiest one. Each candidate that
is worth it therefore draws the same further requests, for which the baseline's images are drawn
once a study.
"""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from engine import results
from engine.measure.paired import Arm, Timed
from engine.requests import Request

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from engine.accounts import Accounts


class Drawn:
    """The further requests of a study and the baseline's answers, kept in ``folder``.

    Jobs of one study may run in several processes, so what one of them drew is read by the others.
    """

    def __init__(self, folder: Path, requests: list[Request], accounts: Accounts) -> None:
        self._folder = folder
        self._requests = requests
        self._accounts = accounts
        self._base: list[Timed] | None = None

    def both(
        self, base: Arm, candidate: Arm, first_round: int, start: int = 0, stop: int | None = None
    ) -> list[Timed]:
        """Both arms' images of the requests from ``start`` up to ``stop``, in rounds of two, of
        which ``first_round`` is that of the very first request."""
        ours = self.base_images(base, first_round)[start:stop]
        base.pause()
        with self._accounts.on("generate"):
            theirs = self.draw(candidate, first_round, start, stop)
        return [*ours, *theirs]

    def draw(
        self, candidate: Arm, first_round: int, start: int = 0, stop: int | None = None
    ) -> list[Timed]:
        """A candidate's images of the requests from ``start`` up to ``stop``."""
        return self._draw(candidate, "candidate", first_round, start, stop)

    def _draw(
        self, arm: Arm, name: str, first_round: int, start: int = 0, stop: int | None = None
    ) -> list[Timed]:
        arm.resume()
        found = []
        for number, request in list(enumerate(self._requests))[start:stop]:
            answer = arm.generate(request)
            found.append(
                self._timed(name, number, first_round, request, answer.seconds, answer.images)
            )
        return found

    def base_images(self, base: Arm, first_round: int) -> list[Timed]:
        """The baseline's images of every request, drawn on first use."""
        if self._base is None:
            self._base = self._stored(first_round)
        if self._base is None:
            with self._accounts.on("generate"):
                self._base = self._draw(base, "base", first_round)
            self._store(self._base)
        return [replace(one, round=first_round + i // 2) for i, one in enumerate(self._base)]

    @staticmethod
    def _timed(
        arm: str,
        number: int,
        first_round: int,
        request: Request,
        seconds: float,
        images: NDArray[np.uint8],
    ) -> Timed:
        position = 2 * (number % 2) + (arm == "candidate")
        place = first_round + number // 2
        return Timed(arm, place, position, request, seconds, images, clocked=False)

    def _store(self, drawn: list[Timed]) -> None:
        from PIL import Image

        self._folder.mkdir(parents=True, exist_ok=True)
        for number, one in enumerate(drawn):
            for index, image in enumerate(one.images):
                Image.fromarray(image).save(self._folder / f"{number:03d}-{index}.png")
        # Written last: it says that the pictures are whole.
        results.write_json(self._folder / "drawn.json", [self._row(one) for one in drawn])

    def _stored(self, first_round: int) -> list[Timed] | None:
        """What another process drew; None where nobody has, for other requests, or where the
        pictures were pruned."""
        import numpy as np
        from PIL import Image

        path = self._folder / "drawn.json"
        if not path.exists():
            return None
        rows = json.loads(path.read_text(encoding="utf-8"))
        asked = [(request.prompts, request.seed) for request in self._requests]
        if [(row["prompts"], row["seed"]) for row in rows] != asked:
            return None
        found = []
        for number, (row, request) in enumerate(zip(rows, self._requests, strict=True)):
            files = [self._folder / f"{number:03d}-{i}.png" for i in range(row["images"])]
            if not all(file.exists() for file in files):
                return None
            images = np.stack([np.asarray(Image.open(file), np.uint8) for file in files])
            found.append(self._timed("base", number, first_round, request, row["seconds"], images))
        return found

    @staticmethod
    def _row(one: Timed) -> dict[str, object]:
        request = one.request
        images = len(one.images)
        return {
            "prompts": request.prompts,
            "seed": request.seed,
            "seconds": one.seconds,
            "images": images,
        }
