"""``python -m engine.report``: what is typed, and what is said when it is wrong."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from engine.report.__main__ import main
from engine.results import write_json
from tests.report.small_study import Study


@pytest.fixture
def sweeps(study: Study, tmp_path: Path) -> Path:
    for name in ("mine", "other"):
        folder = Path(shutil.copytree(study.folder, tmp_path / "sweeps" / name))
        write_json(folder / "study.json", study.study | {"study": name})
    return tmp_path / "sweeps"


def test_pages_and_tables_are_written(sweeps: Path, capsys: pytest.CaptureFixture[str]) -> None:
    where = ["--sweeps", str(sweeps)]
    assert main(["page", "mine", *where]) == 0
    assert (sweeps / "mine" / "report.html").is_file()
    assert main(["table", "mine", *where]) == 0
    assert "| techniques | faster than DPM-Solver++ 2M, 20 steps |" in capsys.readouterr().out
    out = sweeps / "compared"
    assert main(["compare", "mine", "other", *where, "--out", str(out)]) == 0
    assert sorted(p.name for p in out.iterdir()) == ["compare.csv", "compare.html", "compare.tex"]
    assert main(["blind", "mine", "--trial", "9", *where]) == 0
    assert (sweeps / "mine" / "blind.html").is_file()


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ("tabel mine", "unknown command 'tabel'; did you mean table?"),
        ("table mien", "no study 'mien'; did you mean mine?"),
        ("compare mine", "two studies or more"),
        ("blind mine --trial x", "invalid int value"),
        ("votes nothing.json", "no file nothing.json"),
        ("", "required"),
    ],
)
def test_a_mistake_is_told_in_one_line(
    sweeps: Path, capsys: pytest.CaptureFixture[str], line: str, words: str
) -> None:
    arguments = line.split()
    if arguments and arguments[0] in ("table", "compare", "blind"):
        arguments += ["--sweeps", str(sweeps)]
    assert main(arguments) == 2
    said = capsys.readouterr()
    assert said.out == ""
    assert words in said.err
    assert said.err.count("\n") == 1


def test_help_names_every_command(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        main(["--help"])
    assert ended.value.code == 0
    said = capsys.readouterr().out
    for command in ("page", "table", "compare", "blind", "votes"):
        assert f"python -m engine.report {command}" in said
