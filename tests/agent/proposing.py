"""How the weak programmer plans: from what its prompt says, as far as it says it."""

from __future__ import annotations

import math
import random
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from engine.strategy import Value

ENOUGH = 0.35
"""Chance to stop after each technique of a new plan (our assumption)."""
MORE = 0.3
"""Refined plans that add a technique in place of varying a gene (our assumption)."""


class Care(Protocol):
    """The rates that planning needs."""

    @property
    def illegal(self) -> float: ...
    @property
    def illegal_unknown(self) -> float: ...
    @property
    def repeated(self) -> float: ...
    @property
    def follows(self) -> float: ...


@dataclass(frozen=True)
class Gene:
    """A gene as a card tells it; without ``values`` its bounds are not known."""

    name: str
    values: tuple[Value, ...] = ()


@dataclass(frozen=True)
class Technique:
    """A technique as the prompt tells it; ``slot`` is empty where the prompt names none."""

    name: str
    slot: str
    genes: tuple[Gene, ...]
    known: tuple[dict[str, Value], ...] = ()
    """Settings that the prompt recommends."""


def plans(text: str, last: str, rng: random.Random, care: Care) -> list[dict[str, Any]]:
    """As many plans as ``last`` asks for, the end of a conversation that ``text`` opens."""
    known = techniques(text)
    stated = requested(text, known)
    bounded = any(gene.values for technique in known for gene in technique.genes)
    asked = _section(last, "Your answer") or last
    refined = [int(number) for number in re.findall(r"#(\d+)", asked)] if text == last else []
    parents = composed(_section(text, "To be refined"))
    draw = Draw(known, advice(text), care.follows, rng)
    found: list[dict[str, Any]] = []
    for number in range(wanted(asked)):
        if found and rng.random() < care.repeated:
            found.append(dict(rng.choice(found)))
            continue
        parent = parents.get(refined[number]) if number < len(refined) else None
        chosen = stated or (draw.varied(parent) if parent else draw.composed())
        if rng.random() < (care.illegal if bounded else care.illegal_unknown):
            chosen = _beyond(chosen, rng)
        names = " and ".join(chosen) or "as published"
        found.append(
            {
                "title": names[:60],
                "why": f"{names} should save work.",
                "techniques": chosen,
                "structure": "",
                "refines": refined[number] if number < len(refined) else None,
            }
        )
    return found


def wanted(asked: str) -> int:
    """How many plans are asked for; one where no number is named."""
    return max((int(n) for n in re.findall(r"\b(\d+) plans?\b", asked)), default=1)


def _section(text: str, title: str) -> str:
    found = re.search(rf"^# {title}$\n(.*?)(?=^# |\Z)", text, re.M | re.S)
    return found[1] if found else ""


def techniques(text: str) -> list[Technique]:
    """What the cards tell, else what the list of names does."""
    found = []
    for card in re.split(r"^### ", _section(text, "Techniques"), flags=re.M)[1:]:
        name = card.split("\n", 1)[0].strip()
        slot = re.search(r"Slot (\w+)\.", card)
        rows = re.findall(r"^- (\w+): .*?; ((?:one of )?[^;]*); default (.*)$", card, re.M)
        genes = tuple(
            Gene(gene, tuple(_values(allowed, default))) for gene, allowed, default in rows
        )
        found.append(Technique(name, slot[1] if slot else "", genes, _known(card, genes)))
    if found:
        return found
    listed = re.search(r"^Technique names and genes that exist here: (.*)$", text, re.M)
    parts = re.split(r"(?:^|; )(\w+) \((?=\w+: |no genes)", listed[1] if listed else "")
    for name, told in zip(parts[1::2], parts[2::2], strict=True):
        rows = re.findall(r"(?:^|, )(\w+): .*?; ([^;]*); default ([^,;)]+)", told)
        found.append(Technique(name, "", tuple(Gene(g, tuple(_values(*of))) for g, *of in rows)))
    return found


def _known(card: str, genes: Sequence[Gene]) -> tuple[dict[str, Value], ...]:
    """Recommended settings that lie within the bounds."""
    line = re.search(r"^Known settings: (.*)$", card, re.M)
    allowed = {gene.name: gene.values for gene in genes}
    found = []
    for told in re.findall(r"((?:\w+=[\w.+-]+ )+)\(", line[1] if line else ""):
        setting = {g: _read(v) for g, v in re.findall(r"(\w+)=(\S+)", told)}
        if all(value in allowed.get(gene, ()) for gene, value in setting.items()):
            found.append(setting)
    return tuple(found)


def _values(allowed: str, default: str) -> list[Value]:
    span = re.search(r"(-?[\d.]+) to (-?[\d.]+) in steps of ([\d.]+)", allowed)
    if span:
        low, high, step = (float(part) for part in span.groups())
        numbers = [round(low + i * step, 6) for i in range(int((high - low) / step + 1e-9) + 1)]
        whole = step == int(step) and low == int(low)
        return [int(n) for n in numbers] if whole else list(numbers)
    words = allowed.removeprefix("one of ").removeprefix("held at ").split(", ")
    return [_read(word) for word in words] or [_read(default)]


def _read(word: str) -> Value:
    if word in ("true", "false"):
        return word == "true"
    try:
        return int(word)
    except ValueError:
        try:
            return float(word)
        except ValueError:
            return word


