"""What a study keeps and hands over: study.json, front.json, the best program, the report."""

from __future__ import annotations

import dataclasses
import json
import re
import shlex
import shutil
import time
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from engine import __version__, console, forecast, prune, references, results, session
from engine import goal as goals
from engine.errors import TrialError
from engine.evaluate import Evaluator
from engine.genome import describe
from engine.program import usage
from engine.results import Genome, Result, write_json
from engine.schema import Config
from engine.search import archive

if TYPE_CHECKING:
    from omegaconf import DictConfig


def command(arguments: Sequence[str]) -> str:
    """The command line that runs, and resumes, a study with these overrides: by the genetic sweep
    where they name no other."""
    shown = [a for a in arguments if not a.startswith("hydra.")]
    named = any(re.match(r"\+*sweep=", a) for a in shown)
    return shlex.join(["python", "-m", "engine", *([] if named else ["+sweep=ga"]), *shown])


def following(arguments: Sequence[str], study: str) -> str:
    """The command line of the long search that starts from a study with these overrides."""
    own = re.compile(r"\+*(sweep|study|search\.(start|generations))=")
    kept = [a for a in arguments if not own.match(a)]
    return command([*kept, f"search.start=[{study}]"])


def figures(result: Result) -> str:
    """A result on one line."""
    if not result.ok:
        return f"failed at {result.stage}: {result.reason}"
    words = f"{result.speedup:.2f}x ({result.speedup_low:.2f} to {result.speedup_high:.2f})"
    words += "" if result.loss is None else f", loss {100 * result.loss:.1f} %"
    if result.accuracy is not None and result.accuracy_base is not None:
        words += f", checker {100 * result.accuracy:.0f} % ({100 * result.accuracy_base:.0f} %)"
    return words


def is_single(genome: Genome, baseline: Genome) -> bool:
    """Whether a genome differs from the baseline in exactly one technique."""
    names = set(genome) | set(baseline)
    return sum(genome.get(name) != baseline.get(name) for name in names) == 1


def report_trial(config: Config, folder: Path, result: Result) -> None:
    """The line of a finished trial: figures, the best so far, the time left."""
    told = session.told(folder).read()
    total = _planned(config, folder)
    goal = dataclasses.asdict(config.goal)
    best = goals.recommended(told, goal)
    mean = sum(r.wall_s or 0.0 for r in told) / len(told)
    left = mean * max(0, total - len(told))
    console.say(f"[{len(told)}/{total}] trial {result.trial}: {figures(result)}")
    console.say(f"    {describe(result.genome)}")
    lead = f"{best.speedup:.2f}x (trial {best.trial})" if best else "none yet"
    console.say(f"    best within the goal: {lead}; search done in about {_minutes(left)}")
    if len(told) == 1 and result.samples:
        console.say(f"    first pair of images: {_first_pair(folder, result)}")


def _planned(config: Config, folder: Path) -> int:
    """Trials of the whole study: what it starts from and its generations."""
    return _started(folder) + config.population * config.generations


def _started(folder: Path) -> int:
    """Trials that a study starts from."""
    path = folder / "start.json"
    return len(json.loads(path.read_text(encoding="utf-8"))) if path.exists() else 0


