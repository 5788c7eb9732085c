"""The page of a run: score, errors, and behind each task what explains its verdict."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from engine.diffbench import bench, page
from engine.diffbench.summary import summary
from engine.diffbench.tasks import tasks
from engine.diffbench.verdicts import Conditions, Verdict
from tests.report.chromium import body

MET = Conditions("1", "cpu-two", "mini", "cpu-two", 1, "agent=diffagent llm=offline")


@pytest.fixture
def written(tmp_path: Path) -> Path:
    chance = np.random.default_rng(0)
    pictures = [chance.integers(0, 255, (64, 64, 3), np.uint8) for _ in range(4)]
    paths = [str(p.relative_to(tmp_path)) for p in bench.save(pictures, tmp_path / "images")]
    known = {task.id: task for task in tasks()}
    good = Verdict(
        "L1-001",
        1,
        MET,
        passed=True,
        stage=2,
        pipeline="SD1.5",
        images=tuple(paths[:2]),
        reference_images=tuple(paths[2:]),
        figures={"score": 30.25, "score_reference": 31.0, "prompts": ["a red circle", "a ring"]},
        program="pipe = <StableDiffusionPipeline>",
        evidence={"mapped": ["512 x 512 pixels became 64 x 64"]},
    )
    wrong = replace(
        good,
        task="L3-017",
        level=3,
        passed=False,
        errors=("key_attribute",),
        reason="methods.tome: asked this method, found none",
        methods=("tome", "deepcache"),
        mismatches=({"field": "methods.tome", "asked": "this method", "found": "none"},),
        reading={"pipeline": "StableDiffusionPipeline", "steps": 20, "methods": [], "unread": []},
        images=(),
        reference_images=(),
    )
    verdicts = [good, wrong]
    found = summary(verdicts, {"L5-001": "not labelled yet"})
    return page.write(tmp_path, verdicts, known, found, "python -m engine +bench=diffbench")


def test_the_page_holds_request_program_verdict_and_pictures(written: Path) -> None:
    text = written.read_text(encoding="utf-8")
    assert "pipe = &lt;StableDiffusionPipeline&gt;" in text, "what programs say is escaped"
    assert text.count("<image id=") == 4
    for shown in (
        "1 of 2, 50.0 %",
        "methods.tome: asked this method",
        "512 x 512 pixels became 64 x 64",
        "1 task could not be run here",
        "published: real models",
        "81.59",
        next(t.request for t in tasks() if t.id == "L1-001")[:20],
    ):
        assert shown in text
    assert "http-equiv" in text
    assert "<script" not in text


def test_a_browser_shows_it(written: Path, tmp_path: Path) -> None:
    probe = tmp_path / "probe.html"
    probe.write_text(
        f"""<html><body><iframe id=f src="{written.as_uri()}" width=1000 height=800></iframe>
<script>document.getElementById("f").onload = e => {{
  const d = e.target.contentDocument;
  document.body.textContent = JSON.stringify({{
    tasks: d.querySelectorAll("details.task").length,
    wide: d.documentElement.scrollWidth,
    title: d.title }});
}};</script></body></html>""",
        encoding="utf-8",
    )
    import json

    found = json.loads(body(probe, tmp_path))
    assert found["tasks"] == 2
    assert found["wide"] <= 1000, "nothing sticks out at the side"
    assert found["title"].startswith("DiffBench")
