"""What a study measures besides its candidates: the A/A control, the plain program, the profile."""

from __future__ import annotations

from typing import Any

import numpy as np

from engine import results
from engine.evaluate import Evaluator, rounds_for
from engine.genome import key
from engine.measure import statistics
from engine.measure.paired import Pairs
from engine.results import Genome, Result

CONTROL_LIMITS = (0.97, 1.03)
CONTROL_WIDTH = 0.10
PROFILED = 5
"""Images over which the profile takes medians."""


def control(evaluator: Evaluator) -> dict[str, Any]:
    """A/A: the baseline against a second copy of itself. Says whether timings can be used."""
    base = evaluator.base()
    rng = evaluator.rng_for("control")
    count = evaluator.config.measure.control_prompts
    pairs = Pairs(evaluator.prompts(count, "search", 0), rng)
    text = evaluator.program(evaluator.baseline)
    with evaluator.running(evaluator.baseline, text) as (twin, _facts):
        series = evaluator.rounds(base, twin, pairs, rounds_for(count), rng)
    seconds = {arm: series.seconds(arm) for arm in ("base", "candidate")}
    interval = statistics.paired_ratio(seconds["base"], seconds["candidate"], 0)
    low, high = CONTROL_LIMITS
    outside = interval.low > high or interval.high < low
    wide = interval.width > CONTROL_WIDTH
    word = "usable"
    if outside:
        word = "void: the same program differs from itself; something else used the machine"
    elif wide:
        word = "void: timings scatter too much; close other programs and run again"
    return {
        "low": interval.low,
        "median": interval.median,
        "high": interval.high,
        "ok": not (outside or wide),
        "word": word,
        **seconds,
    }


def against_plain(evaluator: Evaluator) -> dict[str, Any] | None:
    """The plain program against the baseline, so that figures can be stated for both; None when
    the baseline is the plain one."""
    if not evaluator.baseline:
        return None
    told = Result(0, {}, key({}), "baseline")
    folder = evaluator.folder / "baseline" / "plain"
    folder.mkdir(parents=True, exist_ok=True)
    text = evaluator.program({})
    (folder / "accelerated.py").write_text(text, encoding="utf-8")
    rng = evaluator.rng_for("plain")
    count = evaluator.config.measure.acceptance_prompts
    pairs = Pairs(evaluator.prompts(count, "acceptance", 0), rng)
    base = evaluator.base()
    with evaluator.running({}, text) as (worker, facts):
        series = evaluator.rounds(base, worker, pairs, rounds_for(count), rng)
        result = evaluator.result(told, [series], 2, facts, worker, folder)
    results.save(result, folder / "result.json")
    if result.speedup is None:
        return None
    # The plain program is the slower one: how much longer it takes is 1 / speed-up.
    return {
        "label": f"plain, {evaluator.subject.steps} steps",
        "ratio": 1 / result.speedup,
        "ratio_low": 1 / (result.speedup_high or result.speedup),
        "ratio_high": 1 / (result.speedup_low or result.speedup),
        "accuracy": result.accuracy,
        "loss": result.loss,
        "seconds_per_image": result.seconds_per_image,
    }


def profile(evaluator: Evaluator, genome: Genome) -> dict[str, float]:
    """Milliseconds of each component in one image of this genome's program."""
    prompt = evaluator.prompts(1, "search", 0)[0]
    with evaluator.running(genome, evaluator.program(genome)) as (worker, _facts):
        runs = [worker.profile(prompt, seed) for seed in range(PROFILED)]
    return {name: float(np.median([run[name] for run in runs])) for name in runs[0]}
