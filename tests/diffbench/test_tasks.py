"""The tasks: the paper's counts, one file that every machine writes alike, requests in words."""

from __future__ import annotations

import dataclasses
import json
import re
import subprocess
import sys
from collections import Counter

import pytest

from engine import catalogue
from engine.config import CONF
from engine.diffbench import allocation, baselines, chance, frames, phrases, tasks
from engine.diffbench.allocation import FP16
from engine.diffbench.details import SCHEDULERS
from engine.errors import UsageError
from engine.genome import canonical
from engine.reading import read
from engine.specification import mismatches
from engine.strategy import registry

ALL = tasks.tasks()
ROOT = CONF.parent


def _named(pattern: str) -> list[tasks.Task]:
    return [task for task in ALL if re.search(pattern, task.request)]


# --- counts


def test_there_are_604_tasks_with_the_papers_counts_by_level() -> None:
    assert len(ALL) == 604
    assert Counter(task.level for task in ALL) == {1: 41, 2: 116, 3: 261, 4: 93, 5: 93}


def test_tasks_by_pipeline_are_those_of_the_papers_figure() -> None:
    kinds = {
        "sd15": "SD1.5",
        "sd15-img2img": "SD1.5",
        "sd21": "SD2.1",
        "sd21-img2img": "SD2.1",
        "sdxl": "SDXL",
        "sdxl-img2img": "SDXL",
        "pixart-alpha": "PixArt-alpha",
        "pixart-sigma": "PixArt-Sigma",
        "sd15-controlnet": "ControlNet",
        "sdxl-controlnet": "ControlNet",
        "dit": "DiT",
    }
    assert Counter(kinds[task.specification.model] for task in ALL) == {
        "SD1.5": 166,
        "SD2.1": 166,
        "SDXL": 166,
        "PixArt-alpha": 35,
        "PixArt-Sigma": 35,
        "ControlNet": 26,
        "DiT": 10,
    }


@pytest.mark.parametrize(
    ("name", "words", "count"),
    [
        ("deepcache", "DeepCache", 276),
        ("tome", "ToMe|[Tt]oken merging", 248),
        ("tgate", "T-GATE|TGATE|T-Gate", 186),
    ],
)
def test_methods_are_named_as_often_as_in_the_papers_figure(
    name: str, words: str, count: int
) -> None:
    """In the requests' own words as well as in what they imply."""
    assert sum(name in task.specification.methods for task in ALL) == count
    assert len(_named(words)) == count


@pytest.mark.parametrize(
    ("scheduler", "words"),
    [
        ("DDIMScheduler", "DDIM"),
        ("DPMSolverMultistepScheduler", "DPM-Solver"),
        ("UniPCMultistepScheduler", "UniPC"),
    ],
)
def test_each_sampler_is_named_in_120_requests(scheduler: str, words: str) -> None:
    assert sum(task.specification.scheduler == scheduler for task in ALL) == 120
    assert len(_named(words)) == 120


def test_a_level_asks_for_as_many_methods_as_it_says() -> None:
    for slot in allocation.slots():
        least, most = {1: (0, 0), 2: (1, 1), 3: (2, 4)}.get(slot.level, (0, 0))
        assert least <= len(slot.methods) <= most, slot.id


def test_no_method_is_asked_of_a_pipeline_that_cannot_have_it() -> None:
    held = json.loads((ROOT / "engine" / "capabilities.json").read_text(encoding="utf-8"))
    for task in ALL:
        applicable = held[task.specification.pipeline]
        names = [
            *task.specification.methods,
            *(["sampler"] if task.specification.scheduler else []),
        ]
        assert [applicable[name] for name in names] == [None] * len(names), task.id
        if "controlnet" in task.specification.model:
            assert "tgate" not in task.specification.methods, task.id


