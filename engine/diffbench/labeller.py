"""The frozen labeller: what can be reached from each baseline, found by one fixed search.

For a baseline Optuna's TPE with a fixed seed proposes programs of the paper's methods (DeepCache,
ToMe, T-GATE), samplers, steps and FP16. Each is scored on the validation prompts, as far as it can
still be the fastest; of those within the allowed loss the fastest is measured again on the captions
that its tasks are scored on, and where it then loses too much the next one, and so on. Nothing here
may follow later changes of the project's own search, so settings and space stand in this file.

Its studies lie in ``outputs/labels/NAME/BASELINE``, apart from all others: an agent's earlier
studies are looked for in ``outputs/sweeps``, and its programs run where ``outputs`` cannot be read.
An interrupted run goes on where it stopped.
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from engine import catalogue, console, models, results
from engine.config import CONF, from_mapping
from engine.diffbench import baselines, chance, questions
from engine.diffbench.details import MAX_LOSS, VERSION
from engine.diffbench.labels import Label
from engine.hardware import permitted
from engine.measure.paired import rounds_for
from engine.results import Result

if TYPE_CHECKING:
    from engine.evaluate import Evaluator
    from engine.hardware import Machine
    from engine.schema import Config
    from engine.search.ledger import Results

CONFIRMED_LOSS = 0.04
"""Loss that a winner may have when it is measured again: below the limit, since it was chosen on
noisy numbers."""
CONTENDERS, CLEARLY = 3, 1.1
"""A program is left where so many that keep their quality are faster by this factor: a label needs
the fastest, and the next ones where that one turns out to lose too much. (An interval over one or
two rounds tells nothing.)"""
SCORED, RIVALS = 12, 2
"""From so many prompts on it is left where so many are faster at all."""
SPACE = (
    "{sampler: {name: [ddim, dpmpp_2m, unipc]}, deepcache: {}, tome: {}, tgate: {}, "
    "precision: {dtype: [float16]}}"
)
"""What the labeller may compose, as ``search.only``."""
CONTROLS = 3
"""A/A controls, of which one must be good: a burst of other load lasts seconds, a label minutes."""
NOMINAL = 1e11
"""Operations a second that stand in for a clock under ``objective=flops``."""


@dataclass(frozen=True)
class Settings:
    """How a baseline is labelled. ``samples`` validation prompts are scored in each of the
    ``evaluations``, ``timed`` of them are timed as well; ``confirmed`` prompts measure a winner
    again."""

    evaluations: int = 50
    samples: int = 36
    timed: int = 4
    confirmed: int = 36
    seed: int = 2601
    labeller: str = "4"

    def marks(self, objective: str) -> tuple[str, ...]:
        """Where this is not the frozen labeller, in words."""
        found = [
            f"{item.name}={getattr(self, item.name)} instead of {item.default}"
            for item in dataclasses.fields(self)
            if getattr(self, item.name) != item.default
        ]
        counted = "objective=flops: operations were counted, no time was measured"
        return (*found, *([counted] if objective == "flops" else []))


@dataclass(frozen=True)
class Asked:
    """Which baselines are to be labelled, how, and where; see :mod:`engine.diffbench.labelling`."""

    name: str
    baselines: tuple[baselines.Baseline, ...]
    objective: str
    weights: str
    settings: Settings
    folder: Path
    """Where its studies lie."""
    captions: Path | None
    """COCO's captions as a file of prompts; None takes our own sets."""


def configuration(one: baselines.Baseline, asked: Asked, device: str) -> Config:
    """What a baseline is labelled under."""
    import hydra
    from omegaconf import OmegaConf

    settings = asked.settings
    seed = chance.number("labels", VERSION, settings.seed, one.id) % 2**31
    overrides = [
        *baselines.overrides(one, asked.weights),
        f"hw={'cpu' if device == 'cpu' else 'auto'}",
        f"hw.half_precision={str(baselines.half_precision(asked.weights, device)).lower()}",
        f"objective={asked.objective}",
        f"goal.max_loss={MAX_LOSS}",
        "goal.accuracy_drop=null",
        "search=tpe",
        f"search.seed={seed}",
        f"search.only={SPACE}",
        f"measure.search_prompts={settings.timed}",
        f"measure.scored_prompts={settings.samples - settings.timed}",
        f"measure.acceptance_prompts={settings.confirmed}",
    ]
    if asked.captions and catalogue.entry(one.model)["task"] == "text":
        overrides.append(f"data='{asked.captions}'")
    with hydra.initialize_config_dir(str(CONF), version_base="1.3"):
        cfg = hydra.compose("config", overrides=overrides)
    plain: Any = OmegaConf.to_container(cfg, resolve=True)
    return from_mapping({str(key): value for key, value in plain.items()})


def label_of(one: baselines.Baseline, asked: Asked, machine: Machine) -> Label | str:
    """The label of a baseline, or why it has none."""
    from engine.evaluate import Evaluator
    from engine.search.ledger import Results

    config = configuration(one, asked, machine.device)
    machine = permitted(config.hw, machine)
    why = models.unmeasured(config.model)
    if why is not None or config.model.scorer is None:
        return f"quality is not measured: {why or 'the model names no scorer'}"
    folder = asked.folder / one.id
    book = Results(folder)
    timed = asked.objective == "time"
    with Evaluator(
        config,
        machine,
        folder,
        counts=not timed,
        enough=lambda result: beaten(result, book.read()),
    ) as evaluator:
        if timed:
            word = _control(evaluator)
            if word is not None:
                return word
        told = _searched(evaluator, book, asked.settings)
        return _confirmed(evaluator, told, one)


