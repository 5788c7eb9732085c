"""Planner, coder, debugger: what each asks a model and what it makes of the answer."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from engine.agent import knowledge, plans, prompts
from engine.agent.answers import code_of
from engine.agent.brief import Brief
from engine.agent.llm import FormatFailure, Message, Model, Request
from engine.agent.plans import IllegalPlan, Plan
from engine.agent.prompts import Part
from engine.results import Genome
from engine.search.space import Space

REFLECTIONS = 5
"""Reflections of earlier repairs that a debugger is shown, the newest."""
MEANING = {
    "compile": "The text is no Python program.",
    "specification": (
        "The program's text, read without running it, does not say what was asked. State it in "
        "literals, in code that runs. A technique is recognised by its library's own call or by "
        "the functions of a generated program under their names (NAME_apply, NAME_call and so on)."
    ),
    "honesty": "What the program did contradicts its text, or breaks a rule of measuring.",
    "active": "A technique that the plan names changed nothing in the image.",
    "timeout": "The program was stopped after the time that a candidate may take.",
}
"""What a stage means, where its name does not say so."""


@dataclass(frozen=True)
class Failure:
    """Why a program may not be measured: the stage and reason of a trial, and its traceback."""

    stage: str
    reason: str
    traceback: str = ""

    def __str__(self) -> str:
        return f"at {self.stage}: {self.reason}"


@dataclass(frozen=True)
class Told:
    """What a planner is told of the study so far, as texts; empty where nothing is to be told."""

    trials: str = ""
    failures: str = ""
    insights: str = ""
    refined: str = ""


@dataclass(frozen=True)
class Planned:
    """Legal plans with their genomes, and a sentence for each plan that was refused for good."""

    plans: tuple[tuple[Plan, Genome], ...]
    refused: tuple[str, ...] = ()


@dataclass(frozen=True)
class Planner:
    """Asks for plans. Without ``knowledge`` it is told names and bounds, and no cards."""

    model: Model
    brief: Brief
    space: Space
    baseline: Genome
    knowledge: bool = True

    def plans(
        self, new: int, refining: Sequence[int], told: Told, name: str, note: str = ""
    ) -> Planned:
        """Up to ``new`` new plans and one for each of the trials in ``refining``.

        Plans that the space refuses go back once, with the reason; what is refused then is left
        out. Raises LlmError and BudgetSpent.
        """
        count = new + len(refining)
        messages = self.messages(new, refining, told, note)
        wanted = Request("planner", messages, plans.ANSWER, {}, name)
        try:
            reply = self.model.complete(wanted)
        except FormatFailure as failure:
            return Planned((), (f"no plans: {failure.reason}",))
        found, wrong = self._legal(reply.parsed, refining)
        if wrong:
            again = (
                *messages,
                Message("assistant", reply.text),
                Message("user", _refusal(wrong)),
            )
            repair = Request("planner", again, plans.ANSWER, {}, f"{name}, repaired")
            try:
                more, wrong = self._legal(self.model.complete(repair).parsed, refining)
            except FormatFailure as failure:
                more, wrong = [], [*wrong, f"no plans: {failure.reason}"]
            found += more
        return Planned(tuple(found[:count]), tuple(wrong))

    def messages(
        self, new: int, refining: Sequence[int], told: Told, note: str = ""
    ) -> tuple[Message, ...]:
        """The prompt."""
        space = self.space
        levels = Part((*(knowledge.cards(space, detail) for detail in (2, 1, 0)),))
        names = "; ".join(
            f"{one.name} ({', '.join(knowledge.genes(one, space)) or 'no genes'})"
            for one in space.strategies.values()
        )
        parts: dict[str, Part | str] = {
            "cards": levels if self.knowledge else Part(("",)),
            "left_out": knowledge.left_out(space) if self.knowledge else "",
            "insights": told.insights,
            "failures": told.failures,
            "trials": Part(_fewer(told.trials)),
            "refined": Part((told.refined,)),
        }
        values = {
            "task": self.brief.request or "Make this model as fast as the goal asks.",
            "subject": self.brief.subject,
            "machine": self.brief.machine,
            "baseline": self.brief.baseline,
            "goal": self.brief.goal,
            "profile": self.brief.profile,
            "names": "" if self.knowledge else names,
            "wanted": _wanted(new, refining, note),
        }
        return prompts.prompt("planner", values, parts)

    def _legal(
        self, data: object, refining: Sequence[int]
    ) -> tuple[list[tuple[Plan, Genome]], list[str]]:
        found: list[tuple[Plan, Genome]] = []
        read, wrong = plans.read_all(data)
        for plan in read:
            try:
                if plan.refines is not None and plan.refines not in refining:
                    allowed = ", ".join(map(str, refining)) or "null alone"
                    raise IllegalPlan(f"refines is {plan.refines}; allowed: {allowed}")
                genome = plans.genome_of(plan, self.space, self.baseline)
                found.append((plans.whole(plan, genome), genome))
            except IllegalPlan as error:
                wrong.append(f"{plan.title!r}: {error}")
        return found, wrong


def _wanted(new: int, refining: Sequence[int], note: str) -> str:
    parts = []
    if refining:
        numbers = ", ".join(f"#{number}" for number in refining)
        parts.append(f"{len(refining)} refined, one for each of {numbers}")
    if new:
        parts.append(f"{new} new")
    count = new + len(refining)
    noun = "plan" if count == 1 else "plans"
    text = f'{{"plans": [...]}} with {count} {noun}: {" and ".join(parts)}.'
    return f"{text} {note}".strip()


def _refusal(wrong: Sequence[str]) -> str:
    listed = "\n".join(f"- {prompts.one_line(sentence, 400)}" for sentence in wrong)
    return (
        f"These cannot be carried out:\n{listed}\n\nAnswer again with one JSON object that holds "
        f"{len(wrong)} plans in place of these and none of the others."
    )


def _fewer(trials: str) -> tuple[str, ...]:
    """The list of trials, its best half, and none."""
    lines = trials.splitlines()
    return (trials, "\n".join(lines[: max(1, len(lines) // 2)]), "")


@dataclass(frozen=True)
class Coder:
    """Asks for the program of a plan. Without ``knowledge`` it sees neither template nor facts."""

    model: Model
    brief: Brief
    knowledge: bool = True

    def write(
        self,
        plan: Plan,
        template: str,
        required: str,
        failed: Sequence[Failure],
        name: str,
    ) -> str:
        """The program's text. ``template`` runs the nearest genome, ``required`` says what the
        text must state, ``failed`` is how earlier programs of this plan ended.

        Raises FormatFailure where the answer holds no program, LlmError and BudgetSpent.
        """
        messages = self.messages(plan, template, required, failed)
        reply = self.model.complete(Request("coder", messages, None, {}, name))
        return program_of(reply.text, reply.finish)

    def messages(
        self, plan: Plan, template: str, required: str, failed: Sequence[Failure]
    ) -> tuple[Message, ...]:
        """The prompt."""
        known = self.knowledge
        listed = "\n".join(f"- {prompts.one_line(str(failure))}" for failure in failed)
        parts: dict[str, Part | str] = {
            "template": Part(_templates(template) if known else ("",)),
            "facts": knowledge.facts(plan.techniques) if known else "",
            "left": listed,
        }
        values = {
            "plan": plans.as_json(plan),
            "request": self.brief.request,
            "subject": self.brief.subject,
            "versions": knowledge.versions(),
            "required": required,
        }
        return prompts.prompt("coder", values, parts)


def _templates(program: str) -> tuple[str, ...]:
    """The whole template; without what only a person at a shell needs; none."""
    block = prompts.program_block(program)
    return (block, block.partition("\n\ndef main() -> None:")[0].rstrip(), "")


@dataclass(frozen=True)
class Repair:
    """A repaired program and what the debugger said was the cause."""

    program: str
    reflection: str


@dataclass(frozen=True)
class Debugger:
    """Asks for the repair of a program, and remembers what earlier repairs thought."""

    model: Model
    knowledge: bool = True
    memory: bool = True
    """Whether it is shown its own earlier reflections."""

    def repair(
        self,
        program: str,
        plan: Plan,
        failure: Failure,
        reflections: Sequence[str],
        required: str,
        name: str,
    ) -> Repair:
        """One repair. Raises FormatFailure where the answer holds no program, LlmError and
        BudgetSpent."""
        messages = self.messages(program, plan, failure, reflections, required)
        reply = self.model.complete(Request("debugger", messages, None, {}, name))
        text = program_of(reply.text, reply.finish)
        return Repair(text, reflection_of(reply.text))

    def messages(
        self,
        program: str,
        plan: Plan,
        failure: Failure,
        reflections: Sequence[str],
        required: str,
    ) -> tuple[Message, ...]:
        """The prompt."""
        trace = prompts.steady(failure.traceback)
        own = list(reflections)[-REFLECTIONS:] if self.memory else []
        listed = "\n".join(f"{i}. {text}" for i, text in enumerate(own, 1))
        versions: tuple[str, ...] = ("",)
        if trace:
            versions = (prompts.quoted(trace), prompts.quoted(trace, 15), "")
        parts: dict[str, Part | str] = {
            "reflections": Part((listed, "")),
            "traceback": Part(versions),
            "facts": knowledge.facts(plan.techniques) if self.knowledge else "",
        }
        values = {
            "stage": failure.stage,
            "reason": prompts.one_line(prompts.steady(failure.reason), 600),
            "meaning": MEANING.get(failure.stage, ""),
            "plan": plans.as_json(plan),
            "required": required,
            "versions": f"Versions: {knowledge.versions()}.",
            "program": prompts.program_block(program),
        }
        return prompts.prompt("debugger", values, parts)


def program_of(text: str, finish: str) -> str:
    """The program of an answer; raises FormatFailure where there is none or it was cut off."""
    if finish == "length":
        raise FormatFailure("the answer was cut off: allow more with llm.max_tokens=NUMBER", text)
    return code_of(text)


def reflection_of(text: str) -> str:
    """What an answer says before its program, on one line."""
    return prompts.one_line(re.split(r"```", text, maxsplit=1)[0], 400)


def state_required(fields: Mapping[str, object]) -> str:
    """What a program must state, as lines of JSON."""
    return "\n".join(f"- {name}: {json.dumps(value)}" for name, value in fields.items())
