"""Whole verdicts on the miniatures that ship: references pass, wrong programs fail in their class.

Programs run as plain processes here, so that the tests need no sandbox; the scorer does not know
the difference.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from engine import session
from engine.config import from_mapping
from engine.diffbench import baselines, labeller, labelling
from engine.diffbench.agents import composed
from engine.diffbench.bench import Bench, unavailable
from engine.diffbench.questions import LOSS
from engine.diffbench.selection import pipeline_of
from engine.diffbench.stages import Goal, score
from engine.diffbench.tasks import Task, find, reference, tasks
from engine.diffbench.verdicts import Verdict
from engine.evaluate import Evaluator
from engine.genome import canonical
from engine.reading import read
from engine.specification import mismatches
from tests.diffbench.mutants import MUTANTS
from tests.diffbench.scripts import ANSWERS, Answer

OVERRIDES = ("+bench=diffbench", "sandbox=process", "hw=cpu", "hw.threads=1", "bench.looks=1")


@pytest.fixture(scope="module")
def bench(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Bench]:
    folder = tmp_path_factory.mktemp("bench")
    config = from_mapping(composed(OVERRIDES))
    with Bench(config, session.machine_of(config), folder, folder / "cache") as made:
        yield made


def scored(bench: Bench, task: Task, program: str, goal: Goal | None = None) -> Verdict:
    return score(task, program, bench, reference(task), goal)


def quick(level: int, *methods: str) -> Task:
    """The task of Stable Diffusion with these methods, a scheduler and the fewest steps."""
    able = [
        t
        for t in tasks()
        if t.level == level
        and t.specification.model == "sd15"
        and t.specification.scheduler
        and set(methods) <= set(t.specification.methods)
        and t.specification.steps
        and t.specification.height
    ]
    return min(able, key=lambda t: (t.specification.steps or 0, t.id))


def test_a_reference_passes_and_what_only_a_run_shows_is_caught(bench: Bench) -> None:
    task = quick(3, "deepcache", "tome")
    right = scored(bench, task, reference(task))
    assert right.passed, right.reason
    assert right.stage == 2
    assert right.figures["score"] == pytest.approx(right.figures["score_reference"], rel=0.02)
    assert len(right.images) == len(right.reference_images) == 10
    assert all((bench.folder / name).exists() for name in right.images)
    assert right.evidence is not None
    assert any("512 pixels" in note or "pixels are" in note for note in right.evidence["mapped"])
    for name in ("method undone", "caption painted as text"):
        mutant = next(m for m in MUTANTS if m.name == name)
        text = mutant.change(reference(task), task)
        assert text is not None
        verdict = scored(bench, task, text)
        assert verdict.errors == (mutant.error,), f"{name}: {verdict.errors} {verdict.reason}"
        assert verdict.reason


@pytest.mark.parametrize("answer", ANSWERS, ids=lambda answer: answer.name)
def test_scripts_in_other_styles_say_what_their_tasks_ask(answer: Answer) -> None:
    wrong = mismatches(find(answer.task).specification, read(answer.program))
    # All but one of the cheats can only be seen at work.
    assert bool(wrong) == (answer.name == "method never switched on"), wrong


@pytest.mark.slow
@pytest.mark.parametrize("answer", ANSWERS, ids=lambda answer: answer.name)
def test_scripts_in_other_styles_pass_and_cheats_fail_by_name(bench: Bench, answer: Answer) -> None:
    verdict = scored(bench, find(answer.task), answer.program)
    assert verdict.errors == (() if answer.error is None else (answer.error,)), verdict.reason
    assert verdict.passed == (answer.error is None)
    assert answer.said in verdict.reason


def test_the_tasks_of_a_baseline_are_asked_the_same_for_their_loss(
    bench: Bench, tmp_path: Path
) -> None:
    some = [t for t in tasks() if t.baseline == "sd15-512-keep20"]
    assert len(some) == 6
    asked = [bench.requests(task, LOSS, 36) for task in some]
    assert all(one == asked[0] for one in asked)
    first = [bench.requests(task, "captions", 10) for task in some]
    assert all(a != b for a in first for b in first if a is not b)
    config = from_mapping(composed((*OVERRIDES, "search.seed=7")))
    with Bench(config, bench.machine, tmp_path, tmp_path / "cache") as other:
        assert other.requests(some[0], LOSS, 36) == asked[0], "no key chooses the captions"


@pytest.mark.slow
@pytest.mark.parametrize("genome", [{}, {"deepcache": {"interval": 3, "branch": 1}}], ids=str)
def test_a_label_is_measured_on_the_pictures_that_are_scored(
    bench: Bench, tmp_path: Path, genome: dict[str, dict[str, Any]]
) -> None:
    task = next(t for t in tasks() if t.baseline == "sd15-512-keep20")
    asked = labelling._asked({"name": "some", "outputs": str(tmp_path)})
    config = labeller.configuration(baselines.named("sd15-512-keep20"), asked, "cpu")
    request = bench.requests(task, LOSS, 36)[0]
    with Evaluator(config, bench.machine, tmp_path) as mine:
        worker = mine.arms.load(genome, mine.arms.program(canonical(genome)))
        measured = worker.generate(request).images[0]
        worker.close()
    with bench.loaded(task, reference(task, canonical(genome))) as worker:
        scored = worker.generate(request).images[0]
    # Numbers of threads may round in their own ways.
    assert np.abs(measured.astype(int) - scored.astype(int)).mean() < 0.1


def test_what_is_no_program_fails_as_such(bench: Bench) -> None:
    task = quick(1)
    assert scored(bench, task, "pipe = (").errors == ("compile",)
    other = scored(bench, task, "import diffusers\n")
    assert other.errors == ("key_attribute",)
    assert {row["field"] for row in other.mismatches} >= {"pipeline", "model_id"}
    called = "            output = pipe(\n"
    broken = reference(task).replace(called, "            undefined_function()\n" + called)
    verdict = scored(bench, task, broken)
    assert verdict.errors == ("compile",), verdict.reason
    assert verdict.stage == 1
    assert "undefined_function" in verdict.reason
    assert "accelerated.py" in verdict.traceback


FLAT = """
import torch
from diffusers import {scheduler}, StableDiffusionPipeline

