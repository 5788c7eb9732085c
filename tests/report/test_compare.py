"""Several studies side by side."""

from __future__ import annotations

import csv
import io
import re
import shutil
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from engine.errors import UsageError
from engine.report import compare, studies
from engine.results import write_json
from tests.report.small_study import FRONT, Study


def _write(folder: Path, study: Study, front: dict[str, Any] | None = None, **more: Any) -> Path:
    described = study.study | {"study": folder.name} | more
    write_json(folder / "study.json", described)
    write_json(folder / "front.json", front or study.front)
    return folder


@pytest.fixture
def sweeps(study: Study, tmp_path: Path) -> Path:
    folder = tmp_path / "sweeps"
    _write(folder / "first", study)
    _write(folder / "second_50%", study, config="search:\n  name: random\n  seed: 3\n")
    machine = study.study["machine"] | {"processor": "<b>other</b>"}
    _write(folder / "elsewhere", study, machine=machine)
    return folder


def _read(sweeps: Path, *names: str) -> tuple[studies.Study, ...]:
    return studies.read_all(names, sweeps)


def test_a_study_is_found_by_name_and_by_folder(sweeps: Path) -> None:
    assert studies.find("first", sweeps) == sweeps / "first"
    assert studies.find(str(sweeps / "first"), Path("nowhere")) == sweeps / "first"
    with pytest.raises(UsageError, match="'frist'; did you mean first"):
        studies.find("frist", sweeps)
    with pytest.raises(UsageError, match="none in nowhere"):
        studies.find("first", Path("nowhere"))


def test_one_study_or_the_same_twice_is_refused(sweeps: Path) -> None:
    with pytest.raises(UsageError, match="two studies"):
        _read(sweeps, "first")
    with pytest.raises(UsageError, match="twice"):
        _read(sweeps, "first", str(sweeps / "first"))


def test_another_search_compares_and_another_machine_does_not(sweeps: Path) -> None:
    first, second, elsewhere = _read(sweeps, "first", "second_50%", "elsewhere")
    assert first.comparable
    assert second.comparable
    assert second.searcher == "random, seed 3"
    (reason,) = elsewhere.reasons
    assert reason.startswith("other machine: processor <b>other</b> instead of A processor")


@pytest.mark.parametrize(
    ("aspect", "change"),
    [
        ("model", {"model": {"name": "other"}}),
        ("baseline", {"baseline": {"label": "plain, 50 steps"}}),
        ("data", {"data": {"file": "p.txt", "search": ["a"], "acceptance": ["b"]}}),
        ("workload", {"workload": {"name": "w", "shapes": [{"height": 64}]}}),
        ("objective", {"objective": "flops"}),
        ("objective", {"goal": {"max_loss": 0.05, "quality": "same_image"}}),
    ],
)
def test_what_else_makes_figures_incomparable(
    study: Study, aspect: str, change: dict[str, Any]
) -> None:
    (reason,) = studies.differences(study.study, study.study | change)
    assert reason.startswith(f"other {aspect}: ")


def test_limits_and_small_libraries_do_not_matter(study: Study) -> None:
    machine = study.study["machine"]
    more = {"versions": machine["versions"] | {"pillow": "1"}}
    other = study.study | {"goal": {"max_loss": 0.1}, "machine": machine | more}
    assert studies.differences(study.study, other) == []


def test_a_ratio_has_an_interval_that_is_wider_than_either(sweeps: Path) -> None:
    first, second = _read(sweeps, "first", "second_50%")
    assert first.best is not None
    assert second.best is not None
    twice = replace(second.best, speedup=7.92, speedup_low=7.6, speedup_high=8.32)
    found = compare.against(first.best, twice)
    assert found is not None
    assert found.median == pytest.approx(7.92 / (first.best.speedup or 0))
    assert found.high / found.low > (first.best.speedup_high or 0) / (first.best.speedup_low or 1)
    assert compare.against(None, twice) is None


def _console(found: Sequence[studies.Study]) -> str:
    stream = io.StringIO()
    Console(file=stream, width=80, color_system=None).print(compare.table(found))
    return stream.getvalue()


def test_the_console_table_fits_and_marks_what_does_not_compare(sweeps: Path) -> None:
    found = _read(sweeps, "first", "second_50%", "elsewhere")
    shown = _console(found)
    assert max(map(len, shown.splitlines())) <= 80
    assert "3.96x (3.80 to 4.16)" in shown
    assert "elsewhere *" in shown
    (remark,) = compare.remarks(found)
    assert remark.startswith("elsewhere does not compare with first: other machine")


def test_a_study_of_random_weights_is_named(sweeps: Path, study: Study) -> None:
    _write(sweeps / "random", replace(study, study=study.study | {"unmeasured": "it is random"}))
    remarks = compare.remarks(_read(sweeps, "first", "random"))
    assert "random: quality: not measured (it is random)" in remarks


def test_a_study_without_a_result_is_shown_as_such(sweeps: Path, study: Study) -> None:
    _write(sweeps / "empty", study, front={"front": []})
    found = _read(sweeps, "first", "empty")
    assert "nothing met the goal" in " ".join(_console(found).split())
    assert "nothing met the goal" in compare.as_latex(found)
    assert len(compare.write(found, sweeps / "out")) == 3


def test_the_csv_has_every_point_and_no_formula(sweeps: Path, study: Study) -> None:
    _write(sweeps / "=cmd()", study)
    text = compare.as_csv(_read(sweeps, "first", "=cmd()", "elsewhere"))
    rows = list(csv.DictReader(io.StringIO(text)))
    assert len(rows) == 3 * len(FRONT)
    assert [row["trial"] for row in rows if row["recommended"] == "yes"] == ["7"] * 3
    assert {row["study"]: row["comparable"] for row in rows} == {
        "first": "yes",
        "'=cmd()": "yes",
        "elsewhere": "no",
    }
    best = next(row for row in rows if row["recommended"] == "yes")
    assert float(best["speedup"]) == study.trials[7].speedup
    assert best["first_call_s"] == ""


def test_latex_is_escaped_and_balanced(sweeps: Path) -> None:
    text = compare.as_latex(_read(sweeps, "first", "second_50%", "elsewhere"))
    assert r"second\_50\%" in text
    assert r"$\times$ (3.80 to 4.16)" in text
    assert r"elsewhere$^{\ast}$" in text
    rows = [line for line in text.splitlines() if line.endswith(r"\\")]
    assert [len(re.findall(r"(?<!\\)&", line)) for line in rows] == [4] * 4
    outside = [line for line in text.splitlines() if not line.startswith("%")]
    assert not re.search(r"(?<!\\)[%_#]", "\n".join(outside))
    assert compare.tex("a\\b{c}^~\u2013") == (
        r"a\textbackslash{}b\{c\}\textasciicircum{}\textasciitilde{}--"
    )


def test_the_page_is_self_contained_and_escaped(sweeps: Path) -> None:
    found = _read(sweeps, "first", "second_50%", "elsewhere")
    page = compare.write(found, sweeps / "out")[0].read_text(encoding="utf-8")
    assert "<b>other" not in page
    assert "default-src 'none'" in page
    assert not re.search(r"(src|href)=", page)
    assert page.count('class="study-1') >= 3
    assert 'class="study-2 apart"' in page
    assert "not comparable" in page
    assert "<script" not in page


def test_studies_of_equal_names_are_told_apart(sweeps: Path, study: Study) -> None:
    other = Path(shutil.copytree(sweeps / "first", sweeps.parent / "theirs" / "first"))
    found = _read(sweeps, "first", str(other))
    assert [s.label for s in found] == ["sweeps/first", "theirs/first"]
