"""A weak programmer: a language model's part played by templates, with faults at known rates.

It answers planner, coder and debugger requests and knows nothing but the text of its prompts and,
as a programmer does, how a program for its model is written (``engine.program``) and which import
a name needs. It is deterministic: what it draws follows from its seed, the request and how often it
has had that request. Rates and where they come from stand in ``Rates``.
"""

from __future__ import annotations

import hashlib
import json
import random
import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from engine import program
from engine.agent.answers import code_of
from engine.agent.llm import Reply, Request, Usage
from engine.errors import TrialError, UsageError
from engine.genome import describe
from engine.program import Subject
from tests.agent.faults import FAULTS, Complaint, Fault, Kind, mended
from tests.agent.proposing import plans

CHARACTERS = 4
"""Characters of a token, about."""


@dataclass(frozen=True)
class Rates:
    """How often it errs. All are shares from 0 to 1.

    Published figures are those of paper.md and research/agents.md (section in brackets); counts are
    recomputed from the percentages.
    """

    faulty: float = 88 / 116
    """Programs with a fault, written without a template. o3-mini alone fails 88 of the 116 tasks
    with one method (paper.md, table, L2: 24.14 % pass), the weakest task that has a method."""
    template: float = 78 / 103
    """What a template in the prompt makes of that rate. Sonnet alone fails 103 of the 418 tasks of
    L1 to L3; with templates and a planner but no debugger 78 (paper.md, table)."""
    compile: float = 17 / 31
    """Of the compile and key-attribute faults those that do not run: 17 to 14 in figure 4, L5
    (research/agents.md 0.3, row 5). Within a class every fault is equally likely (our assumption).
    """
    speed: float = 0.1
    """Of all faults those that only make the program slow (our assumption)."""
    second: float = 0.15
    """Faulty programs that have a second fault (our assumption)."""
    repair: float = 1 - (2.15 / 31.18) ** (1 / 3)
    """Repairs that succeed where the reason names the fault: compile errors of L5 fall from 31.18
    to 2.15 % with at most three repairs (research/agents.md 0.3, row 5), hence 0.59 each. A repair
    where the reason names nothing never succeeds. Asked the same with no new thought in the prompt
    (the same complaint and plan, no earlier reflection) it thinks the same again, as a model
    without temperature does (our assumption)."""
    worse: float = 0.05
    """Answers of the debugger that bring a new fault (our assumption)."""
    illegal: float = 0.1
    """Plans with a value out of bounds where the prompt states the bounds (our assumption)."""
    illegal_unknown: float = 0.3
    """The same where it does not (our assumption)."""
    repeated: float = 0.1
    """Plans that repeat another of the same answer (our assumption)."""
    follows: float = 0.5
    """Choices of a plan that follow what the prompt recommends, a known setting or what did best
    in earlier studies (our assumption)."""


@dataclass(frozen=True)
class Injected:
    """A fault that was put into an answer of that role."""

    fault: str
    kind: Kind
    role: str


@dataclass
class Diary:
    """What the programmer did; for the statistics, never for itself."""

    injected: list[Injected] = field(default_factory=list)
    informed: int = 0
    """Debugger's requests whose reason named a fault."""
    uninformed: int = 0
    mended: list[str] = field(default_factory=list)
    """Faults that the debugger took out."""
    present: list[str] = field(default_factory=list)
    """Faults in the program that was answered last."""


