"""The sandbox: what a program cannot reach, what is left of it, and that it fails closed."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import psutil
import pytest

from engine.errors import TrialError, UsageError
from engine.worker import sandbox
from engine.worker.confined import Confined, confinement, folders
from engine.worker.conversation import Worker
from engine.worker.pool import Pool
from tests.worker.test_pool import asked, gone, load_of

FINDING = sandbox.probe()
needs_bubblewrap = pytest.mark.skipif(
    not FINDING.ok, reason=f"bubblewrap cannot start here: {FINDING.cause}"
)
ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="module")
def confined(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Confined]:
    if not FINDING.ok:
        pytest.skip(f"bubblewrap cannot start here: {FINDING.cause}")
    os.environ["SOME_API_KEY"] = "secret"
    made = Confined("cpu", tmp_path_factory.mktemp("logs"))
    yield made
    made.close()
    del os.environ["SOME_API_KEY"]


@pytest.fixture
def run(confined: Confined) -> Iterator[Callable[..., int]]:
    """Run lines in a candidate; the answer is the value of ``found``, a number below 256."""
    workers: list[Worker] = []

    def call(body: str) -> int:
        worker = confined.spawn()
        workers.append(worker)
        lines = "\n".join(f"    {line}" for line in body.strip().splitlines())
        text = f"found = 0\n{lines}\n    seed = int(found)"
        worker.load(load_of(body=text))
        return int(worker.generate(asked(1)).images[0, 0, 0, 0])

    yield call
    for worker in workers:
        worker.close()


# --- fails closed


def test_without_bubblewrap_nothing_runs_and_the_remedy_is_named(tmp_path: Path) -> None:
    with pytest.raises(UsageError) as error:
        Confined("cpu", tmp_path, program="no-such-bwrap")
    assert "no-such-bwrap is not installed; apt install bubblewrap" in str(error.value)
    assert "sandbox=process" in str(error.value)


def test_a_bubblewrap_that_starts_nothing_is_refused(tmp_path: Path) -> None:
    broken = tmp_path / "bwrap"
    broken.write_text("#!/bin/sh\necho setting up uid map: Permission denied >&2\nexit 1\n")
    broken.chmod(0o755)
    with pytest.raises(UsageError, match=r"cannot start here.*Permission denied"):
        Confined("cpu", tmp_path, program=str(broken))


def test_a_bubblewrap_that_hides_nothing_is_refused(tmp_path: Path) -> None:
    open_ = tmp_path / "bwrap"
    open_.write_text('#!/bin/sh\nwhile [ "$1" != -- ]; do shift; done\nshift\nexec "$@"\n')
    open_.chmod(0o755)
    with pytest.raises(UsageError, match=r"bubblewrap failed: open|container"):
        Confined("cpu", tmp_path, program=str(open_))


@pytest.mark.parametrize(
    ("facts", "cause", "remedy"),
    [
        ({"max": "0"}, "user namespaces are switched off", "user.max_user_namespaces"),
        ({"clone": "0"}, "user namespaces are switched off", "unprivileged_userns_clone=1"),
        ({"apparmor": "1"}, "AppArmor restricts", "apparmor_restrict_unprivileged_userns=0"),
        ({"container": "1"}, "this container allows no new namespaces", "--security-opt"),
        ({}, "bubblewrap failed: no luck", "sandbox=process"),
    ],
)
def test_why_it_cannot_start_is_named_with_its_remedy(
    facts: dict[str, str], cause: str, remedy: str
) -> None:
    finding = sandbox.diagnosed("no luck", facts)
    assert not finding.ok
    assert cause in finding.cause
    assert remedy in finding.remedy
    assert "sandbox=process" in finding.remedy


def test_plain_processes_are_there_for_who_names_them(tmp_path: Path) -> None:
    from engine import hardware

    made = confinement("process", hardware.inspect("cpu"), tmp_path, [], {}, tmp_path / "compiled")
    assert isinstance(made, Pool)


def test_a_snapshot_of_the_hub_is_readable_with_its_blobs(tmp_path: Path) -> None:
    whole = tmp_path / "models--lab--name"
    snapshot = whole / "snapshots" / "abc"
    snapshot.mkdir(parents=True)
    assert folders({"lab/name": str(snapshot)}) == [whole]
    assert folders({"x": f"random:{tmp_path}", "y": str(tmp_path / "absent")}) == [tmp_path]


# --- what cannot be reached


HIDDEN = [
    "prompts/sets/general.txt",
    "engine/minis/checkpoints/clip/model.safetensors",
    "engine/measure/quality.py",
    "engine/diffbench",
    "engine/honesty",
    "conf",
    "tests",
    "outputs",
    ".git",
]


@needs_bubblewrap
def test_d18_evaluator_prompts_and_results_are_not_there(run: Callable[..., int]) -> None:
    places = [str(ROOT / part) for part in HIDDEN] + ["/etc/passwd", str(Path.home() / ".ssh")]
    assert run(f"found = sum(os.path.exists(p) for p in {places!r})") == 0
    assert run(f"found = os.path.exists({str(ROOT / 'engine/worker/serve.py')!r})") == 1


@needs_bubblewrap
def test_there_is_no_network_and_no_key(run: Callable[..., int]) -> None:
    body = """
