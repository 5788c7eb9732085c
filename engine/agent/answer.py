"""From a request to its program: the entry of ``+request=`` and of the benchmark.

Without a target one program is planned, written, tried and checked, and nothing is searched. With
one a study is run whose goal is that target.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from engine import console, session
from engine import goal as goals
from engine.agent import asked as rules
from engine.agent import spent
from engine.agent.llm import LlmError
from engine.agent.plans import Plan
from engine.agent.roles import Planner, Told
from engine.agent.writer import Unwritten
from engine.errors import GoalMissed, TrialError, UsageError
from engine.evaluate import Evaluator
from engine.results import Genome, Result
from engine.schema import Config
from engine.search.space import Space, space
from engine.specification import Specification, mismatches
from engine.strategy import registry

if TYPE_CHECKING:
    from engine.agent.llm import Model
    from engine.agent.opening import Task
    from engine.study import Launch

STUDY = "search"
"""Name of the study of a request with a target, in the answer's own folder."""
FIGURES = (
    "speedup", "speedup_low", "speedup_high", "loss", "loss_low", "loss_high", "memory_gib",
    "cost_flops", "seconds_per_image",
)  # fmt: skip


@dataclass(frozen=True)
class Answer:
    """A program for a request.

    ``trial`` is the measured trial behind it and ``figures`` what was measured; None and empty
    where the request has no target. ``met`` says whether the target was reached. ``cost`` is in US
    dollars, None where a price is unknown. ``history`` says in sentences how it came about.
    """

    program: str
    written: bool = False
    """Whether a language model wrote it; else the generator did."""
    trial: int | None = None
    figures: Mapping[str, float | None] = field(default_factory=dict)
    met: bool | None = None
    calls: int = 0
    tokens: int = 0
    cost: float | None = 0.0
    seconds: float = 0.0
    history: tuple[str, ...] = ()


def answer(
    specification: Specification, config: Config, model: Model | None, folder: Path
) -> Answer:
    """Answer a request in ``folder``, which keeps the recording and, with a target, the study.

    ``config`` is composed with the specification's overrides. ``model`` stands in place of the
    language model that it names; with neither, rules plan and the generator writes. The same call
    on the same folder goes on where an interrupted one stopped.

    Raises UsageError for what cannot be composed or started, TrialError where no program works,
    LlmError where the model cannot be reached.
    """
    started = time.monotonic()
    folder.mkdir(parents=True, exist_ok=True)
    if specification.target is not None:
        made = _searched(specification, config, model, folder)
        home = folder / "sweeps" / STUDY
    else:
        made = _written(specification, config, model, folder)
        home = folder
    total = spent.total(spent.write(home))
    return dataclasses.replace(
        made,
        calls=total.calls + total.replayed,
        tokens=total.input_tokens + total.output_tokens,
        cost=None if total.unpriced else total.dollars,
        seconds=time.monotonic() - started,
    )


# --- one program


def _written(asked: Specification, config: Config, model: Model | None, folder: Path) -> Answer:
    plan = rules.plan_of(asked)
    with_model = model is not None or config.llm.name != "offline"
    if not with_model and plan.structure:
        raise UsageError(
            f"without a language model nothing can write this: {plan.structure}; name a model with "
            "llm=NAME"
        )
    machine = session.machine_of(config)
    with Evaluator(config, machine, folder) as evaluator:
        if with_model:
            return _by_model(asked, config, evaluator, model, folder, plan)
        return _by_rules(asked, config, evaluator, plan)


def conversation(config: Config) -> Path:
    """Where the calls for the command line's request are kept: one folder for the same request in
    the same settings, since each run has a new folder of its own and a call is paid once. Budgets
    and other settings of the model and the agent may change: the recording knows them."""
    free = {"llm", "agent", "paths", "study", "trial", "debug", "prompt", "keep", "program", "diff"}
    about = {name: value for name, value in plain(config).items() if name not in free}
    name = hashlib.sha256(json.dumps(about, sort_keys=True).encode()).hexdigest()[:12]
    return Path(config.paths.outputs) / "requests" / name


