"""Opens the agent of a study: what the configuration says, put together once."""

from __future__ import annotations

import dataclasses
import json
import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from engine import console, references, secret
from engine.agent import calls, feedback, insights, spent
from engine.agent.brief import Brief, brief
from engine.agent.budget import Budget
from engine.agent.llm import Model
from engine.agent.plans import Plan
from engine.agent.record import Record
from engine.agent.roles import Coder, Debugger, Planner
from engine.agent.source import AgentSource
from engine.agent.structured import Structured
from engine.agent.workbench import Workbench, specification_of
from engine.agent.writer import Template, Writer
from engine.errors import UsageError
from engine.results import Genome, Result, write_json
from engine.schema import Config
from engine.scope import configured
from engine.search import Searcher, paper, searcher
from engine.search.space import Space

if TYPE_CHECKING:
    from engine.evaluate import Evaluator
    from engine.program import Subject
    from engine.specification import Specification

INSIGHTS = "insights.json"
"""What a study was told of earlier ones."""
PROFILE = "profile.json"
"""Where its baseline's time goes."""


@dataclass(frozen=True)
class Task:
    """A request behind a study. ``subject`` is what its programs name where that is not what the
    study runs (a published model in place of the miniature that stands for it)."""

    specification: Specification
    subject: Subject | None = None


def task_of(config: Config) -> Task | None:
    """The request of the command line behind a run; None without one, and for one that the rules
    cannot read, whose settings are in the configuration all the same."""
    if config.request is None:
        return None
    from engine.agent.asked import stands_for
    from engine.phrasing import by_rules

    try:
        asked = by_rules(config.request, config.model.name, wins=True)
    except UsageError:
        return None
    return Task(asked, stands_for(asked, config.model.name, config.model.weights))


def model_of(config: Config, folder: Path, given: Model | None = None) -> Model:
    """The language model of a study, or ``given`` with the same recording, budget and checks.

    A replayed study draws what the recorded one drew and knows what that knew when it began: the
    recording's secret comes with it, and what it was told of earlier studies (to which the recorded
    one belongs by now) and of its baseline's times.
    """
    from engine.agent.doors import door

    if given is not None:
        path = folder / calls.FILE
        budget = Budget(given, config.llm.budget, calls.spent(calls.read(path)))
        return Structured(Record(budget, path, {}))
    if config.llm.name == "replay" and config.llm.folder is not None:
        recorded = Path(config.llm.folder).expanduser()
        recorded = recorded if recorded.is_dir() else recorded.parent
        for name in (secret.FILE, INSIGHTS, PROFILE):
            if (recorded / name).exists() and not (folder / name).exists():
                folder.mkdir(parents=True, exist_ok=True)
                shutil.copyfile(recorded / name, folder / name)
    return door(config.llm, folder)


def opened(
    config: Config,
    evaluator: Evaluator,
    here: Space,
    folder: Path,
    model: Model | None = None,
    task: Task | None = None,
) -> Searcher:
    """What a study asks for candidates where :attr:`Config.by_agent` holds.

    Without a language model that is the paper's selector. ``model`` stands in place of the one
    that the configuration names. Raises UsageError where the model cannot be.
    """
    if model is None and config.llm.name == "offline":
        own = config.search.options() if config.search.name == "paper" else {}
        options = {"refined": config.agent.refined, **own}
        return searcher("paper", here, config.search.seed, options, memory=config.goal.names_memory)
    task = task or task_of(config)
    model = model_of(config, folder, model)
    base = evaluator.arms.base()
    base.pause()
    return AgentSource(
        agent=config.agent,
        space=here,
        planner=Planner(
            model,
            briefing(config, evaluator, folder, task),
            here,
            evaluator.arms.baseline,
            config.agent.knowledge,
        ),
        writer=writer(config, evaluator, folder, model, task),
        tuner=lambda space: configured(config, space),
        selector=paper.Paper(here, config.search.seed, _paper(config), config.goal.names_memory),
        base=feedback.Base(base.facts.forwards, base.facts.flops, config.objective == "time"),
        goal=dataclasses.asdict(config.goal),
        max_loss=config.goal.most_loss,
        memory=config.goal.names_memory,
        seed=config.search.seed,
        insights=known_insights(config, evaluator, folder),
        folder=folder,
    )