import socket
for place in (("127.0.0.1", 1), ("1.1.1.1", 53)):
    try:
        socket.create_connection(place, timeout=2)
    except ConnectionRefusedError:
        found += 0
    except OSError:
        found += 1
found += 10 * ("secret" in str(os.environ))
found += 20 * any("secret" in open(f"/proc/{p}/environ").read() for p in (os.getpid(),))
"""
    # The sandbox has a loopback of its own, where nobody listens, and no way out of it.
    assert run(body) == 1


@needs_bubblewrap
def test_d17_nothing_can_be_written_but_memory_that_goes_again(run: Callable[..., int]) -> None:
    import engine

    own = str(Path(str(engine.__file__)).parent / "planted.py")
    places = [own, str(ROOT / "strategies" / "planted.py"), "/planted", "/usr/planted"]
    places += [str(Path(sys.prefix) / "planted"), str(Path(os.__file__).parent / "planted.py")]
    body = f"""
for place in {places!r}:
    try:
        open(place, "w").write("x")
        found += 1
    except OSError:
        pass
open("/tmp/kept", "w").write("x"); open(os.path.expanduser("~/kept"), "w").write("x")
os.makedirs("/dev/shm/a/b"); os.chmod("/dev/shm/a", 0)
"""
    assert run(body) == 0
    assert not any(Path(place).exists() for place in places)


@needs_bubblewrap
def test_d19_a_shadow_of_a_library_reaches_no_later_candidate(confined: Confined) -> None:
    planted = """
for name in ("torch.py", "sitecustomize.py", "usercustomize.py"):
    for place in ("/tmp", os.path.expanduser("~"), os.getcwd()):
        open(os.path.join(place, name), "w").write("raise SystemExit")
torch.planted = True
"""
    for body, expected in ((planted, 0), ("found = hasattr(torch, 'planted')", 0)):
        worker = confined.spawn()
        lines = "\n".join(f"    {line}" for line in body.strip().splitlines())
        worker.load(load_of(body=f"found = 0\n{lines}\n    seed = int(found)"))
        assert int(worker.generate(asked(1)).images[0, 0, 0, 0]) == expected
        worker.close()
    left = confined.spawn()
    left.load(load_of(body="seed = len(os.listdir('/tmp') + os.listdir(os.path.expanduser('~')))"))
    assert int(left.generate(asked(1)).images[0, 0, 0, 0]) == 0
    left.close()


@needs_bubblewrap
def test_d16_no_other_process_is_in_reach(run: Callable[..., int]) -> None:
    body = f"""
import signal
found = len([p for p in os.listdir("/proc") if p.isdecimal()])
for kind in (signal.SIGINT, signal.SIGTERM, signal.SIGKILL, signal.SIGSTOP):
    os.kill(1, kind)
for name in ("mem", "environ", "maps"):
    try:
        open("/proc/1/" + name, "rb").read(1)
        found += 10
    except OSError:
        pass
try:
    os.kill({os.getpid()}, signal.SIGKILL)
    found += 100
except OSError:
    pass
"""
    # Itself and the first process, which no signal ends and nobody can read.
    assert run(body) == 2
    assert run("found = 7") == 7


@needs_bubblewrap
def test_d26_a_paused_candidate_stops_with_all_that_it_started(confined: Confined) -> None:
    body = """
