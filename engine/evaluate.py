"""Program to Result: the cascade that every candidate goes through.

Generate the program, load it in a worker, count its cost, see that its techniques act, then time
and score it against the resident baseline on 2 prompts, on 8, and on the 36 held-out ones when it
stands on the front. A candidate that fails at any stage costs only itself.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from engine import models, program, results
from engine.config import Config
from engine.errors import TrialError, UsageError
from engine.genome import canonical, describe, key
from engine.measure import paired, quality
from engine.measure.paired import Pairs, Series, Timed
from engine.measure.summary import fidelity, summarised
from engine.program import Subject
from engine.results import Genome, Result, Sample
from engine.worker.pool import Load, Pool, Worker

if TYPE_CHECKING:
    from engine.hardware import Machine

HOPELESS_LOSS = 0.3
"""Loss on two prompts from which a candidate is not worth eight."""
WARM_CALLS = 5
"""Most calls of a warm-up; it ends earlier once two in a row differ by less than 10 %."""


@dataclass
class Accounts:
    """Seconds spent on what a study is for; the rest of its wall time is overhead."""

    spent: dict[str, float] = field(
        default_factory=lambda: {"generate": 0.0, "load": 0.0, "score": 0.0}
    )

    @contextlib.contextmanager
    def on(self, name: str) -> Iterator[None]:
        started = time.monotonic()
        try:
            yield
        finally:
            self.spent[name] += time.monotonic() - started

    @property
    def total(self) -> float:
        return sum(self.spent.values())


@dataclass(frozen=True)
class Facts:
    """What a worker's warm-up told: cost of one image and the first call's seconds."""

    flops: int | None
    forwards: int
    first_call_s: float
    unknown: tuple[str, ...] = ()


class _Baseline:
    """The resident baseline as an arm. Its failure is ours and ends the study, resumable."""

    def __init__(self, worker: Worker, facts: Facts) -> None:
        self.worker = worker
        self.facts = facts
        self.pid = worker.pid
        self.pause = worker.pause
        self.resume = worker.resume

    def generate(self, prompt: str, seed: int) -> Any:
        try:
            return self.worker.generate(prompt, seed)
        except TrialError as error:
            raise RuntimeError(f"the baseline failed: {error.reason}") from error


class Evaluator:
    """Measures genomes of one configuration; holds the workers, the scorer and the accounts.

    ``folder`` receives one folder a trial, and ``baseline/`` with the baseline's program. Close
    it, or use it in a ``with``, so that no worker is left.
    """

    def __init__(self, config: Config, machine: Machine, folder: Path) -> None:
        self.config = config
        self.machine = machine
        self.folder = folder
        self.accounts = Accounts()
        self.location = models.locate(config.model)
        self.subject = subject(config, machine, self.location)
        self.baseline = canonical(config.baseline.technique)
        self._models = {config.model.id: self.location.path_or_id}
        self._pool = Pool(machine.device, folder / "logs")
        self._scorer: quality.ClipScorer | None = None
        self._base: _Baseline | None = None

    def __enter__(self) -> Evaluator:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()

    def close(self) -> None:
        """Kill all workers."""
        self._pool.close()

    # --- programs and workers

    def program(self, genome: Genome) -> str:
        return program.generate(self.subject, genome, describe(genome))

    @contextlib.contextmanager
    def running(self, genome: Genome, text: str) -> Iterator[tuple[Worker, Facts]]:
        """A loaded and warm worker with its facts."""
        worker = self._load(genome, text)
        try:
            yield worker, self._warm(worker)
        finally:
            worker.close()

    def _load(self, genome: Genome, text: str) -> Worker:
        with self.accounts.on("load"):
            worker = self._pool.spawn()
            try:
                worker.load(
                    Load(
                        program=text,
                        strategies=tuple(genome),
                        models=self._models,
                        denoiser=self.subject.denoiser,
                        device=self.machine.device,
                        threads=self.config.hw.threads or self.machine.cores,
                        timeout_s=self.config.search.timeout_s,
                    )
                )
            except BaseException:
                worker.close()
                raise
        return worker

    def _warm(self, worker: Worker) -> Facts:
        """Calls until the time settles, and the cost in a call of its own (untimed)."""
        prompt = self.prompts(1, "search", 0)[0]
        with self.accounts.on("generate"):
            seconds = [worker.generate(prompt, 0).seconds]
            limit = self.config.search.first_call_s
            if self.machine.device == "cpu" and seconds[0] > limit:
                raise TrialError(
                    "run",
                    f"the first call took {seconds[0]:.0f} s; search.first_call_s={limit:g} "
                    "is the limit on a CPU",
                )
            cost = worker.cost(prompt, 1)
            worker.check_active()
            if self.config.objective == "time":
                while len(seconds) < WARM_CALLS and not _settled(seconds):
                    seconds.append(worker.generate(prompt, len(seconds) + 1).seconds)
        return Facts(cost["flops"], cost["forwards"], seconds[0], tuple(cost["unknown"]))

    def base(self) -> _Baseline:
        """The resident baseline, started on first use."""
        if self._base is None:
            text = self.program(self.baseline)
            path = self.folder / "baseline" / "accelerated.py"
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text, encoding="utf-8")
            try:
                worker = self._load(self.baseline, text)
                self._base = _Baseline(worker, self._warm(worker))
            except TrialError as error:
                raise UsageError(
                    f"the baseline itself failed at {error.stage}: {error.reason}"
                ) from error
            worker.pause()
        return self._base

    def applicable(self) -> dict[str, str | None]:
        """Strategy to the reason why it cannot apply to this model here; None where it can."""
        base = self.base()
        reasons = base.worker.applicable(self.subject.denoiser, self.machine.device)
        base.pause()
        return reasons

    # --- the cascade

    def evaluate(
        self, trial: int, genome: Genome, origin: str, parents: Sequence[int] = ()
    ) -> Result:
        """Rungs 0 and 1; writes ``<trial>/result.json`` atomically and returns it."""
        started, busy = time.monotonic(), self.accounts.total
        blank = Result(trial, genome, key(genome), origin, tuple(parents))
        folder = self.folder / str(trial)
        folder.mkdir(parents=True, exist_ok=True)
        try:
            result = self._cascade(blank, folder)
        except TrialError as error:
            result = replace(blank, stage=error.stage, reason=error.reason)
        if (folder / "accelerated.py").exists():
            result = replace(result, program=f"{trial}/accelerated.py")
        result = replace(
            result, wall_s=time.monotonic() - started, busy_s=self.accounts.total - busy
        )
        results.save(result, folder / "result.json")
        return result

    def _cascade(self, blank: Result, folder: Path) -> Result:
        base = self.base()
        text = self.program(blank.genome)
        (folder / "accelerated.py").write_text(text, encoding="utf-8")
        prompts = self.prompts(self.config.measure.search_prompts, "search", blank.trial + 1)
        rng = self.rng_for("search", blank.trial)
        pairs = Pairs(prompts, rng)
        with self.running(blank.genome, text) as (worker, facts):
            few = rounds_for(self.config.measure.first_prompts)
            first = self.rounds(base, worker, pairs, few, rng)
            result = self.result(blank, [first], 0, facts, worker, folder)
            if result.loss is not None and result.loss > self._hopeless():
                note = f"stopped after {self.config.measure.first_prompts} prompts: hopeless loss"
                return replace(result, notes=(*result.notes, note))
            rest = rounds_for(self.config.measure.search_prompts) - few
            if rest <= 0:
                return replace(result, rung=1)
            more = self.rounds(base, worker, pairs, rest, rng, few)
            return self.result(blank, [first, more], 1, facts, worker, folder)

    def _hopeless(self) -> float:
        return max(HOPELESS_LOSS, 4 * self.config.goal.max_loss)

    def accept(self, told: Result) -> Result:
        """Rung 2: fresh seeds on the held-out prompts replace every earlier figure.

        The search's own result is kept beside it as ``search.json``.
        """
        folder = self.folder / str(told.trial)
        blank = Result(told.trial, told.genome, told.key, told.origin, told.parents)
        text = (folder / "accelerated.py").read_text(encoding="utf-8")
        result = self.acceptance(blank, text, folder, 0)
        result = replace(
            result,
            program=told.program,
            wall_s=(told.wall_s or 0.0) + (result.wall_s or 0.0),
            busy_s=(told.busy_s or 0.0) + (result.busy_s or 0.0),
        )
        if told.rung < 2 and told.samples:
            results.save(told, folder / "search.json")
        results.save(result, folder / "result.json")
        return result

    def acceptance(self, blank: Result, text: str, folder: Path, repeat: int) -> Result:
        """Measure a program on the 36 held-out prompts; ``repeat`` chooses the seeds.

        Pictures are written under ``folder``; the result is returned, not written.
        """
        started, busy = time.monotonic(), self.accounts.total
        rng = self.rng_for("acceptance", blank.trial, repeat)
        prompts = self.prompts(self.config.measure.acceptance_prompts, "acceptance", 0)
        try:
            base = self.base()
            with self.running(blank.genome, text) as (worker, facts):
                pairs = Pairs(prompts, rng)
                series = self.rounds(
                    base, worker, pairs, rounds_for(self.config.measure.acceptance_prompts), rng
                )
                result = self.result(blank, [series], 2, facts, worker, folder)
        except TrialError as error:
            result = replace(blank, stage=error.stage, reason=f"at acceptance: {error.reason}")
        return replace(result, wall_s=time.monotonic() - started, busy_s=self.accounts.total - busy)

    def rounds(
        self,
        base: Any,
        worker: Worker,
        pairs: Pairs,
        count: int,
        rng: np.random.Generator,
        first: int = 0,
    ) -> Series:
        timed = self.config.objective == "time"
        with self.accounts.on("generate"), paired.device_lock(self.machine.device):
            series = paired.measure(
                base, worker, pairs, count, rng, first_round=first, watch_load=timed
            )
        base.pause()
        return series

    def result(
        self,
        blank: Result,
        parts: list[Series],
        rung: int,
        facts: Facts,
        worker: Worker,
        folder: Path,
    ) -> Result:
        with self.accounts.on("score"):
            samples = self._samples([t for part in parts for t in part.timed], folder)
            whole = Series(tuple(t for part in parts for t in part.timed))
            decibels, similarity = fidelity(whole)
        memory = worker.memory_gib(self.machine.device)
        base = self.base()
        base_memory = base.worker.memory_gib(self.machine.device)
        base.pause()
        repeated = sum(p.repeated for p in parts)
        contaminated = sum(p.contaminated for p in parts)
        notes = [f"{repeated} rounds repeated because of other load"] if repeated else []
        notes += [f"{contaminated} rounds kept in spite of other load"] if contaminated else []
        notes += [f"cost unknown: {', '.join(facts.unknown)}"] if facts.unknown else []
        filled = replace(
            blank,
            rung=rung,
            memory_gib=memory,
            memory_base_gib=base_memory,
            cost_flops=facts.flops,
            cost_base_flops=base.facts.flops,
            forwards=facts.forwards,
            load_s=worker.load_s,
            first_call_s=facts.first_call_s,
            notes=tuple(notes),
            samples=tuple(samples),
            psnr=decibels,
            ssim=similarity,
        )
        return summarised(filled, self.config.objective)

    def _samples(self, timed: list[Timed], folder: Path) -> list[Sample]:
        """Scored samples; their pictures are written beside the result."""
        from PIL import Image

        images, prompts = [t.image for t in timed], [t.prompt for t in timed]
        scores: list[float | None] = [None] * len(timed)
        scorer = self.scorer()
        if scorer is not None:
            scores = list(scorer.scores(images, prompts))
        correct = quality.checker(images, prompts) if self.location.is_mini else [None] * len(timed)
        samples = []
        (folder / "images").mkdir(parents=True, exist_ok=True)
        for t, score, right in zip(timed, scores, correct, strict=True):
            name = f"images/{t.round:02d}-{t.position}-{t.arm}.png"
            Image.fromarray(t.image).save(folder / name)
            samples.append(
                Sample(t.arm, t.round, t.position, t.prompt, t.seed, t.seconds, score, right, name)
            )
        return samples

    def scorer(self) -> quality.ClipScorer | None:
        """The model's scorer; None when the model names none (quality is then not measured)."""
        if self._scorer is None and self.config.model.scorer is not None:
            with self.accounts.on("load"):
                self._scorer = quality.ClipScorer(models.locate_scorer(self.config.model))
        return self._scorer

    # --- prompts and chance

    def prompts(self, count: int, part: str, salt: int) -> list[str]:
        if self.config.prompt is not None:
            return [self.config.prompt] * count
        return models.prompts(self.config.model, count, self.config.search.seed + 7919 * salt, part)

    def rng_for(self, purpose: str, *numbers: int) -> np.random.Generator:
        """Chance that depends on the study's seed alone, so that a study can be repeated."""
        words = [ord(letter) for letter in purpose]
        return np.random.default_rng([self.config.search.seed, *words, *numbers])


def subject(config: Config, machine: Machine, location: models.Location) -> Subject:
    """What the programs of this configuration run."""
    model = config.model
    named = model.weights not in ("mini", "hub")
    return Subject(
        name=model.name,
        id=location.path_or_id if named else model.id,
        revision=None if location.is_mini else location.revision,
        pipeline=model.pipeline,
        denoiser=model.denoiser,
        steps=model.steps,
        guidance_scale=model.guidance_scale,
        height=model.height,
        width=model.width,
        miniature=location.is_mini,
        device=machine.device,
    )


def rounds_for(prompts: int) -> int:
    """Rounds that take at least so many prompts, two a round."""
    return (prompts + 1) // 2


def _settled(seconds: list[float]) -> bool:
    return len(seconds) > 1 and abs(seconds[-1] / seconds[-2] - 1) < 0.1