def for_request(config: Config, evaluator: Evaluator) -> Answer:
    """The program of the command line's request by the language model of the configuration, in a
    run that measures it afterwards."""
    from engine.agent.opening import account, task_of

    task = task_of(config)
    if task is None:
        raise UsageError(
            "the rules cannot read this request, so that no program can be held against it; name "
            "the model, the scheduler and the techniques in it, or leave out llm="
        )
    folder = conversation(config)
    try:
        plan = rules.plan_of(task.specification)
        return _by_model(task.specification, config, evaluator, None, folder, plan)
    except (KeyboardInterrupt, LlmError):
        console.say("\nnothing that was answered is lost or paid again: the same command goes on")
        raise
    finally:
        if account(config, folder, None)["spent"]:
            console.say(f"what was asked and answered is kept in {folder}")


def _by_rules(asked: Specification, config: Config, evaluator: Evaluator, plan: Plan) -> Answer:
    """The generated program; a technique that does nothing takes its next known setting."""
    from engine.agent.opening import template

    history: list[str] = [f"plan: {plan.title}"]
    plan, failed = _settled(asked, config, evaluator, plan, history)
    if failed is not None:
        raise failed
    text = template(evaluator, _task(asked, config))(rules.genome_of(plan))
    if config.agent.check:
        from engine.reading import read

        wrong = mismatches(asked, read(text))
        if wrong:
            raise TrialError("specification", "; ".join(map(str, wrong)))
        history.append("the program's text says what the request states")
    return Answer(text, history=tuple(history))


def _settled(
    asked: Specification, config: Config, evaluator: Evaluator, plan: Plan, history: list[str]
) -> tuple[Plan, TrialError | None]:
    """The plan with settings that act here, as far as the request leaves them open, and why its
    generated program does not run, if it does not."""
    if not config.agent.debugger:
        return plan, None
    for left in reversed(range(1 + config.agent.repairs)):
        failed = _tried(evaluator, rules.genome_of(plan))
        if failed is None:
            break
        history.append(f"failed at {failed.stage}: {failed.reason}")
        changed = rules.repaired(plan, asked, failed.stage, failed.reason)
        if changed is None or not left:
            break
        plan = changed
        history.append(f"changed: {plan.techniques}")
    return plan, failed


def _tried(evaluator: Evaluator, genome: Genome) -> TrialError | None:
    """Whether the generated program runs here with its techniques active."""
    try:
        with evaluator.arms.running(genome, evaluator.arms.program(genome)):
            return None
    except TrialError as error:
        return error


def _by_model(
    asked: Specification,
    config: Config,
    evaluator: Evaluator,
    given: Model | None,
    folder: Path,
    plan: Plan,
) -> Answer:
    """One plan, which the request states or, in the paper's loop, the model proposes; its program
    written, repaired and checked; back to the planner while that fails and the paper's number of
    generations lasts."""
    from engine.agent import opening

    evaluator.arms.require_sandbox()
    model = opening.model_of(config, folder, given)
    task = _task(asked, config)
    write = opening.writer(config, evaluator, folder, model, task)
    history: list[str] = []
    note = ""
    if config.agent.name != "paper" and not plan.structure:
        # A setting that nobody asked for and that does nothing here would mislead the programmer.
        plan, _ = _settled(asked, config, evaluator, plan, history)
    for turn in range(max(1, config.agent.generations)):
        if turn or config.agent.name == "paper":
            brief = opening.briefing(config, evaluator, folder, task)
            here = _free_space(evaluator)
            planner = Planner(model, brief, here, evaluator.arms.baseline, config.agent.knowledge)
            planned = planner.plans(1, [], Told(), f"plan {turn + 1}", note)
            if not planned.plans:
                history += planned.refused
                continue
            plan, genome = planned.plans[0]
        else:
            genome = rules.genome_of(plan)
        history.append(f"plan: {plan.title}")
        try:
            written = write.write(plan, genome, plan.title)
        except Unwritten as unwritten:
            history += [f"{event.what}: {event.words}" for event in unwritten.history]
            note = f"An earlier plan failed: {unwritten}. Plan something that keeps the request."
            continue
        history += [f"{event.what}: {event.words}" for event in written.history]
        text = written.program or write.template(genome)
        return Answer(text, written.program is not None, history=tuple(history))
    raise TrialError("generate", f"no program works: {history[-1] if history else 'no plan'}")