import subprocess
subprocess.Popen([sys.executable, "-c", "while True: pass"], start_new_session=True)
import threading
threading.Thread(target=lambda: [0 for _ in iter(int, 1)], daemon=True).start()
"""
    worker = confined.spawn()
    lines = "\n".join(f"    {line}" for line in body.strip().splitlines())
    worker.load(load_of(body=f"pass\n{lines}"))
    worker.generate(asked(1))
    inside = _of_the_same_sandbox(worker.pid)
    assert len(inside) >= 2
    worker.pause()
    time.sleep(0.2)
    before = _cpu_seconds(inside)
    time.sleep(0.5)
    assert _cpu_seconds(inside) == before
    worker.resume()
    time.sleep(0.5)
    assert _cpu_seconds(inside) > before
    worker.close()
    assert all(gone(pid) for pid in inside)


def _of_the_same_sandbox(pid: int) -> list[int]:
    """The candidate and everything below the sandbox's first process."""
    first = psutil.Process(pid).parent()
    assert first is not None
    return [child.pid for child in first.children(recursive=True)]


def _cpu_seconds(pids: list[int]) -> float:
    times = [psutil.Process(pid).cpu_times() for pid in pids]
    return float(sum(one.user + one.system for one in times))


# --- what is left of one


@needs_bubblewrap
def test_a_late_candidate_is_killed_with_its_children_and_the_next_one_is_well(
    confined: Confined,
) -> None:
    body = """
import subprocess
subprocess.Popen(["sleep", "1000"], start_new_session=True)
time.sleep(1000)
"""
    worker = confined.spawn()
    lines = "\n".join(f"    {line}" for line in body.strip().splitlines())
    worker.load(load_of(body=f"pass\n{lines}"))
    worker.timeout_s = 1.5
    with pytest.raises(TrialError, match=r"no answer within 1\.5 s") as error:
        worker.generate(asked(1))
    assert error.value.stage == "timeout"
    assert gone(worker.pid)
    worker.close()
    again = confined.spawn()
    again.load(load_of())
    assert (again.generate(asked(9)).images == 9).all()
    again.close()


@needs_bubblewrap
def test_a_flood_of_processes_ends_the_candidate_alone(confined: Confined) -> None:
    body = """
for _ in range(2000):
    if os.fork() == 0:
        time.sleep(1000)
time.sleep(1000)
"""
    worker = confined.spawn()
    lines = "\n".join(f"    {line}" for line in body.strip().splitlines())
    worker.load(load_of(body=f"pass\n{lines}", timeout_s=60))
    with pytest.raises(TrialError, match="more than 256 processes"):
        worker.generate(asked(1))
    again = confined.spawn()
    again.load(load_of())
    assert (again.generate(asked(9)).images == 9).all()
    again.close()


@needs_bubblewrap
def test_memory_beyond_the_limit_costs_the_candidate_its_request(
    confined: Confined, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("engine.worker.confined._memory", lambda: 3 << 30)
    worker = confined.spawn()
    # Never touched, so that nothing but the limit can refuse it.
    worker.load(load_of(body="block = torch.empty(4 << 30, dtype=torch.uint8)"))
    with pytest.raises(TrialError, match="allocate memory"):
        worker.generate(asked(1))
    worker.close()


@needs_bubblewrap
def test_a_sandbox_that_was_tampered_with_is_not_used_again(confined: Confined) -> None:
    worker = confined.spawn()
    worker.load(
        load_of(body="import resource; resource.prlimit(1, resource.RLIMIT_NOFILE, (9, 9))")
    )
    cell = confined._busy[worker.pid][1]
    worker.generate(asked(1))
    worker.close()
    assert cell not in confined._idle


@pytest.fixture(scope="module")
def below(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Confined, Path]]:
    """Sandboxes that may read two folders below /tmp, and the folder of these two."""
    lab = tmp_path_factory.mktemp("the lab")
    for name in ("weights", "more"):
        (lab / name).mkdir()
        (lab / name / "model").write_text("kept", encoding="utf-8")
    made = Confined("cpu", tmp_path_factory.mktemp("logs"), [lab / "weights", lab / "more"])
    yield made, lab
    made.close()


