"""No wrong program slips through its class, and no reference is refused."""

from __future__ import annotations

import pytest

from engine.diffbench.selection import pipeline_of
from engine.diffbench.tasks import Task, reference, tasks
from engine.reading import read
from engine.specification import mismatches
from tests.diffbench.mutants import MUTANTS, Mutant


def text_of(task: Task) -> str:
    return reference(task)


def wrong(task: Task, text: str) -> tuple[str, ...]:
    return tuple(map(str, mismatches(task.specification, read(text))))


def one_of_each() -> list[Task]:
    """A task of every model with the most that a request can state."""
    found: dict[str, Task] = {}
    for task in tasks():
        stated = task.specification
        rich = stated.steps and stated.height and stated.scheduler
        if task.level in (1, 3) and rich and len(stated.methods) != 1:
            found.setdefault(f"{stated.model} L{task.level}", task)
    return list(found.values())


@pytest.mark.parametrize("task", one_of_each(), ids=lambda t: f"{t.id}-{t.specification.model}")
def test_every_static_mutant_of_every_model_is_seen_in_its_text(task: Task) -> None:
    text = text_of(task)
    assert wrong(task, text) == ()
    tried = 0
    for mutant in MUTANTS:
        changed = mutant.change(text, task) if mutant.static else None
        if changed is None:
            continue
        assert changed != text, f"{mutant.name} changed nothing"
        assert wrong(task, changed), f"{task.id}: {mutant.name} was not seen"
        tried += 1
    assert tried >= 4


@pytest.mark.slow
def test_every_static_mutant_of_every_task_is_seen_and_no_reference_is_refused() -> None:
    for task in tasks():
        text = text_of(task)
        assert wrong(task, text) == (), task.id
        for mutant in MUTANTS:
            changed = mutant.change(text, task) if mutant.static else None
            if changed is not None:
                assert wrong(task, changed), f"{task.id}: {mutant.name} was not seen"


def test_every_pipeline_and_class_of_error_has_its_mutants() -> None:
    assert {m.error for m in MUTANTS} == {"key_attribute", "absolute_quality", "relative_speed"}
    assert len({pipeline_of(task) for task in one_of_each()}) == 7
    assert len({m.name for m in MUTANTS}) == len(MUTANTS)


def named(name: str) -> Mutant:
    return next(m for m in MUTANTS if m.name == name)
