"""The command line: spelling, checks before Hydra, one-line errors, exit statuses."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from datetime import datetime
from pathlib import Path
from typing import Any

import pytest

from engine import precheck as checks
from engine.call import Call, normalised, parse
from engine.cli import main
from engine.config import CONF
from engine.errors import UsageError
from engine.precheck import check_outputs, precheck

NOW = datetime(2026, 1, 2, 3, 4, 5)
CommandLine = Callable[..., "subprocess.CompletedProcess[str]"]


def shimmed(*arguments: str) -> Call:
    return normalised(parse(arguments), NOW)


@pytest.mark.parametrize(
    ("typed", "spelled"),
    [
        ("sweep=ga", "+sweep=ga"),
        ("sweep=quick", "+sweep=quick"),
        ("experiment=deepcache_tome", "+experiment=deepcache_tome"),
        ("debug=tiny", "+debug=tiny"),
        ("debug=true", "+debug=on"),
        ("+technique=deepcache", "technique=deepcache"),
        ("+trial=mine/17", "trial=mine/17"),
        ("+request=twice as fast, within 5 %", "request='twice as fast, within 5 %'"),
        ("+request=it's", r"request='it\'s'"),
        ("request='quoted'", "request='quoted'"),
        ("prompt=a red circle, left", "prompt='a red circle, left'"),
        ("model=sd15", "model=sd15"),
        ("model.call={strength: 0.6}", "++model.call={strength: 0.6}"),
        ("++model.call={strength: 0.6}", "++model.call={strength: 0.6}"),
    ],
)
def test_spelling_is_what_hydra_wants(typed: str, spelled: str) -> None:
    assert shimmed(typed).overrides[0] == spelled


def test_quoted_text_reads_back_through_hydras_grammar() -> None:
    from hydra.core.override_parser.overrides_parser import OverridesParser

    for text in ("twice, {fast}", "it's", "a\\", "x\\'y", "${no}", "a=b", "[x"):
        (spelled,) = shimmed(f"+request={text}").overrides
        value: Any = OverridesParser.create().parse_override(spelled).value()
        assert value == text


def test_debug_false_is_the_default_and_vanishes() -> None:
    assert shimmed("debug=false").overrides == ()


@pytest.mark.parametrize(
    "typed", ["+sweep=ga", "sweep=ga", "+sweep=quick", "+experiment=ablation_search"]
)
def test_a_sweep_implies_multirun_and_gets_a_name(typed: str) -> None:
    call = shimmed(typed, "model=sd15")
    assert call.flags == ("--multirun",)
    assert call.overrides[-1] == "study=sd15-20260102-030405"


def test_a_named_study_keeps_its_name() -> None:
    assert shimmed("+sweep=ga", "study=mine").overrides == ("+sweep=ga", "study=mine")


def test_what_a_sweep_is_stands_above_debug_in_any_order() -> None:
    typed = ("+sweep=quick", "study=mine", "+debug=tiny", "search.seed=3")
    assert shimmed(*typed).overrides == (
        "study=mine",
        "+debug=tiny",
        "+sweep=quick",
        "search.seed=3",
    )


@pytest.mark.parametrize("flag", ["--cfg=job", "--info", "--version", "--hydra-help"])
def test_flags_that_only_show_are_left_alone(flag: str) -> None:
    call = shimmed("+sweep=ga", flag)
    assert "--multirun" not in call.flags
    assert call.overrides == ("+sweep=ga",)


def test_flags_may_stand_between_overrides() -> None:
    call = parse(["model=sd15", "--cfg", "job", "hw=cpu", "-m"])
    assert call.flags == ("--cfg", "job", "-m")
    assert call.overrides == ("model=sd15", "hw=cpu")


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (["model=sd-mni"], "unknown model 'sd-mni'; did you mean sd-mini"),
        (["hw=h10"], "did you mean h100 or h200?"),
        (
            ["technique=deepcach"],
            "unknown technique 'deepcach'; did you mean deepcache or dbcache?",
        ),
        (["-m", "technique=deepcache,tme"], "unknown technique 'tme'; did you mean tome"),
        (["technique=deepcache", "technique.deepcache.intervall=3"], "did you mean interval?"),
        (["technique=deepcache", "technique.deepcache.interval=99"], "is 99; allowed: 2 to 6"),
        (["-m", "technique=tome", "technique.tome.ratio=0.5,7"], "is 7; allowed: 0.1 to 0.7"),
        (["technique=deepcache", "technique.deepcache=3"], "names no gene"),
        (["technique.tome.ratio=0.3"], "add 'technique=[deepcache,sampler,tome]'"),
        (["technique=[tome,tome]"], "named twice"),
        (["technique=deepcache,tome"], "add -m"),
        (["goal.max_los=0.1"], "did you mean max_loss"),
        (["search.population=0"], "from 1 to 1000"),
        (["technique=[deepcache"], "cannot read"),
        (["model"], "type key=value"),
        (["+sweep=gaa"], "did you mean ga?"),
        (["--mutlirun"], "did you mean --multirun"),
        (["--cfg", "jobs"], "did you mean job?"),
        (["--cfg"], "--cfg needs a value: one of job, hydra, all"),
        (["+list=model"], "did you mean models?"),
        (["+list=models", "model=sd15"], "stands alone"),
        (["+list=matrix", "goal.max_loss=1"], "stands alone but for model= and hw="),
        (["+list=matrix", "model=sdxl-turb"], "no model=sdxl-turb; did you mean sdxl-turbo"),
        (["+list=matrix", "hw=auto"], "no hw=auto (known: a100, cpu, cuda"),
    ],
)
def test_bad_input_is_one_line_and_status_2(
    arguments: list[str],
    expected: str,
    capsys: pytest.CaptureFixture[str],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(tmp_path)
    assert main(arguments) == 2
    error = capsys.readouterr().err
    assert error.startswith("error: ")
    assert error.count("\n") == 1
    assert expected in error
    assert list(tmp_path.iterdir()) == []


def test_two_strategies_of_one_slot_are_both_named(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    import dataclasses

    from engine import genome, strategy

    known = dict(strategy.registry())
    known["other"] = dataclasses.replace(known["deepcache"], name="other")
    monkeypatch.setattr(strategy, "registry", lambda: known)
    monkeypatch.setattr(genome, "registry", lambda: known)
    monkeypatch.chdir(tmp_path)
    assert main(["technique=[deepcache,other]"]) == 2
    error = capsys.readouterr().err
    assert "deepcache" in error
    assert "other" in error
    assert "slot" in error


def test_outputs_below_a_file_or_on_a_full_disk_are_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(UsageError, match="cannot write"):
        precheck(Call((), (f"paths.outputs={tmp_path}/file/outputs",)))
    check_outputs(tmp_path / "new" / "outputs")
    monkeypatch.setattr(checks, "FREE_SPACE", 2**60)
    with pytest.raises(UsageError, match="MB free"):
        check_outputs(tmp_path)


# What follows runs Hydra with a stand-in for the application, in a process of its own.

STAND_IN = """
import sys, types
from engine.errors import TrialError, UsageError
def run(cfg, overrides):
    from engine.config import read
    config = read(cfg)
    print("RUN", sorted(config.technique), config.study, overrides)
    failure = {"interrupt": KeyboardInterrupt(), "usage": UsageError("wrong: type this"),
               "trial": TrialError("load", "no\\nweights"), "bug": ZeroDivisionError("oops")}
    if config.prompt in failure:
        raise failure[config.prompt]
    return {"speedup": 1.0}
