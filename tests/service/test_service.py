"""The example service as a real server: what it answers is what a fresh process answers."""

from __future__ import annotations

import asyncio
import base64
import json
import os
import random
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import pytest
from PIL import Image

from engine.program import generate
from tests.service.programs import CHECKPOINT, GENOME, SUBJECT, pixels

ROOT = Path(__file__).resolve().parents[2]
QUEUE = 12
PROMPTS = (
    "a red circle on a white background",
    "a blue square on a black background",
    "a green ring left of a red triangle on a white background",
    "a yellow triangle above a blue circle on a black background",
)
# Slow enough to be in work when its client hangs up.
LARGE = {"height": 192, "width": 192}
COMMAND = [sys.executable, "-m", "uvicorn", "tests.service.app:from_environment", "--factory"]
ENVIRONMENT = dict(os.environ, PYTHONPATH=str(ROOT), OMP_NUM_THREADS="1")

pytestmark = pytest.mark.skipif(not hasattr(os, "fork"), reason="fresh processes are forked")


@dataclass(frozen=True)
class Server:
    """A running service and the program that it runs."""

    url: str
    program: Path


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    folder = tmp_path_factory.mktemp("service")
    program = folder / "accelerated.py"
    program.write_text(generate(SUBJECT, GENOME, "test"), encoding="utf-8")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    log = folder / "log"
    with log.open("wb") as stream:
        process = subprocess.Popen(
            [*COMMAND, "--port", str(port)],
            cwd=ROOT,
            env=ENVIRONMENT
            | {"ACCELERATED": str(program), "MODEL": str(CHECKPOINT), "QUEUE": str(QUEUE)},
            stdout=stream,
            stderr=stream,
        )
    url = f"http://127.0.0.1:{port}"
    try:
        _wait_until_ready(url, process, log)
        yield Server(url, program)
    finally:
        process.terminate()
        process.wait(30)


def _wait_until_ready(url: str, process: subprocess.Popen[bytes], log: Path) -> None:
    end = time.monotonic() + 180
    while time.monotonic() < end:
        assert process.poll() is None, log.read_text(encoding="utf-8")
        try:
            if httpx.get(f"{url}/health").json()["status"] == "ok":
                return
        except httpx.TransportError:
            time.sleep(0.2)
    pytest.fail(f"no answer within three minutes: {log.read_text(encoding='utf-8')}")


def mixed(count: int) -> list[dict[str, Any]]:
    """Requests that differ in everything that a request can say."""
    draw = random.Random(0)
    rows = []
    for _ in range(count):
        batch = draw.choice((0, 0, 0, 2, 3))
        row: dict[str, Any] = {
            "prompt": draw.choices(PROMPTS, k=batch) if batch else draw.choice(PROMPTS),
            "negative_prompt": draw.choice((None, None, "a red circle")),
            "seed": draw.randrange(1000),
            "height": draw.choice((None, None, 96)),
            "width": draw.choice((None, None, 96, 72)),
            "steps": draw.choice((None, 3, 5, 7)),
            "guidance_scale": draw.choice((None, None, 1.0, 3.0)),
        }
        if row["guidance_scale"] == 1.0:
            # Without guidance a negative prompt would do nothing, and is refused.
            row["negative_prompt"] = None
        rows.append({key: value for key, value in row.items() if value is not None})
    return rows


def images(answer: httpx.Response) -> list[bytes]:
    if answer.headers["content-type"] == "image/png":
        return [answer.content]
    return [base64.b64decode(text) for text in answer.json()["images"]]


async def answered(client: httpx.AsyncClient, row: dict[str, Any]) -> tuple[httpx.Response, int]:
    """The answer, and how often the queue was full before it."""
    refusals = 0
    while True:
        answer = await client.post("/images", json=row)
        if answer.status_code != 503:
            return answer, refusals
        refusals += 1
        await asyncio.sleep(float(answer.headers["Retry-After"]))


async def reaches(client: httpx.AsyncClient, of: int, step: int) -> int:
    """Wait until the image of so many steps has come to this one; where it is then."""
    while True:
        health = (await client.get("/health")).json()
        if health["of"] == of and health["step"] >= step:
            return int(health["step"])
        await asyncio.sleep(0.02)


async def cancelled(client: httpx.AsyncClient, row: dict[str, Any]) -> None:
    """Ask, and hang up in the middle of the image."""
    task = asyncio.create_task(answered(client, row))
    await reaches(client, row["steps"], 3)
    task.cancel()


async def idle(client: httpx.AsyncClient) -> dict[str, Any]:
    """Wait until nothing is in work; the health then."""
    while True:
        health: dict[str, Any] = (await client.get("/health")).json()
        if not health["unfinished"]:
            return health
        await asyncio.sleep(0.02)


def connected(server: Server) -> httpx.AsyncClient:
    # A connection that is kept may be closed by the server just as the next request is sent.
    limits = httpx.Limits(max_connections=100, max_keepalive_connections=0)
    return httpx.AsyncClient(base_url=server.url, timeout=300, limits=limits)