class WeakProgrammer:
    """A ``llm.Model``; ``subject`` is the model that its programs are for."""

    name = "weak:programmer"

    def __init__(self, subject: Subject, seed: int = 0, rates: Rates | None = None) -> None:
        self.subject = subject
        self.seed = seed
        self.rates = rates or Rates()
        self.diary = Diary()
        self._seen: Counter[str] = Counter()
        self._written: dict[str, str] = {}

    def complete(self, request: Request) -> Reply:
        rng = self._luck(request)
        answers = {"planner": self._plan, "coder": self._write, "debugger": self._repair}
        # Of a request it reads what it can: nothing.
        text = answers[request.role](request, rng) if request.role in answers else "{}"
        sent = sum(len(message.text) for message in request.messages)
        usage = Usage(sent // CHARACTERS, len(text) // CHARACTERS)
        parsed = json.loads(text) if request.schema is not None else None
        return Reply(text, parsed, self.name, usage, 0.0, 0.0, "stop", None)

    def _luck(self, request: Request) -> random.Random:
        """Luck of a call: of what it is about, not of the words of the prompt's template, and
        different each time that this comes again."""
        text = request.messages[-1].text
        about: list[Any] = [self.seed, request.role]
        if request.role == "debugger":
            told = complaint(text)
            about += [told.stage, told.reason, code_of(text)]
        elif request.role == "coder":
            about += [_planned(text), "# Template" in text]
        else:
            about += [[m.role, m.text] for m in request.messages]
        key = hashlib.sha256(json.dumps(about).encode()).hexdigest()
        self._seen[key] += 1
        return random.Random(f"{key}/{self._seen[key]}")

    def _thought(self, asked: str) -> random.Random:
        """Luck that is the same for the same failure, plan and earlier reflections."""
        told = complaint(asked)
        earlier = re.search(r"^# Earlier repairs.*?(?=^# (?!Earlier))", asked, re.M | re.S)
        words = [self.seed, told.stage, told.reason, told.plan, earlier[0] if earlier else ""]
        return random.Random(json.dumps(words))

    # --- planner

    def _plan(self, request: Request, rng: random.Random) -> str:
        # Plans that were refused are asked for again below the first prompt.
        first = next(m.text for m in request.messages if m.role == "user")
        found = plans(first, request.messages[-1].text, rng, self.rates)
        return json.dumps({"plans": found}, indent=1)

    # --- coder

    def _write(self, request: Request, rng: random.Random) -> str:
        text = request.messages[-1].text
        genome = _planned(text)
        try:
            clean = self._generated(genome)
        except (TrialError, UsageError) as error:
            return f"This plan cannot be written: {error}"
        self.diary.present.clear()
        share = self.rates.faulty * (self.rates.template if "# Template" in text else 1)
        return _answer("This is the program of the plan.", self.spoilt(clean, rng, share, "coder"))

    def _generated(self, genome: Mapping[str, Mapping[str, Any]]) -> str:
        key = json.dumps(genome)
        if key not in self._written:
            self._written[key] = program.generate(self.subject, genome, describe(genome))
        return self._written[key]

    def spoilt(self, clean: str, rng: random.Random, share: float, role: str) -> str:
        """The program, with a fault in that share of cases, now and then with two."""
        if rng.random() >= share:
            return clean
        text = self._with_fault(clean, rng, role)
        return self._with_fault(text, rng, role) if rng.random() < self.rates.second else text

    def _with_fault(self, text: str, rng: random.Random, role: str) -> str:
        for fault in self._drawn(rng):
            faulty = fault.inject(text, rng)
            if faulty is not None and faulty != text:
                self.diary.injected.append(Injected(fault.name, fault.kind, role))
                self.diary.present.append(fault.name)
                return faulty
        return text

    def _drawn(self, rng: random.Random) -> Sequence[Fault]:
        """All faults, those of the drawn class first, in a drawn order."""
        kind: Kind = "compile" if rng.random() < self.rates.compile else "key_attribute"
        kind = "speed" if rng.random() < self.rates.speed else kind
        shuffled = rng.sample(FAULTS, len(FAULTS))
        return sorted(shuffled, key=lambda fault: fault.kind != kind)

    # --- debugger

    def _repair(self, request: Request, rng: random.Random) -> str:
        asked = request.messages[-1].text
        text = code_of(asked)
        found = mended(text, complaint(asked))
        self.diary.informed += found is not None
        self.diary.uninformed += found is None
        understood = found is not None and self._thought(asked).random() < self.rates.repair
        if found is not None and understood:
            self.diary.mended.append(found[0])
            if found[0] in self.diary.present:
                self.diary.present.remove(found[0])
            text = found[1]
        else:
            # Who has not understood changes something all the same.
            text = f"{text.rstrip()}\n# looked through again, {rng.randrange(1000)}\n"
        if rng.random() < self.rates.worse:
            text = self._with_fault(text, rng, "debugger")
        words = f"The cause was: {found[0]}." if found and understood else "It may be this."
        return _answer(words, text)


def _answer(words: str, code: str) -> str:
    return f"{words}\n\n```python\n{code.rstrip()}\n```\n"


def _planned(text: str) -> dict[str, dict[str, Any]]:
    """The techniques of the last plan in a prompt."""
    for block in reversed(re.findall(r"^```json\n(.*?)^```$", text, re.M | re.S)):
        plan = json.loads(block)
        if isinstance(plan, Mapping) and isinstance(plan.get("techniques"), Mapping):
            return {name: dict(genes) for name, genes in plan["techniques"].items()}
    return {}


def complaint(text: str) -> Complaint:
    """What a debugger's prompt says about the failure: the section with the stage, up to the next
    heading, and the plan."""
    stage = re.search(r"^Stage: *(.*)$", text, re.M)
    section = re.split(r"^# ", text[stage.start() :], maxsplit=1, flags=re.M)[0] if stage else ""
    reason = section.partition("Reason:")[2]
    return Complaint(stage[1] if stage else "", reason, _planned(text))