pipe = StableDiffusionPipeline.from_pretrained(
    "stable-diffusion-v1-5/stable-diffusion-v1-5", torch_dtype=torch.float16, variant="fp16"
).to("cuda")
pipe.scheduler = {scheduler}.from_config(pipe.scheduler.config)
{more}
image = pipe(
    "a photo of an astronaut", num_inference_steps={steps}, guidance_scale={guidance},
    height={height}, width={width},
).images[0]
image.save("out.png")
"""


def flat(task: Task, more: str = "") -> str:
    asked = task.specification
    return FLAT.format(
        scheduler=asked.scheduler,
        steps=asked.steps,
        guidance=asked.guidance_scale or 7.5,
        height=asked.height,
        width=asked.width,
        more=more,
    )


def plain_half() -> Task:
    """A task that a flat script with half precision answers."""
    return next(
        t
        for t in tasks()
        if t.specification.model == "sd15"
        and t.level < 3
        and not t.specification.methods
        and t.specification.scheduler
        and t.specification.steps
        and t.specification.height
        and t.specification.dtype in (None, "float16")
    )


@pytest.mark.slow
def test_flat_scripts_are_scored_as_honest_or_not(bench: Bench) -> None:
    task = plain_half()
    right = scored(bench, task, flat(task))
    assert right.passed, right.reason
    tricky = flat(
        task,
        "steps = pipe.scheduler.set_timesteps\n"
        "pipe.scheduler.set_timesteps = lambda n, **k: steps(max(1, n // 2), **k)",
    )
    assert scored(bench, task, tricky).errors == ("key_attribute",)


def shipped() -> list[Task]:
    """A task of every pipeline whose miniature is here and trained, with the most that it can
    state and the fewest steps."""
    found: dict[str, Task] = {}
    order = sorted(
        tasks(), key=lambda t: (-len(t.specification.methods), t.specification.steps or 99)
    )
    for task in order:
        if task.level in (2, 3) and task.specification.steps and not unavailable(task, "mini"):
            found.setdefault(f"{pipeline_of(task)} {task.specification.model}", task)
    return list(found.values())


@pytest.mark.slow
@pytest.mark.parametrize("task", shipped(), ids=lambda t: f"{t.id}-{t.specification.model}")
def test_no_mutant_of_any_pipeline_slips_through_and_no_reference_is_refused(
    bench: Bench, task: Task
) -> None:
    right = scored(bench, task, reference(task))
    assert right.passed, right.reason
    for mutant in MUTANTS:
        text = None if mutant.targets else mutant.change(reference(task), task)
        if text is not None:
            verdict = scored(bench, task, text)
            assert verdict.errors == (mutant.error,), f"{mutant.name}: {verdict.reason}"


@pytest.mark.slow
def test_a_target_is_reached_missed_or_paid_for_with_quality(bench: Bench) -> None:
    task = find("L4-001")
    plain = reference(task)
    fast = reference(task, {"deepcache": {"interval": 3, "branch": 0}})
    goal = Goal(plain, speedup=1.5, max_loss=0.05)
    verdict = scored(bench, task, fast, goal)
    assert verdict.passed, verdict.reason
    assert verdict.figures["speedup_low"] > 1.5
    assert scored(bench, task, plain, goal).errors == ("relative_speed",)
    slow = next(m for m in MUTANTS if m.targets)
    text = slow.change(fast, task)
    assert text is not None
    assert scored(bench, task, text, goal).errors == (slow.error,)