def test_tables_that_leave_no_way_are_refused() -> None:
    with pytest.raises(ValueError, match="no way to name"):
        allocation.combinations(236, {"deepcache": 300, "tome": 20, "tgate": 20})
    with pytest.raises(ValueError, match="no way to name"):
        allocation.combinations(236, {"deepcache": 150, "tome": 150, "tgate": 150})


def test_half_precision_and_images_to_start_from_are_asked_for_too() -> None:
    assert sum(FP16 in slot.methods for slot in allocation.slots()) == len(
        _named("(?i)fp16|float16")
    )
    assert len(_named("(?i)fp16|float16")) > 60
    assert sum(task.specification.model.endswith("img2img") for task in ALL) > 40


def test_sizes_lie_between_256_and_1024_and_fit_their_networks() -> None:
    for task in ALL:
        for side in (task.specification.height, task.specification.width):
            assert side is None or (256 <= side <= 1024 and side % 64 == 0), task.id
        if task.specification.model == "dit":
            assert task.specification.height in (None, 256), task.id


# --- L4 and L5


def test_31_baselines_stand_at_three_difficulties_on_both_hard_levels() -> None:
    assert len(baselines.baselines()) == len({one.id for one in baselines.baselines()}) == 31
    for level in (4, 5):
        rows = [(t.baseline, t.difficulty) for t in ALL if t.level == level]
        assert len(set(rows)) == 93
        assert Counter(difficulty for _, difficulty in rows) == {
            "easy": 31,
            "medium": 31,
            "hard": 31,
        }


def test_15_baselines_keep_their_steps_and_the_others_free_steps_and_sampler() -> None:
    kept = [one for one in baselines.baselines() if one.keep]
    assert len(kept) == 15
    for task in ALL:
        if task.baseline is None:
            continue
        one, asked = baselines.named(task.baseline), task.specification
        assert (asked.keep_steps, asked.steps) == (one.keep is not None, one.keep), task.id
        assert asked.scheduler is None
        assert asked.methods == {}
        assert asked.max_loss == 0.05


def test_a_hard_task_says_what_speed_and_loss_are_measured_against() -> None:
    for task in ALL:
        if task.level > 3:
            assert re.search("(plain|published) pipeline", task.request), task.id


def test_without_labels_a_hard_task_has_a_field_and_no_target() -> None:
    for task in ALL:
        fields = [
            f for f in (phrases.SPEEDUP, phrases.SECONDS, phrases.DEVICE) if f in task.request
        ]
        assert fields == {4: [phrases.SPEEDUP], 5: [phrases.SECONDS, phrases.DEVICE]}.get(
            task.level, []
        ), task.id
        assert task.labelled == (task.level < 4)


# --- the file


def test_the_file_is_what_the_command_writes() -> None:
    command = [sys.executable, "-m", "engine.diffbench.tasks", "--check"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (0, "")


def test_a_stale_file_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tasks, "FILE", ROOT / "constraints.txt")
    assert tasks.main(["--check"]) == 1


def test_every_line_gives_its_task_back() -> None:
    lines = tasks.FILE.read_text(encoding="utf-8").splitlines()
    assert [tasks.Task.from_json(json.loads(line)) for line in lines] == ALL


def test_choices_hang_on_their_words_alone() -> None:
    """Fixed values: whoever changes how choices are made changes every task."""
    assert chance.number("L1-001", "size") == 9420383058442037562
    assert chance.shuffled("abcde", "order") == list("ceadb")


def test_an_unknown_id_is_refused_with_what_ids_look_like() -> None:
    assert tasks.find("L3-017").id == "L3-017"
    with pytest.raises(UsageError, match="L1-001 to L5-093"):
        tasks.find("L3-999")


# --- requests


def test_no_task_is_there_twice() -> None:
    assert len({task.id for task in ALL}) == 604
    assert len({task.request for task in ALL}) == 604
    asked = [
        json.dumps(dataclasses.replace(t.specification, request="").to_json()) + str(t.level)
        for t in ALL
        if t.level < 4
    ]
    assert len(set(asked)) == len(asked)


