"""A folder in place of an API: requests as readable files, replies from the files beside them.

For a person, any chat window, or a script. A request is ``0007-planner.md``; its reply is
``0007-planner.reply.md`` (also .txt, .json and .py). The reply counts when it is not empty and has
not changed for some seconds, so whoever writes it piece by piece writes under another name and
renames it at the end. Nothing in the folder is ever removed: a study that is killed finds its open
request again, and a reply that was given meanwhile.
"""

from __future__ import annotations

import hashlib
import json
import re
import threading
import time
from collections.abc import Callable, Collection
from pathlib import Path

from engine.agent.llm import LlmError, Reply, Request, Usage
from engine.console import say as say_on_console
from engine.console import working
from engine.files import write_text

SETTLED_S = 3.0
"""Seconds for which a reply must not have changed."""
POLL_S = 0.5
REPLIES = (".md", ".txt", ".json", ".py")


class Mailbox:
    """Waits for somebody's reply to each request."""

    def __init__(
        self,
        folder: Path,
        who: str = "person",
        *,
        read: Collection[str] = (),
        say: Callable[[str], None] = say_on_console,
        settled_s: float = SETTLED_S,
        poll_s: float = POLL_S,
    ) -> None:
        """``read`` names the requests whose replies have been recorded (``Reply.id``); the same
        request asked again after those is a new file."""
        self._folder = folder.expanduser()
        self._who = who
        self._taken = set(read)
        self._say = say
        self._settled = settled_s
        self._poll = poll_s
        self._lock = threading.Lock()

    @property
    def name(self) -> str:
        return f"mailbox:{self._who}"

    def complete(self, request: Request) -> Reply:
        """The reply, however long it takes, or within the setting ``timeout`` (seconds); raises
        LlmError after that. Tokens and cost are unknown."""
        start = time.monotonic()
        limit = request.settings.get("timeout")
        with self._lock:
            letter = self._letter(request)
            self._taken.add(letter)
        try:
            text = self._awaited(letter, float(limit) if isinstance(limit, int | float) else None)
        except BaseException:
            with self._lock:
                self._taken.discard(letter)
            raise
        seconds = time.monotonic() - start
        return Reply(text, None, self._who, Usage(), None, seconds, "stop", letter)

    def _letter(self, request: Request) -> str:
        """The name of the request's file, which is there then: an open one of an earlier process,
        or a new one."""
        self._folder.mkdir(parents=True, exist_ok=True)
        digest = _digest(request)
        numbers = [0]
        for path in sorted(self._folder.glob("[0-9]*-*.md")):
            stem = path.name.removesuffix(".md")
            if "." in stem:
                continue
            numbers += map(int, re.findall(r"^\d+", stem))
            if stem not in self._taken and f"<!-- {digest} -->" in path.read_text("utf-8")[:500]:
                return stem
        letter = f"{max(numbers) + 1:04d}-{request.role}"
        text = _written(letter, request, digest, self._settled)
        write_text(self._folder / f"{letter}.md", text)
        return letter

    def _awaited(self, letter: str, limit: float | None) -> str:
        deadline = None if limit is None else time.monotonic() + limit
        request, reply = self._folder / f"{letter}.md", self._folder / f"{letter}.reply.md"
        if self._found(letter) is None:
            self._say(
                f"waiting for a reply: answer {request} in {reply} (Ctrl-C stops; the same command "
                "goes on from here)"
            )
        complained: tuple[int, int] | None = None
        seen: tuple[Path, tuple[int, int], float] | None = None
        with working(f"waiting for {reply}"):
            while True:
                path = self._found(letter)
                state = None if path is None else _state(path)
                now = time.monotonic()
                if path is None or state is None:
                    seen = None
                elif seen is None or seen[:2] != (path, state):
                    seen = (path, state, now)
                elif now - seen[2] >= self._settled and state != complained:
                    text = _text(path)
                    # What changed while it was read is not settled.
                    if text is not None and _state(path) == state:
                        return text
                    if text is None:
                        self._say(f"{path} is not UTF-8 text; save it as that")
                        complained = state
                if deadline is not None and now >= deadline:
                    raise LlmError(f"nobody answered {request} before the deadline")
                time.sleep(self._poll)

    def _found(self, letter: str) -> Path | None:
        """The file of the reply, with whatever an editor appended to its name."""
        found = [
            path
            for path in self._folder.glob(f"{letter}.reply.*")
            if path.suffix.lower() in REPLIES
        ]
        return min(found, key=lambda path: REPLIES.index(path.suffix.lower()), default=None)


def _state(path: Path) -> tuple[int, int] | None:
    """Size and time of the last change; None for a file that is gone or empty."""
    try:
        status = path.stat()
    except FileNotFoundError:
        return None
    return (status.st_size, status.st_mtime_ns) if status.st_size else None


def _text(path: Path) -> str | None:
    try:
        return path.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError:
        return None


def _digest(request: Request) -> str:
    """What tells one request from another, in 16 hex digits; without the time that is left."""
    settings = {k: v for k, v in request.settings.items() if k != "timeout"}
    messages = [[message.role, message.text] for message in request.messages]
    whole = json.dumps([messages, settings, request.schema], sort_keys=True)
    return hashlib.sha256(whole.encode()).hexdigest()[:16]


def _written(letter: str, request: Request, digest: str, settled: float) -> str:
    """The request as Markdown."""
    what = f": {request.name}" if request.name else ""
    if request.schema is not None:
        form = "The reply is one JSON value that meets the schema at the end, and nothing else."
    elif request.role in ("coder", "debugger"):
        form = "The reply holds one Python program, whole, in one fenced block: ```python."
    else:
        form = "The reply is text."
    lines = [
        f"# {letter}{what}",
        f"<!-- {digest} -->",
        "",
        "How to answer:",
        "",
        "1. Paste all that stands below the first line of dashes into a chat window, or answer it",
        "   yourself.",
        f"2. Save the reply beside this file as `{letter}.reply.md` (or .txt, .json, .py; UTF-8).",
        f"   It is read when it has not changed for {settled:g} seconds. To write it piece by "
        "piece, use",
        "   another name and rename it at the end.",
        f"3. {form}",
        "",
        "---",
        "",
    ]
    for message in request.messages:
        lines += [f"## {message.role.capitalize()}", "", message.text.rstrip(), ""]
    if request.schema is not None:
        schema = json.dumps(request.schema, indent=2, ensure_ascii=False)
        lines += ["## Schema", "", form, "", "```json", schema, "```", ""]
    return "\n".join(lines)
