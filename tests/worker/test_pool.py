"""Workers are real processes running real programs; a bad one costs only itself."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import psutil
import pytest
from PIL import Image

from engine.errors import TrialError
from engine.requests import Case, Request, Shape
from engine.worker.conversation import Load, Worker
from engine.worker.pool import Pool

PROGRAM = """
import os, sys, time
import numpy as np
import torch
from PIL import Image

class Pipe:
    def __init__(self):
        self.unet = torch.nn.Linear(4, 4)
        self.components = {{"unet": self.unet}}
    def __call__(self, prompt, callback_on_step_end=None):
        pass

def load_pipeline(device):
    {load}
    return Pipe()

def accelerate(pipe):
    return pipe

def generate(pipe, prompt, *, seed):
    pipe.unet(torch.ones(1, 4))
    {body}
    return [Image.fromarray(np.full((8, 8, 3), seed, np.uint8))]
"""


def asked(seed: int) -> Request:
    return Request.of("anything", seed)


def load_of(body: str = "pass", load: str = "pass", timeout_s: float = 30.0) -> Load:
    return Load(
        program=PROGRAM.format(body=body, load=load),
        strategies=(),
        models={},
        denoiser="unet",
        device="cpu",
        threads=1,
        timeout_s=timeout_s,
    )


def gone(pid: int, within_s: float = 5.0) -> bool:
    deadline = time.monotonic() + within_s
    while time.monotonic() < deadline:
        if not psutil.pid_exists(pid) or psutil.Process(pid).status() == psutil.STATUS_ZOMBIE:
            return True
        time.sleep(0.05)
    return False


def test_a_worker_answers_with_the_programs_pixels(worker: Worker) -> None:
    worker.load(load_of())
    answer = worker.generate(asked(7))
    assert answer.images.shape == (1, 8, 8, 3)
    assert (answer.images == 7).all()
    assert answer.seconds > 0


def test_forwards_of_the_denoiser_are_counted_without_the_program(worker: Worker) -> None:
    worker.load(load_of(body="pipe.unet(torch.ones(2, 4))"))
    cost = worker.cost(asked(1))
    assert cost["forwards"] == 2
    assert cost["batches"] == [1, 2]
    assert cost["flops"] == 2 * (1 * 4 * 4 + 2 * 4 * 4)


def test_a_hanging_program_is_killed_at_the_deadline(pool: Pool) -> None:
    worker = pool.spawn()
    worker.load(load_of())
    worker.close()
    worker = pool.spawn()
    worker.load(load_of(body="time.sleep(1000)", timeout_s=30.0))
    worker.timeout_s = 1.0
    with pytest.raises(TrialError, match="no answer within 1 s") as error:
        worker.generate(asked(1))
    assert error.value.stage == "timeout"
    assert gone(worker.pid)
    worker.close()


def test_a_program_that_ignores_signals_is_killed_all_the_same(pool: Pool) -> None:
    worker = pool.spawn()
    ignore = "import signal; signal.signal(signal.SIGTERM, signal.SIG_IGN); time.sleep(1000)"
    worker.load(load_of(body=ignore))
    worker.timeout_s = 1.0
    with pytest.raises(TrialError):
        worker.generate(asked(1))
    assert gone(worker.pid)
    worker.close()


@pytest.mark.parametrize(
    ("body", "reason"),
    [
        ("os._exit(3)", "status 3"),
        ("os.kill(os.getpid(), 11)", "signal 11"),
        ("sys.exit('bye')", "SystemExit: bye"),
        ("raise ValueError('wrong')", "ValueError: wrong"),
        ("return []", "at least one array"),
        ("return [1]", "AttributeError"),
        ("return [Image.new('RGB', (8, 8))] * 3", "images of shape"),
        ("return [Image.new('RGB', (8, 8))] * 1000", "1000 images for one request"),
    ],
)
def test_a_failing_program_is_named_with_its_reason(worker: Worker, body: str, reason: str) -> None:
    worker.load(load_of(body=body))
    with pytest.raises(TrialError, match=reason) as error:
        worker.generate(asked(1))
    assert error.value.stage == "run"


def test_a_failure_while_loading_says_so(worker: Worker) -> None:
    with pytest.raises(TrialError, match="no weights") as error:
        worker.load(load_of(load="raise OSError('no weights')"))
    assert error.value.stage == "load"


def test_flooding_the_output_ends_at_the_cap(worker: Worker, pool: Pool) -> None:
    worker.load(load_of(body="while True: print('x' * 10**6)"))
    with pytest.raises(TrialError, match="File too large"):
        worker.generate(asked(1))


def test_the_next_worker_does_not_suffer_from_the_last(pool: Pool) -> None:
    crashed = pool.spawn()
    crashed.load(load_of(body="os._exit(1)"))
    with pytest.raises(TrialError):
        crashed.generate(asked(1))
    worker = pool.spawn()
    worker.load(load_of())
    assert (worker.generate(asked(3)).images == 3).all()
    worker.close()


def test_children_of_a_worker_die_with_it(pool: Pool, tmp_path: Path) -> None:
    note = tmp_path / "pid"
    body = (
        "import subprocess; p = subprocess.Popen(['sleep', '1000']); "
        f"open({str(note)!r}, 'w').write(str(p.pid))"
    )
    worker = pool.spawn()
    worker.load(load_of(body=body))
    worker.generate(asked(1))
    worker.close()
    assert gone(int(note.read_text()))


def test_an_interrupted_start_leaves_no_worker_and_closes_in_order(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pool = Pool("cpu", tmp_path / "logs")
    running = pool.spawn()
    running.load(load_of())
    server = psutil.Process(psutil.Process(running.pid).ppid())
    lines = pool._lines

    class Interrupted:
        def readline(self) -> bytes:
            monkeypatch.setattr(pool, "_lines", lines)
            while not server.children()[1:]:
                time.sleep(0.01)
            raise KeyboardInterrupt

    monkeypatch.setattr(pool, "_lines", Interrupted())
    with pytest.raises(KeyboardInterrupt):
        pool.spawn()
    children = [child.pid for child in server.children()]
    assert len(children) == 2
    pool.close()
    assert all(gone(pid) for pid in [*children, server.pid])


def test_keys_of_the_coordinator_do_not_reach_a_worker(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", "secret")
    own = Pool("cpu", tmp_path)
    try:
        worker = own.spawn()
        worker.load(load_of(body="seed = 99 if 'OPENAI_API_KEY' in os.environ else 1"))
        assert (worker.generate(asked(5)).images == 1).all()
    finally:
        own.close()


def test_a_paused_worker_does_not_run(pool: Pool) -> None:
    worker = pool.spawn()
    worker.load(load_of())
    worker.generate(asked(1))
    worker.pause()
    time.sleep(0.2)
    assert psutil.Process(worker.pid).status() == psutil.STATUS_STOPPED
    assert (worker.generate(asked(2)).images == 2).all()
    worker.close()


COORDINATOR = """
import sys, threading, time
from pathlib import Path
from engine.worker.pool import Pool
from tests.worker.test_pool import asked, load_of

