"""What ended studies need no longer: what goes, what stays, and what is never touched."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from engine import prune
from engine.cli import main
from engine.errors import UsageError
from engine.report import write_study_report
from engine.results import write_json
from engine.schema import Config
from engine.search import lease
from tests.report.small_study import FRONT, write_study

Composed = Callable[..., Config]
VERSIONS = "torch2.13.0-diffusers0.42.1"


@pytest.fixture(scope="module")
def stored(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An ended study as a search leaves it: every trial with pictures, and logs."""
    folder = tmp_path_factory.mktemp("stored") / "mine"
    write_study(folder)
    picture = (folder / "3" / "images" / "0_base.png").read_bytes()
    for trial in range(12):
        images = folder / str(trial) / "images"
        images.mkdir(exist_ok=True)
        for name in ("00-0-base.png", "00-1-candidate.png", "01-2-candidate-3.png"):
            (images / name).write_bytes(picture)
        (folder / str(trial) / "accelerated.py").write_text(f"# program {trial}\n")
        (folder / str(trial) / "proposal.json").write_text("{}")
    (folder / "logs").mkdir()
    (folder / "logs" / "worker-12-1.log").write_text("loaded\n")
    (folder / "baseline" / "plain" / "images").mkdir(parents=True)
    (folder / "baseline" / "plain" / "images" / "00-0-base.png").write_bytes(picture)
    (folder / "baseline" / "scored").mkdir()
    (folder / "baseline" / "scored" / "000-0.png").write_bytes(picture)
    return folder


