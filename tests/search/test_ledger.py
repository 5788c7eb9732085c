"""The ledger: exactly once, refused damage, and a controller killed at any moment."""

from __future__ import annotations

import dataclasses
import os
import shutil
import signal
import sqlite3
import subprocess
import sys
import textwrap
from pathlib import Path
from typing import Any

import pytest

from engine import results as files
from engine.errors import UsageError
from engine.results import Genome, Result
from engine.search import Proposal
from engine.search.index import digest
from engine.search.ledger import Ledger, Results, results

PRINT = {"space": {"deepcache": [2, 6, 1]}, "model": "sd-mini", "objective": "time"}
ROOT = Path(__file__).parents[2]


def opened(folder: Path, study: str = "mine", **fingerprint: object) -> Ledger:
    return Ledger.open(f"sqlite:///{folder}/ledger.db", study, PRINT | fingerprint, "cpu-2")


def result(trial: int, **fields: object) -> Result:
    genome: Genome = {"deepcache": {"interval": 2 + trial % 5, "branch": 0}}
    whole = Result(trial, genome, f"key{trial}", "mutation", (0, 1), speedup=2.0, loss=0.01)
    return dataclasses.replace(whole, **fields)  # type: ignore[arg-type]


def proposal(trial: int) -> Proposal:
    one = result(trial)
    return Proposal(one.genome, one.origin, one.parents)


def test_a_genome_is_claimed_once_per_machine_and_study(tmp_path: Path) -> None:
    with opened(tmp_path) as ledger:
        assert ledger.claim(0, "key0", proposal(0))
        assert not ledger.claim(1, "key0", proposal(0))
        assert ledger.taken() == {"key0"}
        with pytest.raises(ValueError, match="trial 0"):
            ledger.claim(0, "key9", proposal(1))
        with opened(tmp_path, "other") as second:
            assert second.claim(0, "key0", proposal(0))
    with Ledger.open(ledger.url, "mine", PRINT, "h100") as elsewhere:
        assert elsewhere.claim(0, "key0", proposal(0))


def test_open_claims_are_those_without_a_result(tmp_path: Path) -> None:
    with opened(tmp_path) as ledger:
        for trial in (0, 1):
            ledger.claim(trial, f"key{trial}", proposal(trial))
        ledger.told(result(0))
        ledger.told(result(0))
    with opened(tmp_path) as again:
        assert again.open_claims() == [(1, proposal(1))]
        assert again.taken() == {"key0", "key1"}


def test_the_study_can_be_read_with_optuna(tmp_path: Path) -> None:
    import optuna

    with opened(tmp_path) as ledger:
        ledger.told(result(0))
        ledger.told(result(0))
        ledger.told(result(1, stage="run", reason="it crashed", speedup=None, loss=None))
        ledger.told(result(2, loss=None))
    held = optuna.load_study(study_name="mine", storage=ledger.url).get_trials()
    assert [t.state.name for t in held] == ["COMPLETE", "FAIL", "FAIL"]
    assert held[0].values == [2.0, 0.01]
    assert held[0].params == {"deepcache.interval": 2, "deepcache.branch": 0}
    assert held[1].user_attrs["reason"] == "it crashed"


def test_a_study_with_other_settings_is_refused_and_says_which(tmp_path: Path) -> None:
    with opened(tmp_path) as ledger:
        ledger.told(result(0))
    before = (tmp_path / "ledger.db").read_bytes()
    with pytest.raises(UsageError, match='model was "sd-mini", is "sd15"'):
        opened(tmp_path, model="sd15")
    with pytest.raises(UsageError, match=r"space\.deepcache was \[2, 6, 1\]"):
        opened(tmp_path, space={"deepcache": [2, 9, 1]})
    assert (tmp_path / "ledger.db").read_bytes() == before


@pytest.mark.parametrize("damage", ["text", "middle", "truncated"])
def test_a_damaged_file_is_refused_and_left_alone(tmp_path: Path, damage: str) -> None:
    path = tmp_path / "ledger.db"
    with opened(tmp_path) as ledger:
        ledger.told(result(0))
    whole = path.read_bytes()
    half = len(whole) // 2
    path.write_bytes(
        {
            "text": b"not a database, but long enough to look like a file" * 10,
            "middle": whole[:4096] + b"\xff" * (half - 4096) + whole[half:],
            "truncated": whole[:half],
        }[damage]
    )
    before = path.read_bytes()
    with pytest.raises(UsageError, match=r"ledger\.db is damaged"):
        opened(tmp_path)
    assert path.read_bytes() == before


def test_only_a_file_can_hold_a_ledger(tmp_path: Path) -> None:
    for url in ("sqlite://", "sqlite:///:memory:", "postgresql://host/db", "nonsense"):
        with pytest.raises(UsageError, match="allowed: sqlite:///PATH"):
            Ledger.open(url, "mine", PRINT, "cpu-2")


