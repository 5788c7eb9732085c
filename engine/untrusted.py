"""Measuring a program of a language model: in the sandbox, on secret requests, with every check.

What is timed and what is only scored is mixed, and nothing that is asked follows from what a
program can know, so that it cannot behave differently where it counts. What it says, what the
worker saw and what was measured here must then agree (``engine.honesty``).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from engine import honesty, likeness
from engine.attempts import Attempt, Before, asked_again, look_request, require_python
from engine.drawn import Drawn
from engine.errors import TrialError
from engine.honesty import Again, Declared, Measurements, Suspicion, Variant
from engine.measure import paired
from engine.measure.paired import Pairs, Series, Timed, rounds_for
from engine.requests import Request, Shape
from engine.results import Result
from engine.worker.conversation import Worker
from engine.worker.evidence import Evidence

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from engine.arms import Baseline, Facts
    from engine.evaluate import Evaluator
    from engine.reading import Reading

KNOWN_PROMPTS = 64
"""Prompts of the published sets that a text is searched for."""
ASKED_AGAIN = 2
"""Requests that are repeated."""
COMPARED = 24
"""Most pictures of an arm that are compared with each other."""


class Refused(Exception):
    """A program that was caught; ``seen`` is the evidence that was gathered."""

    def __init__(self, found: Sequence[Suspicion], seen: Evidence | None) -> None:
        super().__init__(honesty.reasons(found))
        self.found = tuple(found)
        self.seen = seen


@dataclass(frozen=True)
class Looks:
    """What was seen of a program before it was timed, beside what its text says."""

    reading: Reading | None
    declared: Declared
    seen: Evidence
    other: Evidence


class Untrusted:
    """Measures untrusted programs for an evaluator; keeps what all of them are compared with."""

    def __init__(self, evaluator: Evaluator) -> None:
        self._evaluator = evaluator
        self._arms = evaluator.arms
        self._config = evaluator.config
        self._base: Evidence | None = None
        self._rate: float | None = None
        self._scored: Drawn | None = None

    # --- the cascade

    def search(self, blank: Result, text: str, folder: Path) -> Result:
        """Rungs 0 and 1 of a program; its failures are TrialErrors, a dishonest one is told with
        the stage "honesty" and with the evidence."""
        require_python(text)
        blank = replace(blank, effective=_effective(text), notes=honesty.lint(text))
        return self._twice(lambda turn: self._search(blank, text, folder, turn), blank)

    def accept(self, blank: Result, text: str, folder: Path, repeat: int, first: int = 0) -> Result:
        """Rung 2: as the search, on the held-out prompts, and on requests of other kinds. ``first``
        is the number of the first round."""
        require_python(text)

        def measure(turn: int) -> Result:
            return self._accept(blank, text, folder, 2 * repeat + turn, first)

        return self._twice(measure, blank)

    def _twice(self, measure: Callable[[int], Result], blank: Result) -> Result:
        """A result that cannot be is measured once more, in a fresh process on other prompts; the
        second measurement counts."""
        try:
            return measure(0)
        except Refused as refused:
            if not all(one.quarantine for one in refused.found):
                return _dishonest(blank, refused)
            note = f"measured twice: the first time {refused}"
        try:
            again = measure(1)
            return replace(again, notes=(*again.notes, note))
        except Refused as refused:
            return _dishonest(blank, refused)

    def _search(self, blank: Result, text: str, folder: Path, turn: int) -> Result:
        ev, secret = self._evaluator, self._arms.secret
        base = self._arms.base()
        number = 2 * blank.trial + turn
        rng = secret.rng("search", number)
        count = self._config.measure.search_prompts
        pairs = ev.asked.pairs(count, "search", rng, secret.number("prompts", number))
        with self._arms.running(blank.genome, text, untrusted=True) as (worker, facts):
            looks = self._look(worker, blank, text, number, facts)
            blank = replace(blank, evidence=looks.seen.as_json())
            few = rounds_for(self._config.measure.first_prompts)
            parts = [ev.rounds(base, worker, pairs, few, rng)]
            result = ev.result(blank, parts, 0, facts, worker, folder)
            hopeless = ev.why_left(result, first=True)
            if hopeless is None:
                rest = rounds_for(count) - few
                parts += self._mixed(base, worker, pairs, rest, rng, few)
                result = ev.result(blank, parts, 1, facts, worker, folder)
            else:
                note = f"stopped after {self._config.measure.first_prompts} prompts: {hopeless}"
                result = replace(result, notes=(*result.notes, note))
            timed = [one for part in parts for one in part.timed]
            self._judge(worker, looks, result, timed, facts, rng)
        return replace(result, notes=(*blank.notes, *result.notes))

    def _accept(self, blank: Result, text: str, folder: Path, repeat: int, first: int) -> Result:
        ev, secret = self._evaluator, self._arms.secret
        rng = secret.rng("acceptance", blank.trial, repeat)
        count = self._config.measure.acceptance_prompts
        salt = secret.number("held out", blank.trial, repeat)
        pairs = ev.asked.pairs(count, "acceptance", rng, salt)
        base = self._arms.base()
        with self._arms.running(blank.genome, text, untrusted=True) as (worker, facts):
            looks = self._look(worker, blank, text, -1 - repeat, facts)
            series = ev.rounds(base, worker, pairs, rounds_for(count), rng, first)
            filled = replace(blank, evidence=looks.seen.as_json())
            result = ev.result(filled, [series], 2, facts, worker, folder)
            variants = self._variants(worker, rng)
            self._judge(worker, looks, result, series.timed, facts, rng, variants)
        return replace(result, notes=(*blank.notes, *result.notes))

    def _mixed(
        self,
        base: Baseline,
        worker: Worker,
        pairs: Pairs,
        rounds: int,
        rng: np.random.Generator,
        first: int,
    ) -> list[Series]:
        """Timed rounds and pairs that are only scored, in an order that nobody knows."""
        ev = self._evaluator
        drawn = self._drawn()
        scored = drawn.base_images(base, first + rounds)
        base.pause()
        kinds = rng.permutation([True] * rounds + [False] * math.ceil(len(scored) / 2))
        found: list[Series] = []
        turn = asked = 0
        for timed in kinds:
            if timed:
                found.append(ev.rounds(base, worker, pairs, 1, rng, first + turn))
                turn += 1
            else:
                with ev.accounts.on("generate"), paired.device_lock(self._arms.machine.device):
                    scored += drawn.draw(worker, first + rounds, asked, asked + 2)
                asked += 2
                worker.pause()
        return [*found, Series(tuple(scored))]

    def _drawn(self) -> Drawn:
        """The secret requests that are only scored; all programs of a study get the same ones."""
        if self._scored is None:
            ev, secret = self._evaluator, self._arms.secret
            rng = secret.rng("scored")
            pairs = ev.asked.pairs(max(1, ev.scored), "search", rng, secret.number("scored"))
            folder = self._arms.folder / "baseline" / "scored-secret"
            self._scored = Drawn(folder, pairs.draw(ev.scored), ev.accounts)
        return self._scored

    # --- looking

    def believed(self, text: str, tried: Attempt) -> Attempt:
        """An attempt that also failed, at the stage "honesty", where what was seen of the one
        image contradicts the text: whoever wrote it can then repair it before it is measured."""
        if tried.evidence is None:
            return tried
        declared = self._declared(Result(0, {}, "", ""), text)
        found = honesty.suspicions(_reading(text), tried.evidence, declared)
        if not found:
            return tried
        return replace(tried, ok=False, stage="honesty", reason=honesty.reasons(found))

    def _look(self, worker: Worker, blank: Result, text: str, number: int, facts: Facts) -> Looks:
        """Evidence of a secret request and of one that anybody can know; refuses a program that
        already contradicts itself."""
        with self._arms.accounts.on("generate"):
            other = worker.evidence(self._arms.asked.trials()[0][0])
            request = look_request(self._arms, "look", number, facts.prompts)
            seen = worker.evidence(request)
        looks = Looks(_reading(text), self._declared(blank, text), seen, other)
        found = honesty.suspicions(
            looks.reading, seen, looks.declared, Measurements(other=looks.other)
        )
        if found:
            raise Refused(found, seen)
        return looks

    def _declared(self, blank: Result, text: str) -> Declared:
        request, _ = self._arms.asked.trials()[0]
        subject = self._arms.subject
        shape = request.shape or Shape(subject.height, subject.width)
        # An image to start from gives the size.
        sized = subject.task != "image"
        return Declared(
            text=text,
            base=self._base_evidence(),
            methods=tuple(blank.genome),
            height=shape.height if sized else None,
            width=shape.width if sized else None,
            images=len(request.cases),
            threads=self._config.hw.threads or self._arms.machine.cores,
            first_call_s=self._config.search.first_call_s,
            prompts=tuple(self._known_prompts()),
        )

    def _known_prompts(self) -> list[str]:
        if self._config.data is not None or self._config.prompt is not None:
            return []
        return [
            case.prompt
            for part in ("search", "acceptance")
            for case in self._arms.asked.cases(KNOWN_PROMPTS, part)
            # A class's name is a word of the language.
            if " " in case.prompt
        ]

    def _base_evidence(self) -> Evidence:
        """What is seen of the baseline in one image: the same workload, run by our own program."""
        if self._base is None:
            base = self._arms.base()
            request = look_request(self._arms, "baseline")
            self._base = base.worker.evidence(request)
            self._rate = base.worker.rate(self._arms.machine.device)
            base.pause()
        return self._base

    # --- judging

    def _judge(
        self,
        worker: Worker,
        looks: Looks,
        result: Result,
        timed: Sequence[Timed],
        facts: Facts,
        rng: np.random.Generator,
        variants: tuple[Variant, ...] = (),
    ) -> None:
        """Raises Refused for a program whose pictures or figures cannot be what they seem."""
        told = self._measured(timed, result, facts)
        told = replace(told, again=self._again(worker, timed, rng), variants=variants)
        found = honesty.suspicions(looks.reading, looks.seen, looks.declared, told)
        if found:
            raise Refused(found, looks.seen)

    def _again(self, worker: Worker, timed: Sequence[Timed], rng: np.random.Generator) -> Again:
        """Some of the requests once more, and once with another seed."""
        mine = [one for one in timed if one.arm == "candidate"]
        chosen = rng.choice(len(mine), min(ASKED_AGAIN, len(mine)), replace=False)
        before = [
            Before(first.request, first.images[0], int(rng.integers(2**31)), first.seconds)
            for first in (mine[int(place)] for place in chosen)
        ]
        with self._arms.accounts.on("generate"):
            return asked_again(worker, before)

    def _measured(self, timed: Sequence[Timed], result: Result, facts: Facts) -> Measurements:
        series = Series(tuple(timed))
        ours, theirs = series.of("candidate")[:COMPARED], series.of("base")[:COMPARED]
        images = [image for one in ours for image in one.images]
        base = [image for one in theirs for image in one.images]
        prompts = [case.prompt for one in ours for case in one.request.cases]
        scorer = self._evaluator.scoring.scorer()
        told = replace(
            likeness.measured(scorer, images, base, prompts),
            seconds=result.seconds_per_image,
            seconds_base=result.seconds_base,
            load_s=facts.load_s,
            load_base_s=result.load_base_s,
            flops=result.cost_flops,
            flops_base=result.cost_base_flops,
            rate=self._rate,
        )
        if scorer is None or told.likeness is None:
            return told
        import numpy as np

        texts = [self._evaluator.scoring.text(prompt) for prompt in prompts]
        tables = [scorer.table(pictures, texts) for pictures in (images, base)]
        return replace(
            told,
            own_first=(_own_first(tables[0], prompts), _own_first(tables[1], prompts)),
            scores=(float(np.diag(tables[0]).mean()), float(np.diag(tables[1]).mean())),
        )

    def _variants(self, worker: Worker, rng: np.random.Generator) -> tuple[Variant, ...]:
        """A prompt of several and another size, each asked once: what is offered works beyond what
        was measured."""
        subject = self._arms.subject
        if subject.task != "text":
            return ()
        cases = self._arms.asked.cases(3, "acceptance", int(rng.integers(2**31)))
        long = " and ".join(case.prompt for case in cases)
        size = Shape(subject.height, subject.width - _side_step(subject.width))
        asked = (
            ("a long prompt", Request((replace(cases[0], prompt=long),), 1), None),
            (f"{size.name} pixels", Request((cases[0],), 1, size), size),
        )
        return tuple(self._variant(worker, *one) for one in asked)

    def _variant(self, worker: Worker, name: str, request: Request, size: Shape | None) -> Variant:
        subject = self._arms.subject
        shape = size or Shape(subject.height, subject.width)
        try:
            image = worker.generate(request).images[0]
        except TrialError as error:
            return Variant(name, (shape.height, shape.width), None, error.reason)
        return Variant(name, (shape.height, shape.width), (image.shape[0], image.shape[1]))


def _side_step(side: int) -> int:
    """By how much another size differs: a multiple of what every model can take."""
    return 64 if side >= 256 else 16


def _own_first(table: NDArray[np.float64], prompts: Sequence[str]) -> float:
    """Share of the pictures that no other prompt fits better than their own."""
    best = [prompts[int(row.argmax())] for row in table]
    return sum(a == b for a, b in zip(best, prompts, strict=True)) / len(prompts)


def _dishonest(blank: Result, refused: Refused) -> Result:
    evidence = refused.seen.as_json() if refused.seen else blank.evidence
    return replace(blank, stage="honesty", reason=str(refused), evidence=evidence)


def _reading(text: str) -> Reading | None:
    """What the text says; None for one that is nested deeper than the reader goes."""
    from engine import reading

    try:
        return reading.read(text)
    except reading.NotPython as error:
        raise TrialError("compile", str(error)) from None
    except RecursionError:
        return None


def _effective(text: str) -> str | None:
    from engine import reading

    found = _reading(text)
    return None if found is None else reading.effective_key(found)
