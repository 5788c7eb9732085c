"""Requests as files in a folder, answered by whoever writes the file beside them."""

from __future__ import annotations

import functools
import os
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from engine.agent.doors import door
from engine.agent.llm import LlmError, Message, Reply, Request, Usage
from engine.agent.mailbox import Mailbox
from engine.agent.retry import Retry
from engine.schema import LlmConfig

ASKED = Request(
    "planner",
    (Message("system", "You plan."), Message("user", "Plan for sd-mini.")),
    {"type": "object", "required": ["title"]},
    name="plan 1",
)


class Sayings(list[str]):
    """What was said on the console."""

    def __call__(self, text: str) -> None:
        self.append(text)


def box(folder: Path, say: Callable[[str], None] | None = None) -> Mailbox:
    return Mailbox(folder, say=Sayings() if say is None else say, settled_s=0.3, poll_s=0.05)


def asked_in_background(
    pool: ThreadPoolExecutor, mailbox: Mailbox, request: Request = ASKED
) -> Callable[[], Reply]:
    """Asks, and returns once the request's file is there."""
    known = set(os.listdir(mailbox._folder)) if mailbox._folder.exists() else set()
    future = pool.submit(Retry(mailbox, 1, 20).complete, request)
    until(lambda: mailbox._folder.exists() and bool(set(os.listdir(mailbox._folder)) - known))
    return lambda: future.result(25)


def until(met: Callable[[], bool]) -> None:
    latest = time.monotonic() + 10
    while not met():
        assert time.monotonic() < latest
        time.sleep(0.02)


def test_a_request_can_be_read_and_is_answered_by_the_file_beside_it(tmp_path: Path) -> None:
    said = Sayings()
    with ThreadPoolExecutor() as pool:
        wait = asked_in_background(pool, box(tmp_path, said))
        until(lambda: len(said) == 1)
        letter = (tmp_path / "0001-planner.md").read_text()
        (tmp_path / "0001-planner.reply.md").write_text('\ufeff{"title": "é"}', encoding="utf-8")
        reply = wait()
    assert (reply.text, reply.model, reply.id) == ('{"title": "é"}', "person", "0001-planner")
    assert (reply.usage, reply.cost, reply.finish) == (Usage(), None, "stop")
    assert letter.startswith("# 0001-planner: plan 1\n")
    for part in ("## System\n\nYou plan.", "## User\n\nPlan for sd-mini.", '"required"', "`0001-"):
        assert part in letter
    assert len(said) == 1
    assert f"{tmp_path}/0001-planner.md in {tmp_path}/0001-planner.reply.md" in said[0]


def test_a_reply_that_is_still_being_written_is_not_read(tmp_path: Path) -> None:
    with ThreadPoolExecutor() as pool:
        wait = asked_in_background(pool, box(tmp_path))
        # Under another name it may lie as long as it likes, and an empty file is no reply.
        (tmp_path / "0001-planner.reply.md.part").write_text("no")
        (tmp_path / "0001-planner.reply.md").touch()
        time.sleep(0.6)
        whole = ""
        with open(tmp_path / "0001-planner.reply.md", "w") as file:
            for word in ("a", "reply", "that", "takes", "longer", "than", "it", "needs"):
                whole += word + " "
                file.write(word + " ")
                file.flush()
                time.sleep(0.1)
        assert wait().text == whole


def test_editors_endings_count_and_text_that_is_not_utf8_is_told(tmp_path: Path) -> None:
    said = Sayings()
    with ThreadPoolExecutor() as pool:
        wait = asked_in_background(pool, box(tmp_path, said))
        until(lambda: len(said) == 1)
        place = tmp_path / "0001-planner.reply.md.txt"
        place.write_bytes("Größe".encode("latin-1"))
        until(lambda: len(said) == 2)
        assert said[1] == f"{place} is not UTF-8 text; save it as that"
        place.write_text("Größe", encoding="utf-8")
        assert wait().text == "Größe"
    assert len(said) == 2


def test_a_killed_study_finds_its_open_request_and_a_reply_given_meanwhile(
    tmp_path: Path,
) -> None:
    with pytest.raises(LlmError, match="nobody answered"):
        Retry(box(tmp_path), 1, 0.2).complete(ASKED)
    (tmp_path / "0001-planner.reply.md").write_text("{}")
    assert Retry(box(tmp_path), 1, 30).complete(ASKED).text == "{}"
    assert sorted(os.listdir(tmp_path)) == ["0001-planner.md", "0001-planner.reply.md"]


def test_the_same_request_asked_again_is_a_new_file(tmp_path: Path) -> None:
    mailbox = box(tmp_path)
    with ThreadPoolExecutor() as pool:
        for number in (1, 2):
            wait = asked_in_background(pool, mailbox)
            (tmp_path / f"000{number}-planner.reply.md").write_text(f"reply {number}")
            assert wait().text == f"reply {number}"
        # Two at once do not share a file.
        first = asked_in_background(pool, mailbox)
        second = asked_in_background(pool, mailbox)
        for number in (4, 3):
            (tmp_path / f"000{number}-planner.reply.md").write_text(f"reply {number}")
        assert {first().text, second().text} == {"reply 3", "reply 4"}


def test_no_call_through_the_mailbox_outlives_its_deadline(tmp_path: Path) -> None:
    start = time.monotonic()
    with pytest.raises(LlmError, match=r"nobody answered .*llm\.timeout_s=0\.5"):
        Retry(box(tmp_path), 1, 0.5).complete(ASKED)
    assert 0.5 <= time.monotonic() - start < 5


def test_a_resumed_study_does_not_take_an_old_reply_for_a_second_request(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    quick = functools.partial(Mailbox, settled_s=0.3, poll_s=0.05)
    monkeypatch.setattr("engine.agent.doors.Mailbox", quick)
    config = LlmConfig(name="mailbox", model="person", timeout_s=30)
    asked = Request("reader", (Message("user", "Which model?"),))
    folder = tmp_path / "mailbox"

    def replies(count: int) -> list[str]:
        model = door(config, tmp_path, lambda text: None)
        return [model.complete(asked).text for _ in range(count)]

    def answering(number: int) -> None:
        latest = time.monotonic() + 20
        while not (folder / f"{number:04d}-reader.md").exists() and time.monotonic() < latest:
            time.sleep(0.05)
        (folder / f"{number:04d}-reader.reply.md").write_text(f"reply {number}")

    for number in (1, 2):
        writer = threading.Thread(target=answering, args=(number,))
        writer.start()
        assert replies(number) == [f"reply {n}" for n in range(1, number + 1)]
        writer.join()