def _first_pair(folder: Path, result: Result) -> Path:
    """Baseline and candidate for the same prompt and seed, side by side, enlarged."""
    from PIL import Image

    first = result.samples[0]
    pair = [s for s in result.samples if (s.prompt, s.seed) == (first.prompt, first.seed)]
    pair.sort(key=lambda s: s.arm)
    pictures = [Image.open(folder / str(result.trial) / str(s.image)) for s in pair]
    width, height = pictures[0].size
    sheet = Image.new("RGB", (2 * width, height))
    for index, picture in enumerate(pictures):
        sheet.paste(picture, (index * width, 0))
    path = folder / "first_pair.png"
    factor = max(1, 512 // width)
    sheet.resize((2 * width * factor, height * factor), Image.Resampling.NEAREST).save(path)
    return path


def _minutes(seconds: float) -> str:
    return f"{seconds:.0f} s" if seconds < 90 else f"{seconds / 60:.0f} min"


class Book:
    """A study's (or single run's) own figures, kept in ``study.json`` across interruptions."""

    def __init__(
        self, config: Config, evaluator: Evaluator, folder: Path, resume: str, cfg: DictConfig
    ) -> None:
        from omegaconf import OmegaConf

        self.config = config
        self.evaluator = evaluator
        self.folder = folder
        self.best: dict[str, Any] | None = None
        self.rows: list[dict[str, Any]] = []
        """The front, once the study has finished."""
        self._path = folder / "study.json"
        self._started = time.monotonic()
        before: dict[str, Any] = {}
        if self._path.exists():
            before = json.loads(self._path.read_text(encoding="utf-8"))
        self._before_wall = float(before.get("wall_s", 0.0))
        self._before_busy = float(before.get("busy_s", 0.0))
        shown = {n: cfg._get_node(n) for n in cfg if n != "hydra"}
        self.data: dict[str, Any] = {
            "study": config.study,
            "command": resume,
            "resume": resume,
            "started": before.get("started", datetime.now(UTC).isoformat(timespec="seconds")),
            "version": __version__,
            "model": dataclasses.asdict(config.model),
            "machine": dataclasses.asdict(evaluator.machine)
            | {"versions": dict(evaluator.machine.versions)},
            "goal": dataclasses.asdict(config.goal),
            "objective": config.objective,
            "data": evaluator.asked.data(),
            "workload": evaluator.asked.workload(),
            "miniature": evaluator.arms.location.is_mini,
            "unmeasured": evaluator.unmeasured,
            "config": OmegaConf.to_yaml(OmegaConf.create(shown), resolve=True),
            "control": before.get("control"),
            "plain": before.get("plain"),
            "baseline": before.get("baseline"),
            "single": None,
            "profile": before.get("profile"),
            "agent": before.get("agent"),
        }

    def control(self) -> None:
        """The A/A control, once a study."""
        if self.data["control"] is None and self.config.objective == "time":
            self.data["control"] = references.control(self.evaluator)
        control = self.data["control"]
        if control is not None:
            span = f"{control['low']:.3f} to {control['high']:.3f}"
            console.say(f"A/A control: {span}, {control['word']}")
        if self.data["unmeasured"]:
            console.say(f"quality: not measured ({self.data['unmeasured']})")
        self.data["baseline"] = {
            "name": self.config.baseline.name,
            "label": self.config.baseline.label,
            "genome": self.evaluator.arms.baseline,
            "program": "baseline/accelerated.py",
        }

    def forecast(self) -> None:
        """Time and disk, from the baseline's own images, before the search begins.

        Raises UsageError where the disk has no room for the study.
        """
        config, machine = self.config, self.evaluator.machine
        console.say(
            f"machine: {machine.device_name}, {machine.cores} cores, {machine.memory_gib:g} GiB; "
            f"fast dtypes: {', '.join(machine.fast_dtypes)}"
        )
        work = forecast.Work.of(config, _started(self.folder))
        pictures = forecast.pictures(self.evaluator)
        program = len(self.evaluator.arms.baseline_program())
        space = forecast.disk(config, pictures, program, work)
        ahead = None
        if self.data["control"]:
            load_s = self.evaluator.arms.base().facts.load_s
            ahead = forecast.times(config, self.data["control"]["base"], load_s, work)
        console.say(forecast.words(work, ahead, space, _minutes))
        warning = forecast.check_space(self.folder, space)
        if warning is not None:
            console.say(warning)

    def plain(self) -> None:
        """The baseline against the plain program, and where an image's time goes; once a study."""
        if self.data["plain"] is None:
            self.data["plain"] = references.against_plain(self.evaluator)
        if self.data["profile"] is None:
            spent = references.profile(self.evaluator)
            self.data["profile"] = {f"{name}_ms": value for name, value in spent.items()}

    def save(self, told: list[Result], *, alone: bool = True) -> dict[str, Any]:
        """Write study.json with the time spent so far."""
        wall = self._before_wall + time.monotonic() - self._started
        busy = self._before_busy + self.evaluator.accounts.total
        first = next((r for r in told if r.rung == 2 and r.seconds_base), None)
        if first is not None and self.data["baseline"]:
            scores = [s.score for s in first.samples if s.arm == "base" and s.score is not None]
            self.data["baseline"] |= {
                "seconds_per_image": first.seconds_base,
                "score": sum(scores) / len(scores) if scores else None,
                "accuracy": first.accuracy_base,
            }
        self.data |= {
            "wall_s": wall,
            "busy_s": busy,
            "overhead_share": max(0.0, 1 - busy / wall),
            "evaluations": len(told),
            "failed": sum(not r.ok for r in told),
        }
        write_json(self._path if alone else self.folder / "run.json", self.data)
        return self.data

    def finish(self, told: list[Result]) -> None:
        """front.json, best/, report.html, and the result on the console."""
        from engine.report import front_table, summary_line, write_study_report

        accepted = [r for r in told if r.ok and r.rung == 2]
        goal = dataclasses.asdict(self.config.goal)
        singles = [r for r in accepted if is_single(r.genome, self.evaluator.arms.baseline)]
        inside = [r for r in singles if goals.within_goal(r, goal)]
        if inside:
            top = max(inside, key=lambda r: r.speedup or 0.0)
            self.data["single"] = {
                "genome": top.genome,
                "speedup": top.speedup,
                "trial": top.trial,
                "loss": top.loss,
            }
        front = self._front(accepted)
        best = goals.recommended(front, goal)
        self.rows = rows = [self.row(r) | {"recommended": r is best} for r in front]
        self.best = next((row for row in rows if row["recommended"]), None)
        study = self.save(told)
        control = study["control"] or {}
        head = {
            "study": study["study"],
            "model": self.config.model.name,
            "weights": self.config.model.weights,
            "hw": self.evaluator.machine.profile(),
            "baseline": self.config.baseline.name,
            "evaluations": study["evaluations"],
            "wall_s": study["wall_s"],
            "overhead_share": study["overhead_share"],
            "control_low": control.get("low"),
            "control_high": control.get("high"),
        }
        data = {"study": head, "front": rows}
        write_json(self.folder / "front.json", data)
        if self.best is not None:
            self._hand_over(self.best)
        report = write_study_report(self.folder)
        if self.config.keep == "front":
            prune.unneeded(self.folder).remove()
        if rows:
            console.show(front_table(data))
        console.say(summary_line(study, data))
        self._say_single()
        console.say(
            f"{study['evaluations']} candidates ({study['failed']} failed) in "
            f"{_minutes(study['wall_s'])}; {100 * study['overhead_share']:.0f} % of it outside "
            "loading, generating and scoring"
        )
        console.say(f"report:  {report}")
        if self.best is not None:
            console.say(f"program: {self.folder / 'best' / 'accelerated.py'}")

    def _front(self, accepted: list[Result]) -> list[Result]:
        """The front among the points that keep the goal, and beyond its fastest the points that
        would be faster at a price; a point that breaks a limit never hides one that keeps it."""
        goal = dataclasses.asdict(self.config.goal)
        memory = self.config.goal.names_memory
        inside = archive.front([r for r in accepted if goals.within_goal(r, goal)], memory=memory)
        fastest = max((r.speedup or 0.0 for r in inside), default=0.0)
        beyond = [
            r
            for r in archive.front(accepted, memory=memory)
            if r not in inside and (r.speedup or 0.0) > fastest
        ]
        return sorted([*inside, *beyond], key=lambda r: -(r.speedup or 0.0))

    def _say_single(self) -> None:
        single = self.data["single"]
        if single and self.best:
            gain = self.best["speedup"] / single["speedup"]
            console.say(
                f"best single technique: {single['speedup']:.2f}x ({describe(single['genome'])}, "
                f"trial {single['trial']}); the best composition is {gain:.2f} times as fast"
            )

    def row(self, result: Result) -> dict[str, Any]:
        """A row of front.json with the figures against the plain program and the goal's word."""
        plain = self.data["plain"] or {"ratio": None, "ratio_low": None, "ratio_high": None}
        if self.config.baseline.program is None and not self.evaluator.arms.baseline:
            plain = {"ratio": 1.0, "ratio_low": 1.0, "ratio_high": 1.0}
        against = _product(result, plain)
        return results.row(
            result,
            **against,
            accuracy=result.accuracy,
            accuracy_base=result.accuracy_base,
            meets_goal=goals.within_goal(result, dataclasses.asdict(self.config.goal)),
            command=f"python -m engine +trial={self.config.study}/{result.trial}",
        )

    def _hand_over(self, best: Mapping[str, Any]) -> None:
        """best/: the program as it was measured, a recipe, and how to use both."""
        from omegaconf import OmegaConf

        folder = self.folder / "best"
        folder.mkdir(exist_ok=True)
        shutil.copyfile(self.folder / str(best["program"]), folder / "accelerated.py")
        measured = {
            name: best[name]
            for name in ("speedup", "speedup_low", "speedup_high", "loss", "loss_low", "loss_high")
        }
        model = self.config.model
        loras = [dataclasses.asdict(lora) for lora in self.evaluator.arms.subject.loras]
        recipe = {
            "model": {"name": model.name, "id": model.id, "revision": model.revision}
            | ({"lora": loras} if loras else {}),
            "technique": best["genome"],
            "baseline": self.config.baseline.technique,
            "measured": measured | {"hw": self.evaluator.machine.profile()},
            "versions": dict(self.evaluator.machine.versions),
        }
        OmegaConf.save(OmegaConf.create(recipe), folder / "recipe.yaml")
        (folder / "README.md").write_text(self._best_readme(best), encoding="utf-8")

    def _best_readme(self, best: Mapping[str, Any]) -> str:
        baseline = self.data["baseline"]["label"]
        mini = ""
        if self.evaluator.arms.location.is_mini:
            mini = (
                "\nIt was measured on a miniature: the figures do not carry over to other models. "
                "Away from the repository give the miniature's folder with `--model`.\n"
            )
        from engine.report.text import quality_unmeasured

        quality = f"quality loss {100 * (best['loss'] or 0):.1f} %"
        if best["loss"] is None:
            quality = quality_unmeasured(self.data)
        return (
            f"# {self.config.model.name}, accelerated\n\n"
            f"{describe(best['genome'])}\n\n"
            f"{best['speedup']:.2f}x ({best['speedup_low']:.2f} to {best['speedup_high']:.2f}) "
            f"against {baseline}; {quality}. Measured on "
            f"{self.evaluator.machine.device_name}.\n{mini}\n"
            f"    python accelerated.py {usage(self.evaluator.arms.subject)} --seed 0 "
            "--output image.png\n\n"
            f"Measure it again: `{best['command']}`\n"
        )


def _product(result: Result, plain: Mapping[str, Any]) -> dict[str, float | None]:
    """Speed-up against the plain program: the product of two independent ratios."""
    from engine.measure.statistics import Interval, combine

    names = ("speedup_plain", "speedup_plain_low", "speedup_plain_high")
    if plain["ratio"] is None or result.speedup is None:
        return dict.fromkeys(names)
    own = Interval(
        result.speedup_low or result.speedup, result.speedup, result.speedup_high or result.speedup
    )
    whole = combine(own, Interval(plain["ratio_low"], plain["ratio"], plain["ratio_high"]))
    return dict(zip(names, (whole.median, whole.low, whole.high), strict=True))


def failed(result: Result) -> TrialError:
    """The error of a result that failed."""
    return TrialError(str(result.stage), str(result.reason))