def _control(evaluator: Evaluator) -> str | None:
    """Why times measured now mean nothing, or None; kept once it was good."""
    from engine.references import control

    path = evaluator.folder / "control.json"
    if path.exists():
        return None
    for repeat in range(CONTROLS):
        found = control(evaluator, repeat)
        if found["ok"]:
            results.write_json(path, found)
            return None
    return f"A/A control {found['low']:.3f} to {found['high']:.3f}, {found['word']}"


def _searched(evaluator: Evaluator, book: Results, settings: Settings) -> list[Result]:
    """All evaluations, those of an earlier run taken as they are."""
    from engine.genome import key
    from engine.scope import search_space
    from engine.search import searcher

    here = search_space(evaluator.config, evaluator.arms)
    ask = searcher("tpe", here, evaluator.config.search.seed, max_loss=MAX_LOSS)
    for trial in range(settings.evaluations):
        told = book.read()
        if any(result.trial == trial for result in told):
            continue
        earlier = [result for result in told if result.trial < trial]
        taken = {result.key for result in earlier} | {key(evaluator.arms.baseline)}
        proposals = ask.ask(1, earlier, taken, trial)
        if not proposals:
            break
        with console.working(f"evaluation {trial + 1} of {settings.evaluations}"):
            evaluator.evaluate(trial, proposals[0].genome, proposals[0].origin)
    return book.read()


def beaten(result: Result, told: list[Result]) -> str | None:
    """Why a program that was drawn in part cannot become the label, or None: by its interval it
    loses too much, or others that lose little are faster."""
    if result.loss_low is not None and result.loss_low > MAX_LOSS:
        return f"it loses more than {100 * MAX_LOSS:g} %"
    able = [r for r in hopeful(told) if r.rung >= 1 and r.trial < result.trial]
    few, factor = (CONTENDERS, CLEARLY) if _drawn(result) < SCORED else (RIVALS, 1.0)
    if len(able) >= few and factor * (result.speedup or 0) < (able[few - 1].speedup or 0):
        return f"{few} that keep their quality are faster"
    return None


def hopeful(told: list[Result]) -> list[Result]:
    """Candidates for a label, fastest first: faster than the baseline, within the allowed loss on
    all validation prompts, or on those after which they were left."""
    able = [
        r
        for r in told
        if r.ok and (r.rung >= 1 or _drawn(r) >= SCORED)
        if (r.speedup or 0) > 1 and r.loss is not None and r.loss <= MAX_LOSS
    ]
    return sorted(able, key=lambda r: (-(r.speedup or 0), r.trial))


def _drawn(result: Result) -> int:
    return sum(sample.arm == "candidate" for sample in result.samples)


def _confirmed(evaluator: Evaluator, told: list[Result], one: baselines.Baseline) -> Label | str:
    """The fastest candidate that keeps its quality on the captions that its tasks are scored on."""
    able = hopeful(told)
    for place, candidate in enumerate(able):
        again = _again(evaluator, candidate, one)
        if again.ok and again.loss is not None and again.loss <= CONFIRMED_LOSS:
            counted = evaluator.config.objective == "flops"
            return label_from(candidate, again, place, len(told), counted=counted)
    return f"of {len(told)} programs none was faster and kept its quality twice ({len(able)} once)"


def _again(evaluator: Evaluator, candidate: Result, one: baselines.Baseline) -> Result:
    folder = evaluator.folder / "confirmed" / str(candidate.trial)
    path = folder / "result.json"
    if path.exists():
        return results.load(path)
    source = evaluator.folder / str(candidate.trial) / "accelerated.py"
    blank = Result(candidate.trial, candidate.genome, candidate.key, candidate.origin)
    count = evaluator.config.measure.acceptance_prompts
    asked = questions.requests(evaluator.asked, VERSION, one.id, questions.LOSS, questions.PROMPTS)
    pairs = questions.Fixed(asked[: 2 * rounds_for(count)], VERSION, one.id)
    with console.working(f"evaluation {candidate.trial + 1} again, as its tasks are scored"):
        text = source.read_text(encoding="utf-8")
        again = evaluator.acceptance(blank, text, folder, 1, pairs)
    results.save(again, path)
    return again


def label_from(
    candidate: Result, again: Result, place: int, evaluations: int, *, counted: bool = False
) -> Label:
    """The label of a candidate that was measured again; ``place`` others were faster in the
    search. Where operations were ``counted``, seconds are those of a nominal machine."""
    own, base = again.seconds_per_image, again.seconds_base
    if counted:
        own, base = (_number(cost) / NOMINAL for cost in (again.cost_flops, again.cost_base_flops))
    return Label(
        genome=candidate.genome,
        speedup=_number(again.speedup),
        speedup_low=_number(again.speedup_low),
        speedup_high=_number(again.speedup_high),
        loss=_number(again.loss),
        seconds=_number(own),
        seconds_base=_number(base),
        searched=_number(candidate.speedup),
        passed_over=place,
        evaluations=evaluations,
        notes=again.notes,
    )


def _number(value: float | None) -> float:
    """A figure of a result that is told; ValueError for one that is missing."""
    if value is None:
        raise ValueError("a result that was measured again lacks a figure")
    return float(value)