def search(config, arguments, launch):
    jobs = [[*arguments, "technique=[deepcache]", "technique.deepcache.interval=2"]]
    returns = launch(jobs, 5)
    print("STUDY", config.study, arguments, returns[0].return_value)
sys.modules["engine.app"] = types.ModuleType("engine.app")
sys.modules["engine.app"].run = run
sys.modules["engine.study"] = types.ModuleType("engine.study")
sys.modules["engine.study"].run = search
from engine.cli import main
status = main(sys.argv[1:])
print("TORCH", "torch" in sys.modules)
sys.exit(status)
"""


@pytest.fixture
def stand_in(tmp_path: Path) -> CommandLine:
    def call(*arguments: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [sys.executable, "-c", STAND_IN, *arguments],
            cwd=tmp_path,
            env={"PYTHONPATH": str(CONF.parent), "PATH": ""},
            capture_output=True,
            text=True,
            timeout=120,
            check=False,
        )

    return call


def test_a_single_run_composes_and_says_nothing_of_hydras(
    stand_in: CommandLine, tmp_path: Path
) -> None:
    done = stand_in("technique=[sampler,deepcache]", "technique.deepcache.interval=2")
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.startswith("RUN ['deepcache', 'sampler'] None")
    assert "HYDRA" not in done.stdout
    (folder,) = (tmp_path / "outputs" / "runs").iterdir()
    assert folder.name.endswith("_sd-mini")
    assert [path.name for path in folder.iterdir()] == [".hydra"]


def test_a_plain_grid_runs_every_technique(stand_in: CommandLine) -> None:
    done = stand_in("-m", "technique=deepcache,tome,tgate")
    assert (done.returncode, done.stderr) == (0, "")
    assert [line[:14] for line in done.stdout.splitlines()[:3]] == [
        "RUN ['deepcach", "RUN ['tome'] s", "RUN ['tgate'] ",
    ]  # fmt: skip


def test_a_sweep_hands_the_study_its_arguments_and_a_launcher(
    stand_in: CommandLine, tmp_path: Path
) -> None:
    done = stand_in("sweep=ga", "study=mine", "technique=[tome]", "search.seed=3")
    assert (done.returncode, done.stderr) == (0, "")
    assert "RUN ['deepcache'] mine" in done.stdout
    assert "STUDY mine ['study=mine', 'search.seed=3'] {'speedup': 1.0}" in done.stdout
    assert (tmp_path / "outputs/sweeps/mine/5/.hydra").is_dir()


def test_the_jobs_of_a_sweep_that_sets_keys_are_composed_with_it(stand_in: CommandLine) -> None:
    done = stand_in("search.seed=3", "study=mine", "sweep=quick")
    assert (done.returncode, done.stderr) == (0, "")
    assert "STUDY mine ['search.seed=3', 'study=mine', '+sweep=quick']" in done.stdout
    assert "RUN ['deepcache'] mine" in done.stdout


@pytest.mark.parametrize(
    ("prompt", "status", "error"),
    [
        ("usage", 2, "error: wrong: type this\n"),
        ("trial", 1, "error: failed at load: no weights\n"),
        ("bug", 1, "error: ZeroDivisionError: oops (debug=true shows where)\n"),
        ("interrupt", 130, ""),
    ],
)
def test_failures_end_in_one_line_and_their_status(
    stand_in: CommandLine, prompt: str, status: int, error: str
) -> None:
    done = stand_in(f"prompt={prompt}")
    assert (done.returncode, done.stderr) == (status, error)


def test_debug_shows_the_traceback(stand_in: CommandLine) -> None:
    done = stand_in("prompt=bug", "debug=true")
    assert done.returncode == 1
    assert "Traceback" in done.stderr
    assert "ZeroDivisionError: oops" in done.stderr


def test_a_key_of_another_option_is_refused_without_hydras_advice(stand_in: CommandLine) -> None:
    done = stand_in("search=random", "search.mutation=false")
    assert done.returncode == 2
    assert done.stderr.count("\n") == 1
    assert "search.mutation does not exist" in done.stderr


@pytest.mark.parametrize(
    "arguments",
    [
        ["--help"],
        ["--cfg", "job"],
        ["--cfg", "job", "+sweep=ga"],
        ["+list=strategies"],
        ["+list=models"],
        ["+list=hw"],
        ["+list=presets"],
        ["+list=matrix"],
        ["+list=matrix", "model=flux", "hw=h100"],
        ["--cfg", "job", "+sweep=quick"],
    ],
)
def test_what_only_shows_imports_no_torch(stand_in: CommandLine, arguments: list[str]) -> None:
    done = stand_in(*arguments)
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.endswith("TORCH False\n")
    assert len(done.stdout.splitlines()) > 2


def test_listing_shows_bounds_and_help_shows_commands(
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert main(["+list=strategies"]) == 0
    assert "interval=3 (2 to 6 in steps of 1)" in capsys.readouterr().out
    assert main(["+list=models"]) == 0
    head, *rows = (line.split("\t") for line in capsys.readouterr().out.splitlines())
    shown = {row[0]: dict(zip(head, row, strict=True)) for row in rows}
    assert shown["flux"]["weights"].startswith("hub (31.4 GiB, gated), random")
    assert shown["sd15-img2img"]["weights"] == "hub (5.1 GiB), random, mini"
    assert (shown["sdxl"]["pixels"], shown["dit"]["task"]) == ("1024 x 1024", "class")
    assert shown["auto"]["weights"] == "hub (model.id)"
    assert main(["model=sd15", "--help"]) == 0
    assert "+sweep=ga" in capsys.readouterr().out


def test_doctor_names_a_remedy_for_all_that_is_missing(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from engine import doctor

    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(doctor, "CHECKPOINTS", tmp_path)
    assert main(["+doctor"]) == 1
    rows = [line.split("\t") for line in capsys.readouterr().out.splitlines()[1:]]
    assert {"processor", "miniature", "libraries", "bfloat16"} <= {row[0] for row in rows}
    assert all(row[3] for row in rows if row[1] == "no")


def test_doctor_looks_for_the_tools_that_a_technique_needs_on_a_cpu() -> None:
    from engine import doctor
    from engine.hardware import inspect
    from engine.strategy import Needs

    machine = inspect("cpu")
    assert doctor._lacking(Needs(tools=("no-such-compiler", "sh")), machine) == ""
    absent = doctor._lacking(Needs(tools=("no-such-compiler", "nor-this")), machine)
    assert absent == "one of no-such-compiler, nor-this on the PATH"


def test_doctor_looks_where_paths_point(tmp_path: Path) -> None:
    from engine import doctor

    (tmp_path / "file").write_text("")
    assert doctor._outputs(tmp_path / "new" / "outputs")[:2] == ("results", "yes")
    assert doctor._outputs(tmp_path / "file" / "outputs")[1:2] == ("no",)
    code = tmp_path / "cpu-some-2c" / "torch2-diffusers0" / "kernel.so"
    code.parent.mkdir(parents=True)
    code.write_bytes(b"0" * 2**20)
    assert "1 files, 1.0 MB" in doctor._compiled(tmp_path)[2]


def test_module_starts_from_the_shell(command_line: CommandLine) -> None:
    done = command_line("model=sd-mni")
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.count("\n") == 1
