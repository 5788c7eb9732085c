"""What one composed configuration asks for: a single run, a trial again, or a sweep's job."""

from __future__ import annotations

import difflib
import json
import re
import time
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from engine import console, handover, results, session
from engine.config import from_mapping, read
from engine.errors import UsageError
from engine.evaluate import Evaluator
from engine.genome import describe, key, text_key
from engine.measure.statistics import Interval, combine
from engine.needs import too_new
from engine.results import Genome, Result
from engine.schema import Config
from engine.strategy import find

if TYPE_CHECKING:
    from omegaconf import DictConfig


def run(cfg: DictConfig, arguments: list[str]) -> Any:
    """Do what the configuration asks; raises UsageError, TrialError or RuntimeError."""
    from hydra.core.hydra_config import HydraConfig

    config = read(cfg)
    if config.bench.do is not None:
        from engine.diffbench.app import run as bench

        return bench(config, Path(HydraConfig.get().runtime.output_dir), arguments)
    if config.trial is None:
        return _single(config, cfg, Path(HydraConfig.get().runtime.output_dir), arguments)
    folder = Path(config.paths.outputs) / "sweeps" / config.trial
    if (folder / "proposal.json").exists() and _is_job(config):
        from engine.study import job

        return job(config)
    return _again(config, folder, Path(HydraConfig.get().runtime.output_dir))


def _is_job(config: Config) -> bool:
    """A sweep's job names its own study; a person who asks for a trial names none."""
    return config.study is not None and str(config.trial).startswith(f"{config.study}/")


def _single(
    config: Config, cfg: DictConfig, folder: Path, arguments: list[str]
) -> dict[str, float]:
    """Measure the composed techniques on the held-out prompts against the baseline."""
    import shlex

    machine = session.machine_of(config)
    line = shlex.join(["python", "-m", "engine", *arguments])
    named = replace(config, study=folder.name)
    console.say(f"{config.model.name}: {describe(config.technique)}")
    with Evaluator(config, machine, folder) as evaluator:
        book = handover.Book(named, evaluator, folder, line, cfg)
        with console.working("loading the libraries and the baseline"):
            reasons = evaluator.arms.applicable()
        genome = fitting(config, reasons, arguments, machine.capability)
        config = replace(config, technique=genome)
        with console.working("A/A control: the baseline against itself"):
            book.control()
        text, blank = _program(config, evaluator)
        (folder / "accelerated.py").write_text(text, encoding="utf-8")
        with console.working(f"{config.measure.acceptance_prompts} prompts against the baseline"):
            result = evaluator.acceptance(blank, text, folder, 0)
        result = replace(result, program="accelerated.py")
        results.save(result, folder / "result.json")
        if not result.ok:
            raise handover.failed(result)
        with console.working("the baseline against the plain program"):
            book.plain()
        book.save([result], alone=False)
    return _shown(book, result, folder)


def _program(config: Config, evaluator: Evaluator) -> tuple[str, Result]:
    """The program of a single run and its empty result: the generated one of the techniques, or
    for a request what the language model that the configuration names wrote."""
    blank = Result(0, config.technique, key(config.technique), "user")
    if config.request is None or config.llm.name == "offline":
        return evaluator.arms.program(config.technique), blank
    from engine.agent.answer import for_request

    made = for_request(config, evaluator)
    for words in made.history:
        console.say(f"  {words}")
    if not made.written:
        console.say(
            "  settings say all of it, so that the generator writes the program; "
            "agent.writes=always has the language model write it"
        )
        return evaluator.arms.program(config.technique), blank
    return made.program, replace(
        blank, key=text_key(made.program), origin="model", untrusted=True, note=config.request[:80]
    )


def _shown(book: handover.Book, result: Result, folder: Path) -> dict[str, float]:
    from engine.report import front_table, summary_line, write_run_report

    front = {"study": {}, "front": [book.row(result)]}
    console.show(front_table(front))
    console.say(summary_line(book.data, front))
    console.say(f"report:  {write_run_report(folder)}")
    console.say(f"program: {folder / 'accelerated.py'}")
    return {"speedup": result.speedup or 0.0, "loss": result.loss or 0.0}