pool = Pool("cpu", Path(sys.argv[1]))
busy, paused = pool.spawn(), pool.spawn()
busy.load(load_of(body="time.sleep(1000)", timeout_s=1000.0))
paused.load(load_of())
paused.pause()
print(busy.pid, paused.pid, pool._server.pid, flush=True)
busy.generate(asked(1))
"""


@pytest.mark.skipif(sys.platform != "linux", reason="the fork server exists on Linux")
def test_no_worker_outlives_a_killed_coordinator(tmp_path: Path) -> None:
    root = Path(__file__).resolve().parents[2]
    process = subprocess.Popen(
        [sys.executable, "-c", COORDINATOR, str(tmp_path)],
        stdout=subprocess.PIPE,
        cwd=root,
        env={**os.environ, "PYTHONPATH": str(root)},
        text=True,
    )
    assert process.stdout is not None
    pids = [int(word) for word in process.stdout.readline().split()]
    assert len(pids) == 3
    time.sleep(0.5)
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert all(gone(pid) for pid in pids)


def test_the_answer_must_be_the_image_that_was_asked_for(worker: Worker) -> None:
    worker.load(load_of(body="return [Image.new('RGB', (16, 8))]"))
    image = worker.generate(asked(1)).images
    assert image.shape == (1, 8, 16, 3)
    assert image.dtype == np.uint8


ECHO = """
import numpy as np, torch
from PIL import Image

class Pipe:
    unet = torch.nn.Linear(4, 4)

def load_pipeline(device):
    return Pipe()

def generate(pipe, prompt, *, seed, negative_prompt=None, image=None, height=8, width=8):
    prompts = [prompt] if isinstance(prompt, str) else prompt
    if image is not None:
        return [image.rotate(180)]
    assert negative_prompt in (None, ["x", ""])
    return [Image.new("RGB", (width, height), (seed + i, len(p), 0)) for i, p in enumerate(prompts)]
"""


def test_a_batch_of_a_size_with_negative_prompts_reaches_the_program(worker: Worker) -> None:
    worker.load(replace(load_of(), program=ECHO))
    cases = (Case("a", "x"), Case("bcd"))
    images = worker.generate(Request(cases, 5, Shape(16, 24, batch=2))).images
    assert images.shape == (2, 16, 24, 3)
    assert images[:, 0, 0, :2].tolist() == [[5, 1], [6, 3]]


def test_an_init_image_reaches_the_program_as_its_pixels(worker: Worker, tmp_path: Path) -> None:
    worker.load(replace(load_of(), program=ECHO))
    pixels = np.arange(4 * 6 * 3, dtype=np.uint8).reshape(4, 6, 3)
    Image.fromarray(pixels).save(tmp_path / "start.png")
    request = Request((Case("a", image=str(tmp_path / "start.png")),), 0)
    assert (worker.generate(request).images[0] == pixels[::-1, ::-1]).all()


def test_a_program_without_generate_is_refused_when_it_loads(worker: Worker) -> None:
    with pytest.raises(TrialError, match=r"the program lacks generate\(\)") as error:
        worker.load(replace(load_of(), program="def load_pipeline(device): pass"))
    assert error.value.stage == "load"
