"""Program to Result: the cascade that every candidate goes through.

Generate the program, load it in a worker, count its cost, see that its techniques act, then time
and score it against the resident baseline on 2 prompts, on 8 (and on 16 more for the score alone),
and on the 36 held-out ones when it stands on the front. A candidate that fails at any stage costs
only itself.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from engine import models, results
from engine.arms import Arms, Facts
from engine.attempts import Attempt, attempt
from engine.drawn import Drawn
from engine.errors import TrialError
from engine.genome import key, text_key
from engine.measure import paired
from engine.measure.paired import Arm, Pairs, Series, rounds_for
from engine.measure.summary import summarised
from engine.results import Genome, Result
from engine.schema import Config
from engine.scoring import Scoring
from engine.untrusted import Untrusted
from engine.worker.conversation import Worker

if TYPE_CHECKING:
    import numpy as np

    from engine.hardware import Machine

HOPELESS_LOSS = 0.3
"""Loss on two prompts from which a candidate is not worth eight."""
HOPELESS_SPEED = 0.75
"""Speed-up on two prompts below which a candidate is not worth eight."""

PORTION = 8
"""Pictures that are scored before it is asked again whether that is enough; even, two a round."""


class Evaluator:
    """Measures genomes of one configuration; holds the workers, the scorer and the accounts.

    ``folder`` receives one folder a trial, and ``baseline/`` with the baseline's program. Close
    it, or use it in a ``with``, so that no worker is left.

    ``counts`` says whether operations are counted. ``enough`` is asked of what is known after the
    timed prompts, after the first of them, and after each portion of those that are only scored:
    why no more needs to be known, in words, or None. A search for a front has no such question; one
    whose goal names a speed has (:func:`engine.goal.beaten`).
    """

    def __init__(
        self,
        config: Config,
        machine: Machine,
        folder: Path,
        *,
        counts: bool = True,
        enough: Callable[[Result], str | None] | None = None,
    ) -> None:
        self.config = config
        self.machine = machine
        self.folder = folder
        self.arms = Arms(config, machine, folder, counts=counts)
        self.accounts = self.arms.accounts
        self.asked = self.arms.asked
        self.unmeasured = models.unmeasured(config.model)
        """Why no quality is measured, if the weights are the reason."""
        self.scoring = Scoring(
            config.model,
            self.arms.location.is_mini,
            config.paths.models,
            measured=self.unmeasured is None,
        )
        judged = self.unmeasured is None and (
            config.model.scorer is not None
            or config.goal.quality == "same_image"
            or self.arms.location.is_mini
        )
        # Where nothing judges an image, one that is not timed tells nothing.
        self.scored = scored = config.measure.scored_prompts if judged else 0
        """Requests of each candidate that are scored and not timed."""
        rng = self.asked.rng("scored")
        pairs = self.asked.pairs(scored, "search", rng) if scored else None
        self._drawn = Drawn(
            folder / "baseline" / "scored", pairs.draw(scored) if pairs else [], self.accounts
        )
        self._enough = enough
        self._drift: float | None = None
        self._untrusted = Untrusted(self)

    def __enter__(self) -> Evaluator:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()

    def close(self) -> None:
        """Kill all workers."""
        self.arms.close()

    # --- the cascade

    def evaluate(
        self,
        trial: int,
        genome: Genome,
        origin: str,
        parents: Sequence[int] = (),
        program: str | None = None,
        note: str = "",
    ) -> Result:
        """Rungs 0 and 1; writes ``<trial>/result.json`` atomically and returns it.

        A ``program`` is a language model's: it runs in the sandbox in place of the generated one,
        and ``genome`` only describes it.
        """
        started, busy = time.monotonic(), self.accounts.total
        name = key(genome) if program is None else text_key(program)
        blank = Result(trial, genome, name, origin, tuple(parents), note=note)
        blank = replace(blank, untrusted=program is not None)
        folder = self.folder / str(trial)
        folder.mkdir(parents=True, exist_ok=True)
        try:
            result = self._cascade(blank, folder, program)
        except TrialError as error:
            result = replace(blank, stage=error.stage, reason=error.reason)
        if (folder / "accelerated.py").exists():
            result = replace(result, program=f"{trial}/accelerated.py")
        result = replace(
            result, wall_s=time.monotonic() - started, busy_s=self.accounts.total - busy
        )
        results.save(result, folder / "result.json")
        return result

    def attempt(self, program: str) -> Attempt:
        """Load an untrusted program, draw one image, gather evidence; its failures are told, and
        so is what the evidence shows to be otherwise than the text says."""
        return self._untrusted.believed(program, attempt(self.arms, program))

    def _cascade(self, blank: Result, folder: Path, program: str | None) -> Result:
        text = self.arms.program(blank.genome) if program is None else program
        (folder / "accelerated.py").write_text(text, encoding="utf-8")
        if program is not None:
            return self._untrusted.search(blank, text, folder)
        base = self.arms.base()
        rng = self.asked.rng("search", blank.trial)
        count = self.config.measure.search_prompts
        pairs = self.asked.pairs(count, "search", rng, blank.trial + 1)
        with self.arms.running(blank.genome, text) as (worker, facts):
            parts: list[Series] = []
            for part in self._parts(base, worker, pairs, rng):
                parts.append(part)
                asked = sum(len(one.of("candidate")) for one in parts)
                if len(parts) > 1 and (self._enough is None or asked >= count + self.scored):
                    continue
                result = self.result(blank, parts, 0, facts, worker, folder)
                why = self.why_left(result, first=len(parts) == 1)
                if why is not None:
                    return _stopped(result, asked, why)
            return self.result(blank, parts, 1, facts, worker, folder)

    def _parts(
        self, base: Arm, worker: Worker, pairs: Pairs, rng: np.random.Generator
    ) -> Iterator[Series]:
        """What a candidate is asked, part by part: the first timed rounds, the other ones, and what
        is only scored."""
        count = rounds_for(self.config.measure.search_prompts)
        few = rounds_for(self.config.measure.first_prompts)
        parts = [self.rounds(base, worker, pairs, few, rng)]
        yield parts[0]
        if count > few:
            parts.append(self.rounds(base, worker, pairs, count - few, rng, few))
            yield parts[1]
        # What is no faster never stands on a front, whatever its loss. (Counted costs must not
        # depend on a clock.)
        if self.config.objective == "flops" or sum(map(_saved, parts)) > 0:
            portion = PORTION if self._enough is not None else max(1, self.scored)
            for start in range(0, self.scored, portion):
                stop = min(start + portion, self.scored)
                with paired.device_lock(self.machine.device):
                    drawn = self._drawn.both(base, worker, count, start, stop)
                yield Series(tuple(drawn))

    def why_left(self, result: Result, *, first: bool) -> str | None:
        """Why a candidate is not worth more prompts, in words; None where it is. ``first``: only
        the first prompts were drawn so far."""
        why = self._hopeless(result) if first else None
        return why or (self._enough(result) if self._enough else None)

    def _hopeless(self, result: Result) -> str | None:
        goal = self.config.goal
        limit = math.inf if goal.max_loss is None else max(HOPELESS_LOSS, 4 * goal.max_loss)
        if result.loss is not None and result.loss > limit:
            return "hopeless loss"
        # What saves memory may be slow.
        if (result.speedup or 0.0) < HOPELESS_SPEED and not goal.names_memory:
            return "much slower than the baseline"
        return None

    def accept(self, told: Result) -> Result:
        """Rung 2: fresh seeds on the held-out prompts replace every earlier figure.

        The search's own result is kept beside it as ``search.json``.
        """
        folder = self.folder / str(told.trial)
        blank = told.blank()
        text = (folder / "accelerated.py").read_text(encoding="utf-8")
        result = self.acceptance(blank, text, folder, 0)
        result = _continued(result, told)
        if told.rung < 2 and told.samples:
            results.save(told, folder / "search.json")
        results.save(result, folder / "result.json")
        return result

    def look_again(self, told: Result) -> Result:
        """Rung 2 once more, on the held-out prompts that follow, as far as there are more, and on
        fresh processes of both programs: two processes have a luck of their own, which no number of
        prompts shows. The figures are then those of all looks together."""
        folder = self.folder / str(told.trial)
        text = (folder / "accelerated.py").read_text(encoding="utf-8")
        self.arms.renew_base()
        first = told.looks * rounds_for(self.config.measure.acceptance_prompts)
        result = self.acceptance(told.blank(), text, folder, told.looks, first=first)
        if result.ok:
            both = replace(
                result,
                looks=told.looks + 1,
                samples=(*told.samples, *result.samples),
                notes=(*told.notes, *result.notes),
            )
            result = summarised(both, self.config.objective, self.drift())
        result = _continued(result, told)
        results.save(result, folder / "result.json")
        return result

    def acceptance(
        self,
        blank: Result,
        text: str,
        folder: Path,
        repeat: int,
        pairs: Pairs | None = None,
        *,
        first: int = 0,
    ) -> Result:
        """Measure a program on the 36 held-out prompts; ``repeat`` chooses the seeds, or ``pairs``
        are what a program of ours is asked. ``first`` is the number of the first round.

        Pictures are written under ``folder``; the result is returned, not written.
        """
        started, busy = time.monotonic(), self.accounts.total
        rng = self.asked.rng("acceptance", blank.trial, repeat)
        count = self.config.measure.acceptance_prompts
        pairs = pairs or self.asked.pairs(count, "acceptance", rng, after=2 * first)
        try:
            if blank.untrusted:
                result = self._untrusted.accept(blank, text, folder, repeat, first)
            else:
                base = self.arms.base()
                with self.arms.running(blank.genome, text) as (worker, facts):
                    series = self.rounds(base, worker, pairs, rounds_for(count), rng, first)
                    result = self.result(blank, [series], 2, facts, worker, folder)
        except TrialError as error:
            result = replace(blank, stage=error.stage, reason=f"at acceptance: {error.reason}")
        return replace(result, wall_s=time.monotonic() - started, busy_s=self.accounts.total - busy)

    def rounds(
        self,
        base: Arm,
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
            timed = [t for part in parts for t in part.timed]
            samples = self.scoring.samples(timed, folder)
        graphs = worker.graphs()
        memory = worker.memory_gib(self.machine.device)
        base = self.arms.base()
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
            load_s=facts.load_s,
            load_base_s=base.facts.load_s,
            first_call_s=facts.first_call_s,
            first_call_base_s=base.facts.first_call_s,
            recompilations=None if graphs is None else graphs - (facts.graphs or 0),
            notes=tuple(notes),
            samples=tuple(samples),
        )
        return summarised(filled, self.config.objective, self.drift())

    def drift(self) -> float | None:
        """The similarity that an exact change keeps; None where fidelity is not the quality.

        Measured once a study and kept in its folder, since its jobs may run in other processes.
        """
        if self.config.goal.quality != "same_image":
            return None
        if self._drift is None:
            from engine.references import drift

            self._drift = drift(self)
        return self._drift


def _continued(result: Result, told: Result) -> Result:
    """A trial's newer result with what it took so far."""
    return replace(
        result,
        program=told.program,
        wall_s=(told.wall_s or 0.0) + (result.wall_s or 0.0),
        busy_s=(told.busy_s or 0.0) + (result.busy_s or 0.0),
    )


def _stopped(result: Result, prompts: int, why: str) -> Result:
    return replace(result, notes=(*result.notes, f"stopped after {prompts} prompts: {why}"))


def _saved(series: Series) -> float:
    """Seconds that the candidate was faster than the baseline."""
    return sum(series.seconds("base")) - sum(series.seconds("candidate"))