def test_a_second_live_controller_is_refused_until_the_first_closes(tmp_path: Path) -> None:
    with (
        opened(tmp_path),
        pytest.raises(UsageError, match=f"searched by process {os.getpid()}"),
    ):
        opened(tmp_path)
    opened(tmp_path).close()


def test_the_index_is_rebuilt_from_the_files(tmp_path: Path) -> None:
    for trial in range(3):
        files.save(result(trial), tmp_path / str(trial) / "result.json")
    (tmp_path / "best").mkdir()
    (tmp_path / "best" / "result.json").write_text("not a trial")
    assert [r.trial for r in results(tmp_path)] == [0, 1, 2]
    with opened(tmp_path) as ledger:
        ledger.rebuild(tmp_path)
        assert ledger.taken() == {"key0", "key1", "key2"}
        assert ledger.open_claims() == []
        # An acceptance measurement changes a file; a folder is removed to be measured again.
        accepted = result(1, rung=2, speedup=1.9)
        files.save(accepted, tmp_path / "1" / "result.json")
        (tmp_path / "2" / "result.json").unlink()
        ledger.rebuild(tmp_path)
        assert ledger.open_claims() == [(2, proposal(2))]
    import optuna

    held = optuna.load_study(study_name="mine", storage=ledger.url).get_trials()
    assert {t.user_attrs["trial"]: t.values[0] for t in held} == {0: 2.0, 1: 1.9}
    opened(tmp_path).close()


def study_of_all_kinds(folder: Path) -> None:
    """A study as a controller leaves it: injected, seed, bred, failed and accepted trials, one
    told late, and a database that has seen each of them happen."""
    trials = [
        result(0, origin="recipe", parents=()),
        result(1, origin="user", parents=(), genome={"sampler": {"steps": 9, "name": "unipc"}}),
        result(2, origin="seed", parents=(), loss=None),
        result(3, stage="run", reason="it crashed", speedup=None, loss=None),
        result(4, memory_gib=0.7, loss=-0.001, origin="crossover"),
        result(5, genome={"tgate": {"gate": 0.5}, "unknown": {"x": 1}}),
        result(6, stage="timeout", reason="no answer within 120 s", speedup=None, loss=None),
    ]
    with opened(folder) as ledger:
        for one in trials:
            ledger.claim(one.trial, one.key, Proposal(one.genome, one.origin, one.parents))
        for one in (*trials[:2], *trials[3:], trials[2]):
            files.save(one, folder / str(one.trial) / "result.json")
            ledger.told(files.load(folder / str(one.trial) / "result.json"))
        shutil.copyfile(folder / "4" / "result.json", folder / "4" / "search.json")
        files.save(
            dataclasses.replace(trials[4], rung=2, speedup=1.8, loss=0.02),
            folder / "4" / "result.json",
        )
        ledger.rebuild(folder)


def held_in(folder: Path) -> tuple[list[Any], dict[int, Any]]:
    """The rows of the claims, and what Optuna says of each trial."""
    import optuna

    columns = "study, key, machine, genome, origin, parents, trial, told"
    connection = sqlite3.connect(folder / "ledger.db")
    claims = connection.execute(f"SELECT {columns} FROM claims ORDER BY trial").fetchall()
    connection.close()
    study = optuna.load_study(study_name="mine", storage=f"sqlite:///{folder}/ledger.db")
    assert [t.number for t in study.trials] == list(range(len(study.trials)))
    return claims, {
        t.user_attrs["trial"]: (t.values, t.params, t.distributions, t.user_attrs, t.state)
        for t in study.trials
    }


def test_a_ledger_rebuilt_from_the_files_alone_equals_the_original(tmp_path: Path) -> None:
    study_of_all_kinds(tmp_path)
    claims, trials = held_in(tmp_path)
    assert len(claims) == len(trials) == 7
    assert trials[4][0] == [1.8, 0.02]
    (tmp_path / "ledger.db").unlink()
    with opened(tmp_path) as ledger:
        ledger.rebuild(tmp_path)
        assert ledger.open_claims() == []
    assert held_in(tmp_path) == (claims, trials)


def test_the_index_holds_what_optuna_would_have_entered(tmp_path: Path) -> None:
    import optuna

    study_of_all_kinds(tmp_path)
    own = optuna.load_study(study_name="mine", storage=f"sqlite:///{tmp_path}/ledger.db")
    storage = f"sqlite:///{tmp_path}/theirs.db"
    theirs = optuna.create_study(storage=storage, directions=["maximize", "minimize"])
    theirs.add_trials(own.trials)
    assert own.best_trials == theirs.best_trials
    for ours, entered in zip(own.trials, theirs.trials, strict=True):
        assert ours == entered
    assert own.get_trials(states=[optuna.trial.TrialState.FAIL]) == [
        t for t in theirs.trials if t.values is None
    ]


