"""What a study will take, before its search begins: time, and disk in bytes.

Disk follows from the pictures, which are most of it: how many a trial leaves is known, and how
large they are is measured on two of the baseline's own answers for each shape. Code that
compilation leaves in its cache (``paths.compile``) is not counted.
"""

from __future__ import annotations

import dataclasses
import io
import json
import shutil
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from engine.arms import WARM_CALLS
from engine.errors import UsageError
from engine.measure.paired import rounds_for
from engine.requests import Shape, turns
from engine.results import Result, Sample

if TYPE_CHECKING:
    from engine.evaluate import Evaluator
    from engine.schema import Config

BLOCK = 4096
"""Bytes in which file systems give out space: a small file takes more than it holds."""
SURE = 1.5
"""The factor within which a finished study's disk is expected to lie of its forecast."""
PROGRAM = 1.6
"""Length of a candidate's program, relative to the baseline's."""
LEDGER = (100_000, 3_500)
"""Bytes of an empty ledger, and of each trial in it."""
PAGE = 120_000
"""Bytes of a report without its pictures."""
PAIR = 6
"""The first pair's sheet of two enlarged pictures, in pictures."""
THUMBNAIL = 20_000
"""Bytes of a picture in a report, where larger ones are made small."""


@dataclass(frozen=True)
class Work:
    """How many candidates a study measures, accepts and shows on its front."""

    candidates: int
    accepted: int
    front: int

    @classmethod
    def of(cls, config: Config, start: int | None = None) -> Work:
        """``start`` counts the candidates that the study starts from, where that is known."""
        from engine.finalists import ACCEPTED

        first = len(config.search.start) if start is None else start
        candidates = config.population * config.generations + first
        # A quarter fails or is no faster, however few there are.
        accepted = min(max(1, round(0.75 * candidates)), ACCEPTED)
        return cls(candidates, accepted, max(1, accepted // 3))


@dataclass(frozen=True)
class Times:
    """Seconds of the search, of the acceptance, and of one image of the baseline."""

    search: float
    acceptance: float
    image: float


@dataclass(frozen=True)
class Disk:
    """Bytes that a study takes when it ends, and what is left of them with its ``keep``."""

    most: int
    kept: int

    def words(self) -> str:
        low, high = (self.most / SURE, self.most * SURE)
        text = f"about {_mb(self.most)} MB of disk ({_mb(low)} to {_mb(high)})"
        return text if self.kept == self.most else f"{text}, {_mb(self.kept)} MB of it kept"


def _mb(size: float) -> str:
    return f"{size / 2**20:.1f}" if size < 10 * 2**20 else f"{size / 2**20:.0f}"


def allocated(size: float) -> int:
    """The bytes that a file of that size takes on a disk."""
    return -(-int(size) // BLOCK) * BLOCK


def times(config: Config, seconds: Sequence[float], load_s: float, work: Work) -> Times:
    """From the seconds of the baseline's requests, which follow the workload's turns.

    A candidate is taken to need half of the baseline's time, so that a pair of requests takes one
    and a half.
    """
    shapes: Sequence[Shape | None] = config.workload.shapes or (None,)
    order: Sequence[Shape | None] = [None] * len(seconds)
    if config.workload.shapes:
        order = turns(config.workload.shapes, len(seconds))
    taken = {
        shape: statistics.median([s for s, o in zip(seconds, order, strict=True) if o == shape])
        for shape in shapes
        if shape in order
    }
    mean = sum(taken[shape] for shape in order) / len(order)
    images = sum(shape.batch if shape else 1 for shape in order) / len(order)
    warm = load_s + 0.5 * (WARM_CALLS + 2) * sum(taken.values())
    measure = config.measure
    # The baseline draws once what is only scored.
    each = warm + 1.5 * mean * measure.search_prompts + 0.5 * mean * measure.scored_prompts
    once = mean * measure.scored_prompts
    final = warm + 1.5 * mean * measure.acceptance_prompts
    # The plain program is measured once more and takes some three times the baseline's time.
    plain = 4 * mean * measure.acceptance_prompts
    return Times(once + work.candidates * each, work.accepted * final + plain, mean / images)


def disk(config: Config, picture: Mapping[Shape | None, int], program: int, work: Work) -> Disk:
    """From the bytes of a stored picture of each shape and of the baseline's program."""
    measure = config.measure
    searched, pictures = _answers(config, picture, measure.search_prompts)
    scored, stored = _answers(config, picture, measure.scored_prompts)
    held_out, final = _answers(config, picture, measure.acceptance_prompts)
    # Hydra leaves three files in a folder of their own; pictures have a folder too.
    frame = allocated(PROGRAM * program) + (1 + 3 + 3) * BLOCK
    trial = frame + pictures + _result(searched + scored)
    more = final + _result(held_out)
    logs = (work.candidates + work.accepted + 5) * BLOCK
    ledger = LEDGER[0] + LEDGER[1] * work.candidates
    # A report holds the pictures of its front as text, of which each byte takes four thirds.
    small = min(THUMBNAIL, sum(picture.values()) / len(picture))
    page = PAGE + work.front * held_out * small * 4 / 3
    first_pair = PAIR * next(iter(picture.values()))
    own = sum(map(allocated, (ledger, page, first_pair)))
    # study.json, front.json, best/, and baseline/ with the plain program's pictures and result and
    # one arm's pictures of what is only scored.
    own += 3 * allocated(PROGRAM * program) + 8 * BLOCK + more + stored // 2
    most = own + logs + work.candidates * trial + work.accepted * more
    gone = logs + (work.candidates - work.front) * pictures
    gone += (work.accepted - work.front) * final
    return Disk(most, most - gone if config.keep == "front" else most)


def _answers(config: Config, picture: Mapping[Shape | None, int], prompts: int) -> tuple[int, int]:
    """Images of both arms over so many requests, and the bytes that they take."""
    count = 2 * rounds_for(prompts)
    shapes: Sequence[Shape | None] = [None] * count
    if config.workload.shapes:
        shapes = turns(config.workload.shapes, count)
    images = 2 * sum(shape.batch if shape else 1 for shape in shapes)
    size = 2 * sum((s.batch if s else 1) * allocated(picture[s]) for s in shapes)
    return images, size


def _result(samples: int) -> int:
    """Bytes of a result.json with so many samples, told from one with typical figures."""
    figure = 0.1234567890123456
    sample = Sample(
        "candidate", 10, 3, "a red circle left of a blue square on white", 2**30, figure,
        image="images/10-3-candidate.png", correct=True, height=512, width=512,
    )  # fmt: skip
    sample = dataclasses.replace(sample, score=figure, psnr=figure, ssim=figure)
    row = len(json.dumps({"samples": [dataclasses.asdict(sample)]}, indent=1))
    head = len(json.dumps(dataclasses.asdict(Result(0, {}, "0" * 16)), indent=1))
    # Most figures of the head are null in an empty result and numbers in a true one.
    return allocated(1.5 * head + samples * row)


def pictures(evaluator: Evaluator) -> dict[Shape | None, int]:
    """Bytes of a stored picture of each shape, as the baseline's own answers are stored."""
    from PIL import Image

    base = evaluator.arms.base()
    found: dict[Shape | None, int] = {}
    with evaluator.accounts.on("generate"):
        base.resume()
        for request, _share in evaluator.asked.trials():
            sizes = []
            for seed in (1, 2):
                answer = base.generate(dataclasses.replace(request, seed=seed))
                for image in answer.images:
                    stream = io.BytesIO()
                    Image.fromarray(image).save(stream, "PNG")
                    sizes.append(len(stream.getvalue()))
            found[request.shape] = round(sum(sizes) / len(sizes))
        base.pause()
    return found


def check_space(folder: Path, wanted: Disk) -> str | None:
    """A warning where the disk may become full; raises UsageError where it is likely to.

    ``folder`` is the study's; what it holds already is not needed a second time.
    """
    held = sum(allocated(p.lstat().st_size) for p in folder.rglob("*") if not p.is_dir())
    free = shutil.disk_usage(folder).free
    needed = wanted.most - held
    if needed > free:
        raise UsageError(
            f"the study needs about {_mb(needed)} MB more, and {folder} has {_mb(free)} MB free; "
            "remove pictures of ended studies with +prune=all, or type paths.outputs=FOLDER"
        )
    if needed * SURE > free:
        return f"the disk may become full: {_mb(free)} MB are free at {folder}"
    return None


def words(work: Work, ahead: Times | None, space: Disk, minutes: Any) -> str:
    """The forecast on one line; ``minutes`` writes seconds for a person."""
    text = f"forecast: {work.candidates} candidates"
    if ahead is not None:
        text += f" in about {minutes(ahead.search)}, acceptance about {minutes(ahead.acceptance)}"
        text += f" (the baseline takes {ahead.image:.2f} s an image)"
    return f"{text}; {space.words()}, compiled code aside; nothing to download"
