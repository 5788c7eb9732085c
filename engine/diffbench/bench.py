"""What scoring needs and no program may know: captions and seeds, references, resident baselines.

Everything that runs for a score runs in the sandbox, the references and baselines included, so that
both arms are loaded in the same way and a published program meets the same mapping to a miniature.
"""

from __future__ import annotations

import contextlib
import dataclasses
import hashlib
import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from engine import catalogue, models, results
from engine.arms import Baseline, Facts
from engine.asked import Asked
from engine.config import from_mapping
from engine.diffbench import captions, questions
from engine.errors import TrialError
from engine.evaluate import Evaluator
from engine.inputs import Inputs, labels_of
from engine.measure import quality

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from engine.diffbench.tasks import Task
    from engine.hardware import Machine
    from engine.requests import Request
    from engine.schema import Config
    from engine.worker.conversation import Worker
    from engine.worker.evidence import Evidence

SCORED = 10
"""Captions of stage 2 (the paper's number)."""


@dataclass(frozen=True)
class Pictures:
    """Images of one program for the captions of a task, with their scores."""

    prompts: tuple[str, ...]
    images: tuple[NDArray[np.uint8], ...]
    scores: tuple[float, ...]
    """CLIP scores (cosine times 100), one an image."""
    correct: tuple[bool | None, ...]
    """The exact checker's word on a miniature's images."""
    seconds: tuple[float, ...] = ()
    """Time of each image; none of pictures that were kept."""

    @property
    def mean(self) -> float:
        return sum(self.scores) / len(self.scores)

    @property
    def accuracy(self) -> float | None:
        judged = [one for one in self.correct if one is not None]
        return sum(judged) / len(judged) if judged else None


