"""What a study measures besides its candidates: the A/A control, the plain program, the profile."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from engine import results
from engine.errors import TrialError, UsageError
from engine.evaluate import Evaluator
from engine.genome import canonical, key
from engine.measure import statistics
from engine.measure.paired import Series, rounds_for
from engine.measure.summary import similarities
from engine.results import Genome, Result
from engine.strategy import Strategy, Value, registry

CONTROL_LIMITS = (0.97, 1.03)
CONTROL_WIDTH = 0.10
SLOWER = 0.98
"""Speed-up on the first prompts below which a technique alone is not timed on more."""
PROFILED = 5
"""Images over which the profile takes medians."""


def control(evaluator: Evaluator, repeat: int = 0) -> dict[str, Any]:
    """A/A: the baseline against a second copy of itself. Says whether timings can be used.

    ``repeat`` chooses the seeds.
    """
    base = evaluator.arms.base()
    rng = evaluator.asked.rng("control", repeat)
    count = evaluator.config.measure.control_prompts
    pairs = evaluator.asked.pairs(count, "search", rng)
    text = evaluator.arms.baseline_program()
    baseline = evaluator.arms.baseline
    running = evaluator.arms.running(baseline, text, limited=False, counted=False)
    with running as (twin, _facts):
        series = evaluator.rounds(base, twin, pairs, rounds_for(count), rng)
    seconds = {arm: series.seconds(arm) for arm in ("base", "candidate")}
    shapes = [t.request.shape for t in series.of("base")]
    rounds = statistics.paired_ratio(seconds["base"], seconds["candidate"], 0, groups=shapes)
    interval = statistics.between_workers(rounds, statistics.SAME_PROGRAM)
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
    if not evaluator.arms.baseline and evaluator.config.baseline.program is None:
        return None
    told = Result(0, {}, key({}), "baseline")
    folder = evaluator.folder / "baseline" / "plain"
    folder.mkdir(parents=True, exist_ok=True)
    text = evaluator.arms.program({})
    (folder / "accelerated.py").write_text(text, encoding="utf-8")
    rng = evaluator.asked.rng("plain")
    count = evaluator.config.measure.acceptance_prompts
    pairs = evaluator.asked.pairs(count, "acceptance", rng)
    base = evaluator.arms.base()
    with evaluator.arms.running({}, text, limited=False) as (worker, facts):
        series = evaluator.rounds(base, worker, pairs, rounds_for(count), rng)
        result = evaluator.result(told, [series], 2, facts, worker, folder)
    results.save(result, folder / "result.json")
    if result.speedup is None:
        return None
    # The plain program is the slower one: how much longer it takes is 1 / speed-up.
    return {
        "label": f"plain, {evaluator.arms.subject.steps} steps",
        "ratio": 1 / result.speedup,
        "ratio_low": 1 / (result.speedup_high or result.speedup),
        "ratio_high": 1 / (result.speedup_low or result.speedup),
        "accuracy": result.accuracy,
        "loss": result.loss,
        "seconds_per_image": result.seconds_per_image,
    }


def drift(evaluator: Evaluator) -> float:
    """Mean SSIM that an exact change of the baseline keeps: what rounding alone does.

    The change is the last exact strategy, in the order of application, that acts here within the
    limit for a first call; compilation where it is allowed. 1 where there is none. Kept in
    ``drift.json`` of the evaluator's folder.
    """
    path = evaluator.folder / "drift.json"
    if path.exists():
        return float(json.loads(path.read_text(encoding="utf-8"))["ssim"])
    limit = evaluator.config.search.first_call_s
    reasons = evaluator.arms.applicable()
    exact = [s for s in registry().values() if s.exact and reasons.get(s.name) is None]
    found: dict[str, Any] = {"technique": None, "ssim": 1.0}
    for strategy in reversed([s for s in exact if s.first_call_s <= limit]):
        try:
            genome = canonical({**evaluator.arms.baseline, strategy.name: {}})
            found = {"technique": strategy.name, "ssim": _similarity(evaluator, genome)}
            break
        except (TrialError, UsageError):
            # It does nothing here, or the baseline holds its slot already.
            continue
    results.write_json(path, found)
    return float(found["ssim"])


def alone(evaluator: Evaluator, names: Sequence[str]) -> dict[str, dict[str, Any]]:
    """What each of these techniques does to the baseline's time, by name: the fastest of its
    default and known-good settings, as ``genes``, ``speedup``, ``low`` and ``high``, or a
    ``reason`` where none ran. Which is the fastest is seen on the first prompts, and so is what is
    clearly slower than the baseline; else that setting is timed on as many as a search's trial.

    Meant for techniques whose counted operations do not tell what they gain: that depends on the
    machine and the model, hardly on what else is composed, so one look tells whether they are worth
    a search. Kept in ``alone.json`` of the evaluator's folder.
    """
    path = evaluator.folder / "alone.json"
    found: dict[str, dict[str, Any]] = {}
    if path.exists():
        found = json.loads(path.read_text(encoding="utf-8"))
    for name in names:
        if name not in found:
            found[name] = _fastest(evaluator, registry()[name])
            results.write_json(path, found)
    return {name: found[name] for name in names}


def _fastest(evaluator: Evaluator, strategy: Strategy) -> dict[str, Any]:
    dtypes = evaluator.machine.fast_dtypes
    settings = [strategy.checked(known.genes) for known in strategy.known_good]
    able = [
        genes
        for genes in {str(genes): genes for genes in [strategy.defaults(), *settings]}.values()
        if all(
            genes[gene.name] in dtypes for gene in strategy.genes.values() if gene.sets == "dtype"
        )
    ]
    best: dict[str, Any] = {"reason": "no setting of it can run here"}
    for genes in able:
        try:
            gain = _gain(evaluator, strategy, genes, evaluator.config.measure.first_prompts)
        except (TrialError, UsageError) as error:
            best = best if "speedup" in best else {"reason": str(error)}
            continue
        if gain["speedup"] > best.get("speedup", 0.0):
            best = gain
    if best.get("speedup", 0.0) < SLOWER:
        return best
    return _gain(evaluator, strategy, best["genes"], evaluator.config.measure.search_prompts)


def _gain(
    evaluator: Evaluator, strategy: Strategy, genes: Mapping[str, Value], prompts: int
) -> dict[str, Any]:
    """What a technique does to the baseline's time on so many prompts."""
    genome = canonical({**evaluator.arms.baseline, strategy.name: genes})
    series = _against(evaluator, genome, "alone", prompts)
    shapes = [t.request.shape for t in series.of("base")]
    seconds = series.seconds("base"), series.seconds("candidate")
    gain = statistics.paired_ratio(*seconds, 0, groups=shapes)
    return {"genes": genes, "speedup": gain.median, "low": gain.low, "high": gain.high}


