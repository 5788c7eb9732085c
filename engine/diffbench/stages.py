"""The three stages that a program goes through; the first that fails names the class of its error.

1. What its text says against the task, and against what the counters see while it draws.
2. The CLIP score of ten captions against the reference program's own, and whether it is honest.
3. Of L4 and L5 the loss over 36 captions, and the speed by its interval.
"""

from __future__ import annotations

import contextlib
import dataclasses
import math
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from engine.attempts import Before, asked_again
from engine.diffbench import bench as benches
from engine.diffbench import foreign, looks, questions
from engine.diffbench.agreement import disagreements
from engine.diffbench.verdicts import (
    ABSOLUTE,
    COMPILE,
    KEY,
    QUALITY,
    SPEED,
    UNDECIDED,
    Conditions,
    Verdict,
)
from engine.errors import TrialError
from engine.honesty import Again, Suspicion, reasons
from engine.measure import statistics
from engine.measure.paired import Series
from engine.reading import NotPython, Reading, read
from engine.reading.effective import filled
from engine.results import Result
from engine.specification import mismatches

if TYPE_CHECKING:
    from engine.diffbench.bench import Bench
    from engine.diffbench.tasks import Task
    from engine.requests import Request
    from engine.worker.conversation import Worker
    from engine.worker.evidence import Evidence

KEPT_SCORE = 0.90
"""Share of the reference's CLIP score that stage 2 asks for (paper.md, stage 2)."""
REPEATED = 2
"""Captions that are asked three times, twice with one seed."""
CONTROL = Conditions("", None, "", "", 1, "")


@dataclass(frozen=True)
class Goal:
    """What stage 3 asks for: a speed-up over the task's baseline, and how much quality it may
    cost. ``seconds`` is the latency that L5 asked for, ``labelled_s`` the baseline's latency when
    the targets were made."""

    baseline: str
    """The program of the baseline."""
    speedup: float
    max_loss: float
    seconds: float | None = None
    labelled_s: float | None = None


def score(
    task: Task, program: str, bench: Bench, reference: str, goal: Goal | None, repeat: int = 0
) -> Verdict:
    """The verdict on a program. ``reference`` is the reference program; ``goal`` is that of L4 and
    L5.

    Raises UsageError where nothing can be scored here, RuntimeError where the reference or the
    baseline fails.
    """
    started = time.monotonic()
    blank = Verdict(
        task.id,
        task.level,
        CONTROL,
        repeat,
        program=program,
        share=0.0 if task.difficulty == "hard" else None,
    )
    scoring = _Scoring(task, program, bench, blank)
    verdict = scoring.through(reference, goal)
    return replace(verdict, seconds=time.monotonic() - started, spent=dict(scoring.spent))


class _Failed(Exception):
    """The stage that is at work has failed."""

    def __init__(self, error: str, reason: str, traceback: str = "", **found: Any) -> None:
        super().__init__(reason)
        self.error = error
        self.reason = reason
        self.traceback = traceback
        self.found = found