def _paper(config: Config) -> paper.Options:
    """The selector's options: those of search=paper where that is chosen, else its defaults."""
    own: dict[str, Any] = config.search.options() if config.search.name == "paper" else {}
    return paper.Options(**{"refined": config.agent.refined, **own})


def template(evaluator: Evaluator, task: Task | None) -> Template:
    """The generator: for what the study runs, or for what the request's programs name."""
    subject = task.subject if task else None
    if subject is None:
        return evaluator.arms.program

    def published(genome: Genome) -> str:
        from engine import calibration, program
        from engine.genome import describe

        found = calibration.measured(evaluator.arms, genome)
        return program.generate(subject, genome, describe(genome), found)

    return published


def writer(
    config: Config, evaluator: Evaluator, folder: Path, model: Model, task: Task | None
) -> Writer:
    """Coder, debugger and workbench of a configuration."""
    agent = config.agent
    generated = template(evaluator, task)
    request = task.specification if task else None

    def asked(plan: Plan, genome: Genome) -> Specification | None:
        text = generated(genome)
        return specification_of(text, genome, config.model.name, plan.structure, request)

    return Writer(
        coder=Coder(model, briefing(config, evaluator, folder, task), agent.knowledge),
        debugger=Debugger(model, agent.knowledge, agent.memory) if agent.debugger else None,
        bench=Workbench(folder, evaluator.attempt if agent.debugger else None, agent.check),
        template=generated,
        asked=asked,
        repairs=agent.repairs,
        rewrites=agent.rewrites,
        always=agent.writes == "always",
    )


def briefing(config: Config, evaluator: Evaluator, folder: Path, task: Task | None) -> Brief:
    """What every prompt of this study says; where time counts, with the baseline's profile, which
    is measured once and kept, so that a resumed study asks the same questions."""
    arms = evaluator.arms
    subject = (task.subject if task else None) or arms.subject
    request = task.specification.request if task else ""
    made = brief(config, subject, evaluator.machine, arms.baseline, request)
    if config.objective != "time":
        return made
    path = folder / PROFILE
    if not path.exists():
        write_json(path, references.profile(evaluator))
    times: Mapping[str, float] = json.loads(path.read_text(encoding="utf-8"))
    shares = [f"{name} {value:.0f} ms" for name, value in sorted(times.items())]
    return dataclasses.replace(made, profile=", ".join(shares))


def known_insights(config: Config, evaluator: Evaluator, folder: Path) -> str:
    """What earlier studies say, settled when a study begins, so that it resumes with the same."""
    if not config.agent.memory:
        return ""
    path = folder / INSIGHTS
    if not path.exists():
        studies: list[list[Result]] = insights.earlier(
            folder.parent,
            folder.name,
            dataclasses.asdict(config.model),
            evaluator.machine.profile(),
            config.objective,
        )
        write_json(path, {"words": insights.words(insights.effects(studies))})
    return str(json.loads(path.read_text(encoding="utf-8"))["words"])


def account(config: Config, folder: Path, source: Searcher | None) -> dict[str, Any]:
    """Calls, tokens and money of a study, by role and model: written to ``spent.json``, shown, and
    returned for ``study.json``."""
    rows = spent.write(folder)
    total = spent.total(rows)
    if rows:
        console.show(spent.table(rows))
    return {
        "mode": config.agent.name,
        "model": total.model or config.llm.model or config.llm.name,
        "ended": getattr(source, "ended", None),
        "spent": [dataclasses.asdict(row) for row in rows],
        "total": dataclasses.asdict(total),
    }