def _free_space(evaluator: Evaluator) -> Space:
    """Every technique that applies to the model here; a request may name what no search tries."""
    excluded = {n: why for n, why in evaluator.arms.applicable().items() if why is not None}
    return space(registry(), exclude=excluded)


def _task(asked: Specification, config: Config) -> Task:
    from engine.agent.opening import Task

    return Task(asked, rules.stands_for(asked, config.model.name, config.model.weights))


# --- a study


class _Done:
    """What a launcher hands back for a job that has left its result."""

    return_value: float = 0.0


def _searched(asked: Specification, config: Config, model: Model | None, folder: Path) -> Answer:
    """A study with the request's target; its best program, or the nearest to the target."""
    from omegaconf import OmegaConf

    from engine import study

    paths = dataclasses.replace(config.paths, outputs=str(folder))
    config = dataclasses.replace(config, study=STUDY, trial=None, paths=paths)
    home = folder / "sweeps" / STUDY

    cfg = OmegaConf.create(plain(config))
    met = True
    try:
        study.run(cfg, [], in_process(config), model, _task(asked, config))
    except GoalMissed as missed:
        console.say(str(missed))
        met = False
    best = _best(home, config)
    if best is None:
        raise TrialError("generate", "the search measured no program that works")
    text = (home / str(best.program)).read_text(encoding="utf-8")
    task = _task(asked, config)
    if task.subject is not None and not best.untrusted:
        text = _published(task, best, config, folder)
    figures = {name: getattr(best, name) for name in FIGURES}
    history = [f"trial {best.trial}: {best.note or best.origin}"]
    return Answer(text, best.untrusted, best.trial, figures, met, history=tuple(history))


def in_process(config: Config) -> Launch:
    """Runs a study's jobs one after the other in this process, without Hydra."""
    from engine import proposals, study

    home = Path(config.paths.outputs) / "sweeps" / str(config.study)

    def launch(jobs: list[list[str]], first: int) -> Any:
        for job in jobs:
            number = next(text for text in job if text.startswith("trial=")).rpartition("/")[2]
            genome = proposals.read(home / number).genome
            trial = f"{config.study}/{number}"
            study.job(dataclasses.replace(config, technique=genome, trial=trial))
        return [_Done()] * len(jobs)

    return launch


def plain(config: Config) -> dict[str, Any]:
    """The configuration as composed; nothing but plain values, so that it reads back the same."""
    data: dict[str, Any] = json.loads(json.dumps(dataclasses.asdict(config)))
    return data


def _best(home: Path, config: Config) -> Result | None:
    """Of the accepted trials the one that a study of this goal hands over; where none keeps the
    goal the one that gets farthest, each weighted with the chance that it keeps the limits."""
    told = [r for r in session.told(home).read() if r.ok]
    told = [r for r in told if r.rung == 2] or told
    goal = dataclasses.asdict(config.goal)
    limits = goal | {"speedup": None, "seconds": None, "memory_gib": None}
    best = goals.recommended(told, goal)
    if best is not None:
        return best
    # Limits without an interval are kept or not; what was not measured at all has no chance.
    able = [r for r in told if goals.within_goal(r, limits | {"max_loss": None})] or told

    def farthest(result: Result) -> tuple[float, float]:
        speedup = result.speedup or 0.0
        return speedup * goals.chance(result, limits), speedup

    return max(able, key=farthest, default=None)


def _published(task: Task, best: Result, config: Config, folder: Path) -> str:
    """The generated program of the best composition for the model that was asked for; what ran
    was its miniature."""
    from engine.agent.opening import template

    with Evaluator(config, session.machine_of(config), folder / "sweeps" / STUDY) as evaluator:
        return template(evaluator, task)(best.genome)