@pytest.fixture
def study(stored: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A copy of it as outputs/sweeps/mine of the working directory."""
    monkeypatch.chdir(tmp_path)
    folder = tmp_path / "outputs" / "sweeps" / "mine"
    shutil.copytree(stored, folder)
    return folder


def files(folder: Path) -> set[str]:
    return {str(path.relative_to(folder)) for path in folder.rglob("*") if not path.is_dir()}


def refused(capsys: pytest.CaptureFixture[str], *arguments: str) -> str:
    assert main(list(arguments)) == 2
    error = capsys.readouterr().err
    assert error.startswith("error: ")
    assert error.count("\n") == 1
    return error


def test_it_shows_first_and_removes_only_when_told_so(
    study: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    before = files(study) | {"ledger.db.mine.lock"}
    assert main(["+prune=mine"]) == 0
    shown = capsys.readouterr().out
    assert "38 files" in shown
    assert "+prune=mine yes=true" in shown
    assert files(study) == before
    assert main(["+prune=mine", "yes=true"]) == 0
    assert "38 files" in capsys.readouterr().out
    assert len(before - files(study)) == 38
    assert main(["+prune=mine", "+yes=true"]) == 0
    assert "0 files" in capsys.readouterr().out


def test_results_programs_the_front_and_the_baseline_stay(study: Path) -> None:
    page = write_study_report(study).read_text(encoding="utf-8")
    before = files(study)
    prune.unneeded(study).remove()
    gone = before - files(study)
    assert {Path(name).suffix for name in gone} == {".png", ".log"}
    kept = {name for name in files(study) if name.endswith(".png")}
    assert {Path(name).parts[0] for name in kept} == {*map(str, FRONT), "baseline"}
    # Also on the front, what only the search used goes.
    assert "3/images/00-0-base.png" in gone
    assert "3/images/0_base.png" in kept
    assert not (study / "0" / "images").exists()
    assert write_study_report(study).read_text(encoding="utf-8") == page


def test_a_front_trial_whose_result_cannot_be_read_keeps_its_pictures(study: Path) -> None:
    (study / "3" / "result.json").write_text("{")
    prune.unneeded(study).remove()
    assert (study / "3" / "images" / "00-0-base.png").exists()


def test_files_of_other_names_stay(study: Path) -> None:
    mine = [study / "0" / "images" / "poster.png", study / "logs" / "notes.log", study / "x.png"]
    for path in mine:
        path.write_text("")
    prune.unneeded(study).remove()
    assert all(path.exists() for path in mine)


def test_links_are_not_followed(study: Path, tmp_path: Path) -> None:
    outside = tmp_path / "elsewhere"
    outside.mkdir()
    precious = outside / "00-0-base.png"
    precious.write_text("precious")
    for name in ("0", "1"):
        shutil.rmtree(study / name / "images")
    (study / "0" / "images").symlink_to(outside)
    (study / "1" / "images").mkdir()
    (study / "1" / "images" / "00-0-base.png").symlink_to(precious)
    (study / "77").symlink_to(outside)
    prune.unneeded(study).remove()
    assert precious.read_text() == "precious"
    assert (study / "0" / "images").is_symlink()
    assert (study / "1" / "images" / "00-0-base.png").is_symlink()


def test_a_study_that_is_a_link_is_refused(
    study: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    shutil.move(study, tmp_path / "moved")
    study.symlink_to(tmp_path / "moved")
    before = files(tmp_path / "moved")
    assert "is a link" in refused(capsys, "+prune=mine", "yes=true")
    assert main(["+prune=all", "yes=true"]) == 0
    assert "left alone: study mine is a link" in capsys.readouterr().out
    assert files(tmp_path / "moved") == before


def test_a_running_study_is_refused_and_the_cache_with_it(
    study: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    before = files(study) | {"ledger.db.mine.lock"}
    with lease.take(study / "ledger.db", "mine"):
        assert "is being searched" in refused(capsys, "+prune=mine", "yes=true")
        assert "is being searched" in refused(capsys, "+prune=cache", "yes=true")
        assert main(["+prune=all", "yes=true"]) == 0
        assert "left alone: study mine is being searched" in capsys.readouterr().out
        assert main(["+list=studies"]) == 0
        assert "mine\trunning" in capsys.readouterr().out
        assert files(study) == before
    assert main(["+prune=all", "yes=true"]) == 0
    assert files(study) < before


def test_a_study_that_has_not_ended_is_refused(
    study: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (study / "12").mkdir()
    (study / "12" / "proposal.json").write_text("{}")
    assert "has not ended again" in refused(capsys, "+prune=mine", "yes=true")
    shutil.rmtree(study / "12")
    front = json.loads((study / "front.json").read_text())
    write_json(study / "front.json", front | {"study": {"evaluations": 11}})
    assert "has not ended again" in refused(capsys, "+prune=mine", "yes=true")
    (study / "front.json").unlink()
    assert "no front.json yet" in refused(capsys, "+prune=mine", "yes=true")


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (["+prune=mne"], "did you mean mine?"),
        (["+prune=../../mine"], "there is no study"),
        (["+prune"], "needs a study's name"),
        (["+prune=mine", "yes=perhaps"], "type yes=true"),
        (["+prune=mine", "model=sd15"], "only yes=true and paths"),
        (["+prune=mine", "--cfg", "job"], "leave out --cfg"),
        (["+prune=mine", "paths.output=x"], "did you mean outputs?"),
    ],
)
def test_what_cannot_be_meant_is_refused(
    study: Path, capsys: pytest.CaptureFixture[str], arguments: list[str], expected: str
) -> None:
    before = files(study)
    assert expected in refused(capsys, *arguments)
    assert files(study) == before


def test_of_the_cache_only_compiled_code_goes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    cache = tmp_path / "outputs" / ".cache" / "compile"
    code = cache / "cpu-amd-epyc-2c" / VERSIONS / "ab" / "kernel.so"
    names = ("notes.txt", "own/" + VERSIONS + "/x.so", "cpu-amd-epyc-2c/mine/x.so")
    others = [cache / name for name in names]
    precious = tmp_path / "elsewhere" / VERSIONS / "precious"
    for path in (code, *others, precious):
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("x")
    (cache / "cpu-linked").symlink_to(tmp_path / "elsewhere")
    assert main(["+prune=cache"]) == 0
    assert "1 files" in capsys.readouterr().out
    assert code.exists()
    assert main(["+prune=cache", "yes=true"]) == 0
    assert not code.parents[1].exists()
    assert all(path.exists() for path in (*others, precious))


def test_the_folders_named_by_paths_are_the_ones_pruned(
    study: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    moved = tmp_path / "data" / "all of it"
    moved.parent.mkdir()
    shutil.move(tmp_path / "outputs", moved)
    cache = tmp_path / "compiled"
    code = cache / "cuda-nvidia-h100" / VERSIONS / "kernel.so"
    code.parent.mkdir(parents=True)
    code.write_text("x")
    assert main(["+prune=mine", f"paths.outputs={moved}"]) == 0
    assert "38 files" in capsys.readouterr().out
    assert main(["+prune=cache", f"+paths.compile={cache}", "yes=true"]) == 0
    assert not code.exists()


def test_the_default_cache_is_where_the_workers_compile(
    composed: Composed, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from engine.arms import environment
    from engine.hardware import inspect

    monkeypatch.chdir(tmp_path)
    config = composed()
    place = Path(environment(config, inspect("cpu"))["TORCHINDUCTOR_CACHE_DIR"])
    place.mkdir(parents=True)
    (place / "kernel.so").write_text("x")
    (found,) = prune.compiled(prune.compile_cache(config.paths)).folders
    assert found.resolve() == place


def test_a_file_that_may_not_be_removed_is_one_line(
    study: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def denied(path: Path, missing_ok: bool = False) -> None:
        raise PermissionError(13, "Permission denied", str(path))

    monkeypatch.setattr(Path, "unlink", denied)
    with pytest.raises(UsageError, match=r"cannot remove .*Permission denied"):
        prune.unneeded(study).remove()
