"""A submissions file: what is read, and one clear line for everything else."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from engine.diffbench.submissions import LARGEST, Submission, read
from engine.errors import UsageError

KNOWN = [f"L1-{number:03d}" for number in range(1, 42)]
GOOD = json.dumps({"id": "L1-001", "program": "print(1)\n"})


def written(folder: Path, *lines: str) -> Path:
    path = folder / "mine.jsonl"
    path.write_text("\n".join(lines), encoding="utf-8")
    return path


def test_optional_fields_and_empty_lines_are_taken(tmp_path: Path) -> None:
    full = {"id": "L1-002", "program": "a = '\u2028'", "calls": 3, "tokens": 900, "cost": 0.01}
    path = written(tmp_path, GOOD, "", json.dumps(full, ensure_ascii=False), "")
    assert read(path, KNOWN) == [
        Submission("L1-001", "print(1)\n"),
        Submission("L1-002", "a = '\u2028'", 3, 900, 0.01),
    ]


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ('{"id": "L1-002", "program": "x', "line 2 is no JSON"),
        ("[1]", "line 2 is no object"),
        ('{"id": "L1-002"}', "line 2 has no program"),
        ('{"id": "L1-002", "program": " "}', "program is empty"),
        ('{"id": 7, "program": "x"}', "id is '7'; it takes a text"),
        ('{"id": "L1-0001", "program": "x"}', r"unknown task 'L1-0001'; did you mean L1-001"),
        ('{"id": "L1-002", "code": "x"}', "has a field 'code'"),
        ('{"id": "L1-002", "program": "x", "tokens": 1.5}', "tokens is '1.5'; it takes a whole"),
        ('{"id": "L1-002", "program": "x", "cost": NaN}', "cost is 'nan'; it takes a number"),
        ('{"id": "L1-002", "program": "x", "calls": true}', "calls is 'True'"),
        (GOOD, "task L1-001 is answered twice, first in line 1"),
        (json.dumps({"id": "L1-002", "program": "x" * (LARGEST + 1)}), "allowed are 262144"),
    ],
)
def test_a_damaged_line_is_named_in_one_line(tmp_path: Path, line: str, said: str) -> None:
    with pytest.raises(UsageError, match=said) as caught:
        read(written(tmp_path, GOOD, line), KNOWN)
    assert "\n" not in str(caught.value)


def test_a_file_that_is_not_there_or_empty_says_what_to_write(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="cannot be read"):
        read(tmp_path / "none.jsonl", KNOWN)
    with pytest.raises(UsageError, match="holds no submission"):
        read(written(tmp_path, ""), KNOWN)