def test_no_request_holds_code() -> None:
    code = r"import |from_pretrained|```|\bdef |\w\(|pipe\.|\wPipeline\b|Scheduler\b|torch|enable_"
    assert [task.id for task in ALL if re.search(code, task.request)] == []


def test_requests_have_many_forms() -> None:
    for level, sentences in frames.FRAMES.items():
        assert len(set(sentences)) == len(sentences) >= 12, level
        used = {task.request.split(" ")[0] for task in ALL if task.level == level}
        assert len(used) >= 8, level


def test_every_request_says_all_that_it_implies() -> None:
    """Each number of the specification stands in the request, steps perhaps in words."""
    for task in ALL:
        asked, text = task.specification, task.request
        for side in (asked.height, asked.width):
            assert side is None or str(side) in text, task.id
        if asked.steps is not None:
            spelled = phrases.number_in_words(asked.steps)
            assert re.search(rf"\b{asked.steps}\b", text) or spelled in text, task.id
        if asked.guidance_scale is not None:
            assert f"{asked.guidance_scale:g}" in text, task.id
        assert "  " not in text, task.id
        assert text == text.strip(), task.id


def test_numbers_in_words() -> None:
    assert [phrases.number_in_words(n) for n in (7, 15, 20, 24, 50)] == [
        "seven",
        "fifteen",
        "twenty",
        "twenty-four",
        "fifty",
    ]


def test_every_model_stands_in_the_catalogue() -> None:
    for task in ALL:
        entry = catalogue.entry(task.specification.model)
        assert task.specification.model_id == entry["id"], task.id
        assert task.specification.pipeline == entry["pipeline"], task.id
        assert (task.specification.preprocessor == "canny") == (entry["task"] == "control"), task.id


# --- references


def test_the_techniques_of_a_reference_lie_within_their_bounds() -> None:
    for task in ALL:
        genome = canonical(tasks.asked_genome(task.specification))
        assert set(genome) - {"sampler"} == set(task.specification.methods), task.id
        for name, settings in task.specification.methods.items():
            kept = {gene: value for gene, value in settings.items() if gene != "gate_step"}
            assert {gene: genome[name][gene] for gene in kept} == kept, task.id


def test_every_reference_is_read_as_what_its_task_asks() -> None:
    """Of all levels: without a label the reference of L4 and L5 is the baseline."""
    seen: set[str] = set()
    for task in ALL:
        if task.baseline is not None and task.baseline in seen:
            continue
        seen.add(task.baseline or "")
        program = tasks.reference(task)
        compile(program, task.id, "exec")
        found = read(program)
        assert mismatches(task.specification, found) == (), task.id
        assert found.unread == (), task.id


def test_an_image_to_start_from_keeps_its_size_and_states_its_steps() -> None:
    """A program takes the size from the picture, so that no text of it could keep a size."""
    for task in ALL:
        if task.specification.model.endswith("img2img"):
            assert task.specification.height is None, task.id
            assert task.specification.steps is not None or task.level > 3, task.id


def test_a_gate_by_number_closes_at_that_step() -> None:
    """By the rule of the technique itself, ``int(gate * steps + 1e-6)``."""
    found = [
        t.specification for t in ALL if "gate_step" in t.specification.methods.get("tgate", {})
    ]
    assert len(found) > 20
    for asked in found:
        assert asked.steps is not None
        gate = float(canonical(tasks.asked_genome(asked))["tgate"]["gate"])
        assert int(gate * asked.steps + 1e-6) == asked.methods["tgate"]["gate_step"]


def test_samplers_have_the_classes_that_the_technique_uses() -> None:
    solvers = registry()["sampler"].module.SOLVERS
    assert {name: solvers[name][0] for name in SCHEDULERS} == SCHEDULERS
