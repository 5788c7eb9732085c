"""Experiment and debug configs, the checkout's own defaults, and ablations as whole studies."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from engine.ablation import planned
from engine.cli import main
from engine.config import CONF
from engine.errors import UsageError
from engine.schema import Config

Composed = Callable[..., Config]
FILES = sorted([*(CONF / "experiment").glob("*.yaml"), *(CONF / "debug").glob("*.yaml")])
SWEEPS = sorted((CONF / "sweep").glob("*.yaml"))
ABLATIONS = sorted((CONF / "experiment").glob("ablation_*.yaml"))


def said(folder: Path, *arguments: str, conf: Path = CONF, status: int = 0) -> str:
    """What the command line prints in a process of its own, which may read another conf/."""
    program = (
        "import sys, engine.cli, engine.config, pathlib\n"
        "conf = pathlib.Path(sys.argv.pop(1))\n"
        "engine.cli.CONF = engine.config.CONF = conf\n"
        "sys.exit(engine.cli.main(sys.argv[1:]))\n"
    )
    environment = dict(os.environ, PYTHONPATH=str(CONF.parent), OMP_NUM_THREADS="1")
    done = subprocess.run(
        [sys.executable, "-c", program, str(conf), *arguments],
        cwd=folder,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == status, done.stdout + done.stderr
    return done.stdout + done.stderr


@pytest.mark.parametrize(
    "file", [*FILES, *SWEEPS], ids=lambda path: f"{path.parent.name}-{path.stem}"
)
def test_every_experiment_composes_and_its_header_names_its_command(
    composed: Composed, file: Path
) -> None:
    composed(f"+{file.parent.name}={file.stem}")
    package, command, *_ = file.read_text(encoding="utf-8").splitlines()
    assert package == "# @package _global_"
    assert command.startswith("# python -m engine ")
    assert f"{file.parent.name}={file.stem}" in command or file.stem == "on"


def test_experiments_set_what_they_are_named_after(composed: Composed) -> None:
    assert composed("+experiment=keep_steps").goal.keep_steps
    assert composed("+experiment=same_image").goal.quality == "same_image"
    assert composed("+experiment=memory", "goal.memory_gib=3").goal.memory_gib == 3
    assert [s.batch for s in composed("+experiment=service").workload.shapes] == [1, 4]
    quick = composed("+debug=tiny", "+sweep=quick")
    assert (quick.search.start, quick.search.generations) == (["presets"], 0)
    assert not quick.search.alone_first
    tiny = composed("+debug=tiny", "search=random", "search.generations=1")
    assert (tiny.search.population, tiny.search.generations, tiny.debug) == (2, 1, True)


@pytest.mark.parametrize("file", ABLATIONS, ids=lambda path: path.stem)
def test_every_variant_of_an_ablation_composes_to_a_search_of_its_own(
    composed: Composed, file: Path
) -> None:
    import yaml

    sweeper = yaml.safe_load(file.read_text(encoding="utf-8"))["hydra"]["sweeper"]
    plans = planned("abl", sweeper["variants"], sweeper["seeds"], None, ["+debug=tiny"])
    assert len(plans) == len(sweeper["variants"]) * len(sweeper["seeds"])
    found = [composed(*plan.arguments) for plan in plans]
    assert len({config.study for config in found}) == len(plans)
    assert len({repr((config.search, config.agent)) for config in found}) == len(plans)
    assert [config.search.seed for config in found] == [plan.seed for plan in plans]


def test_an_ablation_gives_every_study_a_name_and_the_variant_the_last_word() -> None:
    variants: dict[str, list[str]] = {"genetic": [], "random": ["search=random"]}
    arguments = ["search=tpe", "study=abl", "search.seed=9", "+debug=tiny"]
    plans = planned("abl", variants, [0, 1], None, arguments)
    names = ["abl-genetic-0", "abl-random-0", "abl-genetic-1", "abl-random-1"]
    assert [plan.study for plan in plans] == names
    assert plans[3].arguments == (
        "search=tpe", "+debug=tiny", "search=random", "search.seed=1", "study=abl-random-1",
    )  # fmt: skip
    chosen = planned("abl", variants, [0], ["random"], arguments)
    assert [plan.variant for plan in chosen] == ["random"]


@pytest.mark.parametrize(
    ("variants", "seeds", "only", "expected"),
    [
        ({}, [0], None, "needs hydra.sweeper.variants"),
        ({"a": []}, [], None, "hydra.sweeper.seeds"),
        ({"a": "search=random"}, [0], None, "write a list of overrides"),
        ({"a b": []}, [0], None, "is no name"),
        ({"a": []}, [0.5], None, "whole numbers"),
        ({"random": []}, [0], ["randm"], "did you mean random?"),
    ],
)
def test_a_wrong_ablation_is_refused(
    variants: dict[str, list[str]], seeds: list[int], only: list[str] | None, expected: str
) -> None:
    with pytest.raises(UsageError, match=re.escape(expected)):
        planned("abl", variants, seeds, only, [])


def test_experiments_are_listed_with_command_and_purpose(
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert main(["+list=experiments"]) == 0
    rows = [line.split("\t") for line in capsys.readouterr().out.splitlines()[1:]]
    assert len(rows) == len(FILES)
    assert all(all(cell for cell in row) for row in rows)


# The checkout's own defaults: conf/local/default.yaml of a copy of conf/.


@pytest.fixture
def conf(tmp_path: Path) -> Path:
    copy = tmp_path / "conf"
    shutil.copytree(CONF, copy, ignore=shutil.ignore_patterns("local"))
    return copy


def test_own_defaults_change_what_is_composed_and_the_command_line_stands_above(
    conf: Path, tmp_path: Path
) -> None:
    before = said(tmp_path, "--cfg", "job", conf=conf)
    assert "name: auto" in before
    (conf / "local").mkdir()
    shutil.copy(CONF / "local" / "README.md", conf / "local")
    assert said(tmp_path, "--cfg", "job", conf=conf) == before
    # What the page tells to write.
    page = (CONF / "local" / "README.md").read_text(encoding="utf-8")
    text = page.partition("```yaml\n")[2].partition("```")[0]
    (conf / "local" / "default.yaml").write_text(text)
    shown = said(tmp_path, "--cfg", "job", conf=conf)
    assert "name: h100" in shown
    assert "models: /data/hub" in shown
    assert "keep: front" in shown
    typed = said(tmp_path, "--cfg", "job", "hw=cpu", "keep=all", conf=conf)
    assert "name: cpu" in typed
    assert "keep: all" in typed


def test_own_defaults_hold_for_what_stands_alone(conf: Path, tmp_path: Path) -> None:
    study = tmp_path / "data" / "sweeps" / "mine"
    study.mkdir(parents=True)
    (study / "study.json").write_text("{}")
    (conf / "local").mkdir()
    own = f"# @package _global_\npaths: {{outputs: {tmp_path}/data}}\n"
    (conf / "local" / "default.yaml").write_text(own)
    assert "mine\t" in said(tmp_path, "+list=studies", conf=conf)
    assert "study mine has not ended" in said(tmp_path, "+prune=mine", conf=conf, status=2)


def test_own_defaults_without_their_first_line_are_refused(conf: Path, tmp_path: Path) -> None:
    (conf / "local").mkdir()
    (conf / "local" / "default.yaml").write_text("keep: front\n")
    error = said(tmp_path, "+list=studies", conf=conf, status=2)
    assert "'# @package _global_'" in error
    assert error.count("\n") == 1


# Whole studies.

TINY = ("+debug=tiny", "objective=flops", "search.generations=1")


@pytest.fixture(scope="module")
def ablation(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str]:
    """The sweeps of an ablation of two variants, and what it printed."""
    folder = tmp_path_factory.mktemp("ablation")
    only = "hydra.sweeper.only=[genetic,random]"
    output = said(
        folder, "+experiment=ablation_search", *TINY, "study=abl", "keep=front", only,
        "hydra.sweeper.seeds=[3]",
    )  # fmt: skip
    return folder / "outputs" / "sweeps", output


@pytest.mark.slow
def test_an_ablation_runs_a_whole_study_for_each_variant_and_compares_them(
    ablation: tuple[Path, str],
) -> None:
    sweeps, output = ablation
    for variant, search in (("genetic", "genetic"), ("random", "random")):
        folder = sweeps / f"abl-{variant}-3"
        study = json.loads((folder / "study.json").read_text(encoding="utf-8"))
        assert study["evaluations"] == 2
        assert f"name: {search}\n" in study["config"]
        assert f"study=abl-{variant}-3" in study["resume"]
        assert "experiment" not in study["resume"]
        assert (folder / "report.html").exists()
        assert f"{variant}\t1\t" in output
    assert (sweeps / "abl" / "compare.html").exists()


@pytest.mark.slow
def test_with_keep_front_only_the_front_keeps_pictures_and_a_trial_can_be_shown(
    ablation: tuple[Path, str],
) -> None:
    sweeps, _ = ablation
    folder = sweeps / "abl-random-3"
    front = json.loads((folder / "front.json").read_text(encoding="utf-8"))["front"]
    pictured = {path.parents[1].name for path in folder.glob("[0-9]*/images/*.png")}
    assert pictured == {str(row["trial"]) for row in front}
    assert not list(folder.glob("logs/*"))
    assert "<img" in (folder / "report.html").read_text(encoding="utf-8")
    for trial in (0, 1):
        program = said(sweeps.parents[1], f"+trial=abl-random-3/{trial}", "+program=true")
        assert "def generate(" in program


@pytest.mark.slow
def test_a_single_study_of_an_ablation_resumes_by_its_own_command(
    ablation: tuple[Path, str],
) -> None:
    sweeps, _ = ablation
    folder = sweeps / "abl-random-3"
    before = (folder / "0" / "result.json").read_bytes()
    study = json.loads((folder / "study.json").read_text(encoding="utf-8"))
    words = study["resume"].split()
    assert words[:3] == ["python", "-m", "engine"]
    said(sweeps.parents[1], *words[3:])
    assert (folder / "0" / "result.json").read_bytes() == before
    assert json.loads((folder / "study.json").read_text(encoding="utf-8"))["evaluations"] == 2


@pytest.mark.slow
def test_the_service_experiment_measures_both_shapes(tmp_path: Path) -> None:
    said(tmp_path, "+sweep=ga", "+experiment=service", *TINY, "study=s")
    (result,) = [
        json.loads(path.read_text(encoding="utf-8"))
        for path in (tmp_path / "outputs" / "sweeps" / "s").glob("0/result.json")
    ]
    assert {sample["batch"] for sample in result["samples"]} == {1, 4}