def requested(text: str, known: Sequence[Technique]) -> dict[str, dict[str, Value]]:
    """Techniques that the task names, with the genes whose values it states, as in
    ``deepcache (interval 3, branch 0)``; empty where it names none."""
    # Its first paragraph; what follows describes the model.
    task = _section(text, "Task").strip().partition("\n\n")[0]
    found: dict[str, dict[str, Value]] = {}
    for technique in known:
        place = re.search(rf"\b{technique.name}\b(?: *\(([^)]*)\))?", task)
        if place:
            stated = re.findall(r"(\w+)[ =]+([\w.+]+)", place[1] or "")
            names = {gene.name for gene in technique.genes}
            found[technique.name] = {g: _read(value) for g, value in stated if g in names}
    return found


def composed(text: str) -> dict[int, dict[str, dict[str, Value]]]:
    """The compositions of a list of trials by number: ``- #4: 2.31x, ...; deepcache interval=3``,
    with middle dots between techniques and perhaps a title behind."""
    found: dict[int, dict[str, dict[str, Value]]] = {}
    for number, line in re.findall(r"^- #(\d+):(.*)$", text, re.M):
        told = re.sub(r' \(".*"\)$', "", line).rpartition("; ")[2]
        parts = [part.split() for part in told.split(" \u00b7 ")]
        found[int(number)] = {
            name: {g: _read(v) for g, _, v in (gene.partition("=") for gene in genes)}
            for name, *genes in parts
        }
    return found


def advice(text: str) -> dict[tuple[str, str], Value]:
    """The value of each gene that did best in earlier studies, where 1 % of loss weighs like 10 %
    of speed: ``- deepcache.interval=3: speed 1.80x, loss +0.4 points (9 trials)``."""
    lines = re.findall(
        r"^- (\w+)\.(\w+)=(\S+): speed ([\d.]+)x(?:, loss ([+-][\d.]+) points)?", text, re.M
    )
    best: dict[tuple[str, str], tuple[float, Value]] = {}
    for technique, gene, value, speed, loss in lines:
        merit = math.log(float(speed)) - float(loss or 0) / 10
        if (technique, gene) not in best or best[technique, gene][0] < merit:
            best[technique, gene] = (merit, _read(value))
    return {key: value for key, (_, value) in best.items()}


@dataclass(frozen=True)
class Draw:
    """How new compositions come about."""

    known: Sequence[Technique]
    advice: Mapping[tuple[str, str], Value]
    follows: float
    """Share of choices in which what the prompt recommends is taken, where it does."""
    rng: random.Random

    def composed(self) -> dict[str, dict[str, Value]]:
        """One to four techniques of different slots with values within their bounds."""
        taken: set[str] = set()
        chosen: dict[str, dict[str, Value]] = {}
        for technique in self.rng.sample(list(self.known), len(self.known)):
            if len(chosen) == 4 or (technique.slot and technique.slot in taken):
                continue
            taken.add(technique.slot)
            chosen[technique.name] = self.genes(technique)
            if self.rng.random() < ENOUGH:
                break
        return chosen

    def genes(self, technique: Technique) -> dict[str, Value]:
        """A recommended setting, the advice for each gene, or any value."""
        drawn = {g.name: self.rng.choice(g.values) for g in technique.genes if g.values}
        if technique.known and self.rng.random() < self.follows:
            setting = self.rng.choice(technique.known)
            return drawn | {g: v for g, v in setting.items() if g in drawn}
        for gene in drawn:
            if (technique.name, gene) in self.advice and self.rng.random() < self.follows:
                drawn[gene] = self.advice[technique.name, gene]
        return drawn

    def varied(self, parent: dict[str, dict[str, Value]]) -> dict[str, dict[str, Value]]:
        """A parent with one gene at a neighbouring value, or with one technique more."""
        able = {t.name: t for t in self.known}
        slots = {able[name].slot for name in parent if name in able}
        free = [t for t in self.known if t.name not in parent and not (t.slot and t.slot in slots)]
        genes = [
            (name, gene)
            for name in parent
            if name in able
            for gene in able[name].genes
            if len(gene.values) > 1 and parent[name].get(gene.name) in gene.values
        ]
        if free and (not genes or self.rng.random() < MORE):
            added = self.rng.choice(free)
            return parent | {added.name: self.genes(added)}
        if not genes:
            return parent
        name, gene = self.rng.choice(genes)
        place = gene.values.index(parent[name][gene.name])
        near = [i for i in (place - 1, place + 1) if 0 <= i < len(gene.values)]
        return parent | {name: parent[name] | {gene.name: gene.values[self.rng.choice(near)]}}


def _beyond(chosen: dict[str, dict[str, Value]], rng: random.Random) -> dict[str, dict[str, Value]]:
    """With one number far out of its bounds, or with a gene that does not exist."""
    if not chosen:
        return chosen
    name = rng.choice(sorted(chosen))
    numbers = sorted(
        g for g, v in chosen[name].items() if isinstance(v, int | float) and not isinstance(v, bool)
    )
    changed: dict[str, Value] = {rng.choice(numbers): 1000} if numbers else {"strength": 1}
    return chosen | {name: chosen[name] | changed}