class Bench:
    """Evaluators of one run; of those only the last model's stays open. Close it."""

    def __init__(self, config: Config, machine: Machine, folder: Path, cache: Path) -> None:
        self.config = config
        self.machine = machine
        self.folder = folder
        self.cache = cache
        self._open: Evaluator | None = None
        self._task: Task | None = None
        self._base: tuple[str, contextlib.ExitStack] | None = None
        self._seen: dict[str, Evidence] = {}

    def close(self) -> None:
        """Kill all workers."""
        if self._base is not None:
            self._base[1].close()
            self._base = None
        if self._open is not None:
            self._open.close()
            self._open = self._task = None

    def __enter__(self) -> Bench:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()

    # --- a task's configuration

    def config_of(self, task: Task) -> Config:
        """The configuration in which programs of a task are measured."""
        asked = task.specification
        data: dict[str, Any] = json.loads(json.dumps(dataclasses.asdict(self.config)))
        data["model"] = {**catalogue.entry(asked.model), "weights": self.config.bench.weights}
        data |= {"technique": {}, "study": None, "trial": None, "prompt": None}
        data["objective"] = "time"
        loss = {} if asked.max_loss is None else {"max_loss": asked.max_loss}
        data["goal"] |= {"quality": "prompt_score", **loss}
        data["baseline"] |= {"technique": {}, "program": None, "label": "the task's baseline"}
        if self.config.bench.captions is not None and data["model"]["task"] == "text":
            file = Path(self.config.bench.captions).expanduser()
            coco = file.suffix == ".json"
            data["data"] = str(captions.as_data(file, self.cache / "captions") if coco else file)
        return from_mapping(data)

    def evaluator(self, task: Task) -> Evaluator:
        """The evaluator of the task's model, with pictures of the task's size to start from."""
        if self._task == task and self._open is not None:
            return self._open
        config = self.config_of(task)
        if self._open is None or self._open.config != config:
            self.close()
            folder = self.folder / "work" / config.model.name
            # A verdict is of times and pictures.
            self._open = Evaluator(config, self.machine, folder, counts=False)
        asked, entry = task.specification, catalogue.entry(task.specification.model)
        sized = dataclasses.replace(
            config.model,
            height=asked.height or entry["height"],
            width=asked.width or entry["width"],
        )
        arms = self._open.arms
        labels = labels_of(Path(arms.location.path_or_id))
        arms.asked = self._open.asked = Asked(config, Inputs(sized, arms.folder, labels))
        self._task = task
        return self._open

    # --- captions and seeds

    def number(self, task: Task, purpose: str, index: int = 0) -> int:
        """A number that belongs to a task, its version and a purpose, and to nothing else."""
        return questions.number(task.version, task.id, purpose, index)

    def requests(self, task: Task, purpose: str, count: int) -> list[Request]:
        """``count`` held-out captions with a seed each, the same whenever the task is scored."""
        name = task.baseline if purpose == questions.LOSS and task.baseline else task.id
        asked = self.evaluator(task).asked
        return questions.requests(asked, task.version, name, purpose, count)

    # --- programs at work

    @contextlib.contextmanager
    def loaded(self, task: Task, text: str) -> Iterator[Worker]:
        """A program in the sandbox, cold."""
        worker = self.evaluator(task).arms.load({}, text, untrusted=True)
        try:
            yield worker
        finally:
            worker.close()

    @contextlib.contextmanager
    def running(self, task: Task, text: str) -> Iterator[tuple[Worker, Facts]]:
        """A program in the sandbox, warm."""
        arms = self.evaluator(task).arms
        with arms.running({}, text, limited=False, untrusted=True) as found:
            yield found

    def base(self, task: Task, text: str, afresh: bool = False) -> Baseline:
        """The task's baseline as the resident arm; ``afresh`` starts another process of it."""
        arms = self.evaluator(task).arms
        name = f"{task.specification.model}/{text}"
        if self._base is not None and (afresh or self._base[0] != name):
            self._base[1].close()
            self._base = None
        if self._base is None:
            stack = contextlib.ExitStack()
            try:
                worker, facts = stack.enter_context(self.running(task, text))
            except TrialError as error:
                raise RuntimeError(f"the baseline failed: {error.reason}") from error
            self._base = (name, stack)
            arms.adopt(Baseline(worker, facts))
            worker.pause()
        return arms.base()

    def drawn(self, task: Task, worker: Worker, requests: Sequence[Request]) -> Pictures:
        """The pictures of a program for these requests, scored."""
        answers = [worker.generate(request) for request in requests]
        images = [answer.images[0] for answer in answers]
        prompts = [request.prompts[0] for request in requests]
        scoring = self.evaluator(task).scoring
        scorer = scoring.scorer()
        if scorer is None:
            raise RuntimeError(f"model {task.specification.model} has no scorer here")
        scores = scorer.scores(images, [scoring.text(prompt) for prompt in prompts])
        judged = quality.checker(images, prompts) if scoring.miniature else [None] * len(images)
        seconds = tuple(answer.seconds for answer in answers)
        return Pictures(tuple(prompts), tuple(images), tuple(scores), tuple(judged), seconds)

    def seen(self, task: Task, text: str) -> Evidence:
        """What the worker sees of a reference program of the task's model in one image."""
        name = task.specification.model
        if name not in self._seen:
            (request,) = self.requests(task, "evidence", 1)
            try:
                with self.loaded(task, text) as worker:
                    self._seen[name] = worker.evidence(request)
            except TrialError as error:
                raise RuntimeError(f"the reference of {task.id} failed: {error.reason}") from error
        return self._seen[name]

    def reference(self, task: Task, text: str, requests: Sequence[Request]) -> Pictures:
        """The reference program's own pictures: drawn once for each task, version, weights and
        program, and kept in the cache. Raises RuntimeError when it fails, which is our fault."""
        words = json.dumps(
            [task.id, task.version, self.config.bench.weights, text, self.config.bench.captions]
            + [[r.prompts, r.seed] for r in requests]
        )
        name = hashlib.sha256(words.encode()).hexdigest()[:16]
        folder = self.cache / "references" / task.version / task.id / name
        kept = _kept(folder)
        if kept is not None:
            return kept
        try:
            with self.loaded(task, text) as worker:
                found = self.drawn(task, worker, requests)
        except TrialError as error:
            raise RuntimeError(f"the reference of {task.id} failed: {error.reason}") from error
        save(found.images, folder)
        rows = {"prompts": found.prompts, "scores": found.scores, "correct": found.correct}
        results.write_json(folder / "scores.json", rows)
        return found


def save(images: Sequence[NDArray[np.uint8]], folder: Path) -> list[Path]:
    """Write pictures as PNG, in order."""
    from PIL import Image

    folder.mkdir(parents=True, exist_ok=True)
    paths = [folder / f"{number:02d}.png" for number in range(len(images))]
    for path, image in zip(paths, images, strict=True):
        Image.fromarray(image).save(path)
    return paths


def _kept(folder: Path) -> Pictures | None:
    """What the cache holds; None where it holds nothing or a part."""
    import numpy as np
    from PIL import Image

    try:
        rows = json.loads((folder / "scores.json").read_text(encoding="utf-8"))
        images = []
        for number in range(len(rows["prompts"])):
            with Image.open(folder / f"{number:02d}.png") as picture:
                images.append(np.asarray(picture.convert("RGB"), np.uint8))
    except (OSError, ValueError, KeyError):
        return None
    return Pictures(
        tuple(rows["prompts"]), tuple(images), tuple(rows["scores"]), tuple(rows["correct"])
    )


def unavailable(task: Task, weights: str) -> str | None:
    """Why a task cannot be scored on this checkout, or None."""
    entry = catalogue.entry(task.specification.model)
    if weights != "mini":
        return None
    folder = models.CHECKPOINTS / str(entry["mini"])
    if not (folder / "model_index.json").is_file():
        return f"no miniature {entry['mini']} in this checkout"
    if models.untrained(folder):
        return f"the miniature {entry['mini']} is not trained, so no quality can be measured"
    return None