def test_a_result_that_cannot_be_indexed_leaves_no_trace(tmp_path: Path) -> None:
    wrong = result(0, genome={"deepcache": {"interval": 10**6, "branch": 0}})
    with opened(tmp_path) as ledger:
        with pytest.raises(ValueError, match="interval"):
            ledger.told(wrong)
        assert ledger.taken() == set()
        ledger.told(result(0))
    assert list(held_in(tmp_path)[1]) == [0]


def test_a_rewritten_index_keeps_nothing_of_the_old_one(tmp_path: Path) -> None:
    for trial in range(3):
        files.save(result(trial), tmp_path / str(trial) / "result.json")
    with opened(tmp_path) as ledger, opened(tmp_path, "other") as other:
        other.told(result(9))
        ledger.rebuild(tmp_path)
        failed = result(1, stage="run", reason="it crashed", speedup=None, loss=None, genome={})
        files.save(failed, tmp_path / "1" / "result.json")
        shutil.rmtree(tmp_path / "0")
        ledger.rebuild(tmp_path)
        ledger.told(result(0, loss=0.04))
    _, trials = held_in(tmp_path)
    assert {trial: held[0] for trial, held in trials.items()} == {
        1: None,
        2: [2.0, 0.01],
        0: [2.0, 0.04],
    }
    assert trials[1][1] == {}
    assert trials[1][3]["digest"] == digest(failed)
    import optuna

    assert len(optuna.load_study(study_name="other", storage=ledger.url).trials) == 1


def test_a_file_is_read_again_only_when_it_was_written_anew(tmp_path: Path) -> None:
    for trial in range(3):
        files.save(result(trial), tmp_path / str(trial) / "result.json")
    told = Results(tmp_path)
    before = told.read()
    files.save(result(1, speedup=3.0), tmp_path / "1" / "result.json")
    files.save(result(3), tmp_path / "3" / "result.json")
    shutil.rmtree(tmp_path / "2")
    after = told.read()
    assert after == results(tmp_path) == [result(0), result(1, speedup=3.0), result(3)]
    assert after[0] is before[0]
    with opened(tmp_path) as ledger:
        ledger.rebuild(told)
        assert ledger.taken() == {"key0", "key1", "key3"}


def test_a_folder_without_trials_has_no_results(tmp_path: Path) -> None:
    (tmp_path / "0").mkdir()
    (tmp_path / "1").write_text("a file, not a trial")
    assert results(tmp_path) == results(tmp_path / "missing") == []


@pytest.mark.parametrize("text", ["{", "[]", '{"trial": 3}', "\x00\x01"])
def test_a_damaged_result_is_named(tmp_path: Path, text: str) -> None:
    path = tmp_path / "3" / "result.json"
    path.parent.mkdir()
    path.write_text(text)
    with pytest.raises(UsageError, match=r"3/result\.json is damaged") as error:
        results(tmp_path)
    assert "\n" not in str(error.value)


def test_a_result_in_anothers_folder_is_refused(tmp_path: Path) -> None:
    files.save(result(4), tmp_path / "3" / "result.json")
    with pytest.raises(UsageError, match="it says trial 4"):
        results(tmp_path)


CONTROLLER = """
    import os, sys, time
    from pathlib import Path
    from tests.search.test_ledger import opened, proposal, result
    from engine import results as files
    folder = Path(sys.argv[1])
    ledger = opened(folder)
    if os.fork() == 0:  # a worker that outlives its controller
        print("worker", os.getpid(), flush=True)
        time.sleep(60)
        os._exit(0)
    for trial in range(50):
        ledger.claim(trial, f"key{trial}", proposal(trial))
        files.save(result(trial), folder / str(trial) / "result.json")
        ledger.told(result(trial))
        print("told", trial, flush=True)
"""


@pytest.mark.skipif(sys.platform == "win32", reason="signals and fork")
@pytest.mark.parametrize("after", [0, 2])
def test_a_killed_controller_loses_nothing_and_frees_its_lease(tmp_path: Path, after: int) -> None:
    child = subprocess.Popen(
        [sys.executable, "-c", textwrap.dedent(CONTROLLER), str(tmp_path)],
        stdout=subprocess.PIPE,
        text=True,
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
    )
    assert child.stdout is not None
    worker = 0
    told: list[int] = []
    while len(told) <= after or not worker:
        kind, number = child.stdout.readline().split()
        if kind == "worker":
            worker = int(number)
        else:
            told.append(int(number))
    with pytest.raises(UsageError, match=f"process {child.pid}"):
        opened(tmp_path)
    child.send_signal(signal.SIGKILL)
    child.wait()
    try:
        with opened(tmp_path) as ledger:
            ledger.rebuild(tmp_path)
            found = results(tmp_path)
            assert [r.trial for r in found] == list(range(len(found)))
            assert len(found) > after
            assert ledger.taken() >= {r.key for r in found}
            assert len(ledger.open_claims()) <= 1
    finally:
        os.kill(worker, signal.SIGKILL)
        child.stdout.close()