@needs_bubblewrap
@pytest.mark.parametrize(
    ("body", "again"),
    [
        ("open(LAB + '/weights/model').read()", True),
        ("open(LAB + '/planted.py', 'w').write('x'); os.mkdir('/tmp/a')", True),
        ("os.rename(LAB, LAB + ' moved'); os.mkdir(LAB)", False),
        ("os.chmod(LAB, 0o111)", False),
        ("os.chmod('/tmp', 0)", False),
    ],
    ids=["read", "written", "moved", "closed", "all-closed"],
)
def test_weights_below_tmp_stay_and_what_was_written_beside_them_goes(
    below: tuple[Confined, Path], body: str, again: bool
) -> None:
    confined, lab = below
    worker = confined.spawn()
    cell = confined._busy[worker.pid][1]
    worker.load(load_of(body=body.replace("LAB", repr(str(lab)))))
    worker.generate(asked(1))
    worker.close()
    assert (cell in confined._idle) is again
    following = confined.spawn()
    following.load(load_of(body=f"seed = len(os.listdir({str(lab)!r}))"))
    assert (following.generate(asked(1)).images == 2).all()
    following.close()
    assert (lab / "weights" / "model").read_text(encoding="utf-8") == "kept"


COORDINATOR = """
import sys
from pathlib import Path
from engine.worker.confined import Confined
from tests.worker.test_pool import asked, load_of

pool = Confined("cpu", Path(sys.argv[1]))
worker = pool.spawn()
worker.load(load_of(body="time.sleep(1000)", timeout_s=1000.0))
cell = pool._busy[worker.pid][1]
print(worker.pid, cell._process.pid, flush=True)
worker.generate(asked(1))
"""


@needs_bubblewrap
def test_an_interrupted_answer_costs_the_sandbox_not_the_next_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    if not FINDING.ok:
        pytest.skip(f"bubblewrap cannot start here: {FINDING.cause}")
    confined = Confined("cpu", tmp_path)
    worker = confined.spawn()
    worker.load(load_of())
    cell = confined._busy[worker.pid][1]

    def interrupted(_seconds: float) -> bytes:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(cell, "_line", interrupted)
        with pytest.raises(KeyboardInterrupt):
            worker.pause()
    assert worker.close() is None
    assert gone(worker.pid)
    following = confined.spawn()
    following.load(load_of())
    assert (following.generate(asked(3)).images == 3).all()
    confined.close()


def test_no_sandbox_outlives_a_killed_coordinator(tmp_path: Path) -> None:
    process = subprocess.Popen(
        [sys.executable, "-c", COORDINATOR, str(tmp_path)],
        stdout=subprocess.PIPE,
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        text=True,
    )
    assert process.stdout is not None
    pids = [int(word) for word in process.stdout.readline().split()]
    assert len(pids) == 2
    time.sleep(0.5)
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert all(gone(pid) for pid in pids)


# --- the clock


@needs_bubblewrap
def test_d12_a_bent_clock_changes_no_measured_second(confined: Confined) -> None:
    body = """
time.perf_counter = time.time = time.monotonic = lambda: 0.0
torch.cuda.synchronize = lambda *_: None
__import__("threading").Event().wait(1.0)
"""
    worker = confined.spawn()
    lines = "\n".join(f"    {line}" for line in body.strip().splitlines())
    worker.load(load_of(body=f"pass\n{lines}"))
    assert worker.generate(asked(1)).seconds > 1.0
    worker.close()


@needs_bubblewrap
def test_d13_an_answer_that_is_made_late_is_timed_to_its_last_byte(confined: Confined) -> None:
    body = """
class Late:
    def convert(self, mode):
        time.sleep(1.0)
        return Image.new(mode, (8, 8))
return [Late()]
"""
    worker = confined.spawn()
    lines = "\n".join(f"    {line}" for line in body.strip().splitlines())
    worker.load(load_of(body=f"pass\n{lines}"))
    assert worker.generate(asked(1)).seconds > 1.0
    worker.close()


# --- an accelerator


@needs_bubblewrap
@pytest.mark.gpu
def test_with_an_accelerator_each_candidate_has_a_sandbox_of_its_own(tmp_path: Path) -> None:
    assert sandbox.probe(gpu=True).ok
    own = Confined("cuda", tmp_path)
    try:
        for _ in range(2):
            worker = own.spawn()
            worker.load(load_of(body="seed = 100 + int(torch.ones(3, device='cuda').sum())"))
            assert (worker.generate(asked(1)).images == 103).all()
            worker.close()
            assert not own._idle
    finally:
        own.close()