def _similarity(evaluator: Evaluator, genome: Genome) -> float:
    """Mean SSIM of a genome's images to the baseline's on the same requests."""
    series = _against(evaluator, genome, "drift", evaluator.config.measure.search_prompts)
    found = [pair[1] for pair in similarities(series) if pair]
    return sum(found) / len(found)


def _against(evaluator: Evaluator, genome: Genome, purpose: str, prompts: int) -> Series:
    """The baseline and a genome's program, timed on so many prompts of the search."""
    rng = evaluator.asked.rng(purpose)
    pairs = evaluator.asked.pairs(prompts, "search", rng)
    base = evaluator.arms.base()
    text = evaluator.arms.program(genome)
    with evaluator.arms.running(genome, text, counted=False) as (worker, _facts):
        return evaluator.rounds(base, worker, pairs, rounds_for(prompts), rng)


def profile(evaluator: Evaluator) -> dict[str, float]:
    """Milliseconds of each component in the baseline's answer to the workload's first request."""
    text = evaluator.arms.baseline_program()
    request, _ = evaluator.asked.trials()[0]
    worker = evaluator.arms.load({}, text)
    try:
        for seed in range(2):
            worker.generate(replace(request, seed=seed))
        runs = [worker.profile(replace(request, seed=seed)) for seed in range(PROFILED)]
    finally:
        worker.close()
    return {name: float(np.median([run[name] for run in runs])) for name in runs[0]}
