"""A set of labels at work: the tasks with their targets, the references, the goals of stage 3."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from engine.diffbench import tasks as every
from engine.diffbench.details import MAX_LOSS
from engine.diffbench.labels import Labels, labelled, load
from engine.diffbench.stages import Goal

if TYPE_CHECKING:
    from engine.diffbench.tasks import Task
    from engine.hardware import Machine


@dataclass(frozen=True)
class Targets:
    """The tasks of one set of labels; None has no targets, so that L4 and L5 are left out."""

    labels: Labels | None

    @classmethod
    def of(cls, name: str | None) -> Targets:
        """The set of that name; raises UsageError where there is none."""
        return cls(None if name is None else load(name))

    @property
    def name(self) -> str | None:
        return None if self.labels is None else self.labels.name

    def tasks(self) -> list[Task]:
        """All 604, with targets as far as there are labels."""
        found = every.tasks()
        return found if self.labels is None else labelled(found, self.labels)

    def missing(self, task: Task) -> str | None:
        """Why a task has no target, or None."""
        if task.labelled:
            return None
        if self.labels is None:
            return "L4 and L5 need targets: type bench.labels=NAME"
        why = self.labels.failed.get(task.baseline or "")
        if why is None:
            return f"their baselines have no label in {self.labels.name} yet"
        return f"no target for {task.baseline} in labels {self.labels.name}: {why}"

    def foreign(self, machine: Machine) -> str | None:
        """A word of warning where the labels were made on another kind of machine."""
        if self.labels is None or self.labels.machine["profile"] == machine.profile():
            return None
        return (
            f"labels {self.labels.name} were made on {self.labels.machine['profile']}, this is "
            f"{machine.profile()}: targets may be too easy or out of reach here"
        )

    def reference(self, task: Task) -> str:
        """The program that stage 2 compares with: for L4 and L5 the one behind the label."""
        label = None if self.labels is None else self.labels.of(task)
        return every.reference(task, None if label is None else label.genome)

    def goal(self, task: Task) -> Goal | None:
        """What stage 3 asks for; None for L1 to L3."""
        asked = task.specification
        if task.level < 4 or asked.target is None:
            return None
        # Without a genome the reference is the baseline itself.
        baseline = every.reference(task)
        loss = MAX_LOSS if asked.max_loss is None else asked.max_loss
        needed, base = asked.target.speedup, asked.target.seconds_base
        assert needed is not None, "a target comes from a label"
        if base is None:
            return Goal(baseline, needed, loss)
        return Goal(baseline, needed, loss, asked.target.value, base)