def alone(server: Server, rows: list[dict[str, Any]]) -> subprocess.Popen[str]:
    """A process that answers each request in a fresh child, started now and read later."""
    process = subprocess.Popen(
        [sys.executable, "-m", "tests.service.alone", str(server.program), str(CHECKPOINT)],
        cwd=ROOT,
        env=ENVIRONMENT,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert process.stdin is not None
    process.stdin.write(json.dumps(rows))
    process.stdin.close()
    return process


def test_fifty_mixed_requests_get_the_images_of_fresh_processes(server: Server) -> None:
    rows = mixed(46)
    leaving = [{"prompt": PROMPTS[0], "steps": steps, **LARGE} for steps in (97, 98)]
    bad = [
        {"prompt": PROMPTS[0], "height": 65},
        {"prompt": PROMPTS[0], "step": 5},
        {"prompt": PROMPTS[0], "negative_prompt": "a ring", "guidance_scale": 1.0},
    ]
    fresh = alone(server, rows)

    async def everything() -> tuple[list[Any], list[Any], list[int]]:
        async with connected(server) as client:
            before = (await client.get("/health")).json()
            good, refused, _left = await asyncio.gather(
                asyncio.gather(*(answered(client, row) for row in rows)),
                asyncio.gather(*(answered(client, row) for row in bad)),
                asyncio.gather(*(cancelled(client, row) for row in leaving)),
            )
            after = await idle(client)
            return good, refused, [after[key] - before[key] for key in ("answered", "cancelled")]

    good, refused, counts = asyncio.run(everything())
    assert fresh.stdout is not None
    expected = [json.loads(line) for line in fresh.stdout]
    assert fresh.wait() == 0
    assert [answer.status_code for answer, _ in good] == [200] * len(rows)
    assert [answer.status_code for answer, _ in refused] == [422, 422, 422]
    assert counts == [len(rows), len(leaving)]
    # All came at once to a queue that holds fewer, so some were sent away and came again.
    assert sum(refusals for _, refusals in good) > 0
    assert len(expected) == len(rows)
    assert [
        row
        for row, (answer, _), texts in zip(rows, good, expected, strict=True)
        if [pixels(picture) for picture in images(answer)]
        != [pixels(base64.b64decode(text)) for text in texts]
    ] == []


def test_the_service_draws_what_the_program_draws_from_a_shell(
    server: Server, tmp_path: Path
) -> None:
    output = tmp_path / "image.png"
    where = ["--model", str(CHECKPOINT), "--output", str(output)]
    subprocess.run(
        [sys.executable, str(server.program), "--prompt", PROMPTS[1], "--seed", "3", *where],
        env=ENVIRONMENT,
        check=True,
        capture_output=True,
    )
    row = {"prompt": PROMPTS[1], "seed": 3}
    answer = httpx.post(f"{server.url}/images", json=row, timeout=300)
    assert answer.headers["content-type"] == "image/png"
    assert pixels(answer.content) == pixels(output.read_bytes())
    assert Image.open(output).size == (64, 64)


def test_a_client_that_hangs_up_ends_its_image_and_what_waits_is_never_begun(
    server: Server,
) -> None:
    first = {"prompt": PROMPTS[0], "steps": 96, **LARGE}

    async def hang_up() -> tuple[int, dict[str, Any], httpx.Response]:
        async with connected(server) as client:
            before = (await client.get("/health")).json()
            running = asyncio.create_task(client.post("/images", json=first))
            await reaches(client, 96, 1)
            waiting = [
                asyncio.create_task(client.post("/images", json={"prompt": ""}))
                for _ in range(QUEUE - 1)
            ]
            while (await client.get("/health")).json()["unfinished"] < QUEUE:
                await asyncio.sleep(0.01)
            over = await client.post("/images", json={"prompt": ""})
            for task in waiting:
                task.cancel()
            reached = await reaches(client, 96, 3)
            running.cancel()
            after = await idle(client)
            return reached, after | {"cancelled": after["cancelled"] - before["cancelled"]}, over

    reached, health, over = asyncio.run(hang_up())
    assert health["cancelled"] == QUEUE
    # The steps of the last image that ran: the first one's, and it did not reach its end.
    assert health["of"] == 96
    assert reached <= health["step"] < 96
    assert over.status_code == 503
    assert int(over.headers["Retry-After"]) > 0


@pytest.mark.parametrize(
    ("row", "names"),
    [
        ({}, "prompt"),
        ({"prompt": []}, "prompt"),
        ({"prompt": "x", "width": 70}, "width"),
        ({"prompt": "x", "steps": 0}, "steps"),
        ({"prompt": "x", "seed": -1}, "seed"),
        ({"prompt": "x", "size": 64}, "size"),
    ],
)
def test_a_wrong_request_is_told_which_field_is_wrong(
    server: Server, row: dict[str, Any], names: str
) -> None:
    answer = httpx.post(f"{server.url}/images", json=row, timeout=300)
    assert answer.status_code == 422
    assert any(names in error["loc"] for error in answer.json()["detail"])