def fitting(
    config: Config,
    reasons: Mapping[str, str | None],
    arguments: Sequence[str],
    capability: float | None = None,
) -> Genome:
    """The composed techniques; those of the default composition that cannot apply to this model
    are left out. Those that were asked for are refused with a UsageError, and so is a value that
    needs a newer device than one of this compute capability."""
    asked = any(re.match(r"\+*(technique|experiment)[=.]", text) for text in arguments)
    able = {n: genes for n, genes in config.technique.items() if reasons[n] is None}
    for name, genes in able.items():
        for gene, value in genes.items():
            if why := too_new(find(name), gene, value, capability):
                raise UsageError(f"technique.{name}.{gene}={value} cannot run here: {why}")
    for name in config.technique:
        if name in able:
            continue
        if asked or not able:
            known = ", ".join(n for n, reason in reasons.items() if reason is None)
            raise UsageError(
                f"technique {name} cannot apply to model {config.model.name}: {reasons[name]}; "
                f"type technique=[NAME,...] with some of these: {known}"
            )
        console.say(f"left out: {name}, {reasons[name]}")
    return able


def _again(config: Config, folder: Path, out: Path) -> dict[str, float] | None:
    """Show a stored trial's program, or measure it once more with fresh seeds."""
    study, _, number = str(config.trial).partition("/")
    home = folder.parent
    if not (home / "study.json").exists():
        known = sorted(p.parent.name for p in home.parent.glob("*/study.json"))
        others = f"known: {', '.join(known)}" if known else "there are none yet"
        raise UsageError(f"there is no study {study!r} in {home.parent} ({others})")
    path = folder / "result.json"
    if not path.exists():
        raise UsageError(f"study {study!r} has no trial {number}")
    told = results.load(path)
    text = (folder / "accelerated.py").read_text(encoding="utf-8")
    if config.program:
        print(text, end="")
        return None
    if config.diff is not None:
        base = (home / "baseline" / "accelerated.py").read_text(encoding="utf-8")
        lines = difflib.unified_diff(
            base.splitlines(True), text.splitlines(True), "baseline", f"trial {number}", n=1
        )
        print("".join(lines), end="")
        return None
    return _repeat(config, home, told, text, out)


def _repeat(config: Config, home: Path, told: Result, text: str, out: Path) -> dict[str, float]:
    """A second acceptance measurement, and how it differs from the first."""
    import yaml

    study = json.loads((home / "study.json").read_text(encoding="utf-8"))
    stored = yaml.safe_load(study["config"])
    now = {"hw": _plain(config.hw), "study": None, "trial": None}
    # A key that is younger than the study has today's value.
    then = from_mapping(_over(_plain(config), stored) | now)
    machine = session.machine_of(then)
    # Seconds since 1970 choose seeds that no earlier measurement used.
    repeat = int(time.time())
    with Evaluator(then, machine, out) as evaluator:
        blank = told.blank()
        with console.working(f"trial {told.trial} again, with fresh seeds"):
            result = evaluator.acceptance(blank, text, out, repeat)
    if not result.ok:
        raise handover.failed(result)
    (out / "accelerated.py").write_text(text, encoding="utf-8")
    result = replace(result, program="accelerated.py")
    results.save(result, out / "result.json")
    console.say(f"then: {handover.figures(told)}")
    console.say(f"now:  {handover.figures(result)}")
    change = difference(told, result)
    if change is not None:
        word = "covers" if change.covers(0.0) else "does not cover"
        console.say(
            f"difference of the speed-ups: {100 * change.median:+.1f} % "
            f"({100 * change.low:+.1f} to {100 * change.high:+.1f}), which {word} zero"
        )
    console.say(f"result:  {out / 'result.json'}")
    return {"speedup": result.speedup or 0.0, "loss": result.loss or 0.0}


def difference(first: Result, second: Result) -> Interval | None:
    """Relative change of the speed-up from one measurement to another, with its interval."""
    if not (first.speedup and first.speedup_low and first.speedup_high):
        return None
    if not (second.speedup and second.speedup_low and second.speedup_high):
        return None
    inverse = Interval(1 / first.speedup_high, 1 / first.speedup, 1 / first.speedup_low)
    now = Interval(second.speedup_low, second.speedup, second.speedup_high)
    ratio = combine(now, inverse)
    return Interval(ratio.low - 1, ratio.median - 1, ratio.high - 1)


def _plain(node: Any) -> dict[str, Any]:
    import dataclasses

    return dataclasses.asdict(node)


def _over(below: dict[str, Any], above: Mapping[str, Any]) -> dict[str, Any]:
    """Settings with others laid over them, group by group; techniques are replaced whole."""
    merged = dict(below)
    for name, value in above.items():
        group = isinstance(value, Mapping) and isinstance(merged.get(name), dict)
        merged[name] = _over(merged[name], value) if group and name != "technique" else value
    return merged
