"""The ledger: exactly once, refused damage, and a controller killed at any moment."""

from __future__ import annotations

import dataclasses
import os
import signal
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest

from engine import results as files
from engine.errors import UsageError
from engine.results import Genome, Result
from engine.search import Proposal
from engine.search.ledger import Ledger, results

PRINT = {"space": {"deepcache": [2, 6, 1]}, "model": "sd-mini", "objective": "time"}
ROOT = Path(__file__).parents[2]


def opened(folder: Path, study: str = "mine", **fingerprint: object) -> Ledger:
    return Ledger.open(f"sqlite:///{folder}/ledger.db", study, PRINT | fingerprint, "cpu-2")


def result(trial: int, **fields: object) -> Result:
    genome: Genome = {"deepcache": {"interval": 2 + trial, "branch": 0}}
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