class _Scoring:
    """One program on its way through the stages; ``verdict`` grows."""

    def __init__(self, task: Task, program: str, bench: Bench, blank: Verdict) -> None:
        self.task = task
        self.program = program
        self.bench = bench
        self.verdict = blank
        self.spent: dict[str, float] = {}
        """Seconds by part, as in ``verdicts.PARTS``."""
        self.place = Path("images") / task.id
        """Where pictures go, below the run's folder."""
        if blank.repeat:
            self.place = self.place / str(blank.repeat)

    def through(self, reference: str, goal: Goal | None) -> Verdict:
        try:
            self._enter(1)
            reading = self._stated()
            text = foreign.runnable(self.program)
            with contextlib.ExitStack() as stack:
                worker = self._loaded(text, stack)
                evidence = self._seen(worker, reading)
                self._suspected(self._of_program(reading, evidence, reference))
                self._enter(2)
                self._absolute(worker, reference)
            if goal is not None:
                self._enter(3)
                return self._relative(text, goal)
            return replace(self.verdict, passed=True)
        except _Failed as failed:
            return replace(
                self.verdict,
                errors=(failed.error,),
                reason=failed.reason,
                traceback=failed.traceback,
                **failed.found,
            )

    def _enter(self, stage: int) -> None:
        self.verdict = replace(self.verdict, stage=stage)

    @contextlib.contextmanager
    def _on(self, part: str) -> Iterator[None]:
        started = time.monotonic()
        try:
            yield
        finally:
            self.spent[part] = self.spent.get(part, 0.0) + time.monotonic() - started

    # --- stage 1

    def _stated(self) -> Reading:
        """The text against the task."""
        try:
            reading = read(self.program)
        except NotPython as error:
            raise _Failed(COMPILE, f"no Python: {error}") from None
        self.verdict = replace(self.verdict, reading=reading.to_json())
        wrong = mismatches(self.task.specification, reading)
        if wrong:
            rows = tuple(dataclasses.asdict(one) for one in wrong)
            raise _Failed(KEY, "; ".join(map(str, wrong)), mismatches=rows)
        return reading

    def _loaded(self, text: str, stack: contextlib.ExitStack) -> Worker:
        try:
            with self._on("load"):
                return stack.enter_context(self.bench.loaded(self.task, text))
        except TrialError as error:
            raise _Failed(COMPILE, f"{error.stage}: {error.reason}", error.traceback) from None

    def _seen(self, worker: Worker, reading: Reading) -> Evidence:
        """The text against the counters of one image."""
        (request,) = self.bench.requests(self.task, "evidence", 1)
        try:
            with self._on("evidence"):
                evidence = worker.evidence(request)
        except TrialError as error:
            raise _Failed(COMPILE, f"{error.stage}: {error.reason}", error.traceback) from None
        self.verdict = replace(self.verdict, evidence=evidence.as_json())
        wrong = disagreements(self.task.specification, reading, evidence)
        if wrong:
            rows = tuple(dataclasses.asdict(one) for one in wrong)
            words = "; ".join(f"{m.field}: the text says {m.asked}, seen {m.found}" for m in wrong)
            raise _Failed(KEY, words, disagreements=rows)
        return evidence

    def _suspected(self, found: Sequence[Suspicion]) -> None:
        """Refuse what contradicts itself, or what cannot be the pictures of an honest program."""
        if found:
            rows = tuple({"code": one.code, "reason": one.reason} for one in found)
            kind = KEY if any(one.code in looks.ATTRIBUTES for one in found) else ABSOLUTE
            raise _Failed(kind, reasons(found), suspicions=rows)

    def _of_program(
        self, reading: Reading, evidence: Evidence, reference: str
    ) -> tuple[Suspicion, ...]:
        """Text and counters against themselves and against the reference's weights."""
        if foreign.is_script(self.program):
            # The thread in which the script is held is ours.
            rest = [name for name in evidence.background if name != foreign.THREAD]
            evidence = replace(evidence, background=tuple(rest))
        config = self.bench.evaluator(self.task).config
        threads = config.hw.threads or self.bench.machine.cores
        with self._on("reference"):
            base = self.bench.seen(self.task, reference)
        methods = tuple(self.task.specification.methods)
        # Rules hold for what is not stated, too: the pipeline's own strength, precision, guidance.
        said = filled(reading)
        return looks.of_program(self.program, methods, said, evidence, base, threads)

    # --- stage 2

    def _absolute(self, worker: Worker, reference: str) -> None:
        """Ten captions against the reference's own score."""
        requests = self.bench.requests(self.task, "captions", benches.SCORED)
        with self._on("reference"):
            ours = self.bench.reference(self.task, reference, requests)
        try:
            with self._on("captions"):
                own = self.bench.drawn(self.task, worker, requests)
            with self._on("again"):
                again = self._again(worker, requests, own)
        except TrialError as error:
            raise _Failed(ABSOLUTE, f"{error.stage}: {error.reason}", error.traceback) from None
        least = KEPT_SCORE * ours.mean
        self.verdict = replace(
            self.verdict,
            images=self._kept(own, "own"),
            reference_images=self._kept(ours, "reference"),
            figures={
                "score": own.mean,
                "score_reference": ours.mean,
                "score_least": least,
                "accuracy": own.accuracy,
                "accuracy_reference": ours.accuracy,
                "prompts": list(own.prompts),
            },
        )
        if own.mean < least:
            raise _Failed(
                ABSOLUTE,
                f"CLIP score {own.mean:.2f}, less than {100 * KEPT_SCORE:.0f} % of the "
                f"reference's {ours.mean:.2f}",
            )
        scoring = self.bench.evaluator(self.task).scoring
        self._suspected(looks.of_pictures(scoring, own, ours, again))

    def _again(self, worker: Worker, requests: Sequence[Request], own: benches.Pictures) -> Again:
        """Some captions once more, and once with another seed."""
        before = [
            Before(
                request,
                own.images[number],
                self.bench.number(self.task, "reseeded", number) % 2**31,
                own.seconds[number],
            )
            for number, request in enumerate(requests[:REPEATED])
        ]
        return asked_again(worker, before)

    def _kept(self, pictures: benches.Pictures, name: str) -> tuple[str, ...]:
        """Pictures in the run's folder, as paths below it."""
        paths = benches.save(pictures.images, self.bench.folder / self.place / name)
        return tuple(str(path.relative_to(self.bench.folder)) for path in paths)

    # --- stage 3

    def _relative(self, text: str, goal: Goal) -> Verdict:
        """Loss and speed against the task's baseline, paired."""
        most = self.bench.config.bench.looks
        part, result = self._look(text, goal, 0)
        parts = [part]
        lost = result.loss is not None and result.loss > goal.max_loss
        while True:
            interval = speed(parts)
            word = statistics.Verdict.at_least(interval, goal.speedup)
            if lost or word is not statistics.Verdict.UNDECIDED or len(parts) == most:
                return self._told(result, interval, word, goal, len(parts))
            # The loss stays that of the first look, whose captions belong to the task.
            parts.append(self._look(text, goal, len(parts))[0])

    def _look(self, text: str, goal: Goal, number: int) -> tuple[Series, Result]:
        """One look: both programs in fresh processes, 36 captions that no look has used."""
        with self._on("baseline"):
            base = self.bench.base(self.task, goal.baseline, afresh=number > 0)
        evaluator = self.bench.evaluator(self.task)
        count = 2 * math.ceil(questions.PROMPTS / 2)
        purpose = questions.LOSS if number == 0 else f"look {number}"
        asked = self.bench.requests(self.task, purpose, count)
        pairs = questions.Fixed(asked, self.task.version, f"{self.task.id}/{purpose}")
        rng = evaluator.asked.rng("bench", number)
        folder = self.bench.folder / "work" / "look"
        try:
            with self._on("speed"), self.bench.running(self.task, text) as (worker, facts):
                series = evaluator.rounds(base, worker, pairs, count // 2, rng)
                blank = Result(0, {}, self.task.id, "bench", untrusted=True)
                return series, evaluator.result(blank, [series], 2, facts, worker, folder)
        except TrialError as error:
            kind = SPEED if error.stage == "timeout" else QUALITY
            raise _Failed(kind, f"{error.stage}: {error.reason}", error.traceback) from None

    def _told(
        self,
        result: Result,
        interval: statistics.Interval,
        word: statistics.Verdict,
        goal: Goal,
        turns: int,
    ) -> Verdict:
        figures = {
            **self.verdict.figures,
            "loss": result.loss,
            "loss_low": result.loss_low,
            "loss_high": result.loss_high,
            "max_loss": goal.max_loss,
            "speedup": interval.median,
            "speedup_low": interval.low,
            "speedup_high": interval.high,
            "speedup_paper": result.speedup_paper,
            "required": goal.speedup,
            "looks": turns,
            "load_s": result.load_s,
            "first_call_s": result.first_call_s,
            "seconds_base": result.seconds_base,
        }
        if goal.labelled_s is not None:
            # Raw seconds drift from day to day; the ratio to the baseline does not.
            figures |= {
                "seconds": goal.labelled_s / interval.median,
                "seconds_limit": goal.seconds,
                "labelled_s": goal.labelled_s,
            }
        errors, reasons = [], []
        if result.loss is None or result.loss > goal.max_loss:
            errors.append(QUALITY)
            shown = "not measured" if result.loss is None else f"{100 * result.loss:.1f} %"
            reasons.append(f"loss {shown}, allowed {100 * goal.max_loss:g} %")
        bounds = f"{interval.median:.2f}x ({interval.low:.2f} to {interval.high:.2f})"
        if word is statistics.Verdict.FAIL:
            errors.append(SPEED)
            reasons.append(f"speed-up {bounds}, required {goal.speedup:.2f}x")
        elif word is statistics.Verdict.UNDECIDED and not errors:
            errors.append(UNDECIDED)
            reasons.append(
                f"speed-up {bounds} after {turns} looks, which still holds the required "
                f"{goal.speedup:.2f}x"
            )
        hard = self.task.difficulty == "hard"
        reached = 0.0 if QUALITY in errors else min(interval.median / goal.speedup, 1.0)
        return replace(
            self.verdict,
            passed=not errors,
            errors=tuple(errors),
            reason="; ".join(reasons),
            figures=figures,
            share=reached if hard else None,
        )


def speed(parts: list[Series]) -> statistics.Interval:
    """Speed-up over all looks, each of which has processes of its own."""
    seconds = {
        arm: [s for part in parts for s in part.seconds(arm)] for arm in ("base", "candidate")
    }
    rounds = statistics.paired_ratio(seconds["base"], seconds["candidate"], 0)
    return statistics.between_workers(rounds, statistics.TWO_PROGRAMS, len(parts))
