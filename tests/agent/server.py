"""A server on this machine that speaks chat completions and answers, or fails, from a script."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any


@dataclass(frozen=True)
class Seen:
    """A request as it arrived."""

    path: str
    headers: dict[str, str]
    """By their names in small letters."""
    body: dict[str, Any]
    at: float
    """``time.monotonic`` of its arrival."""

    @property
    def last(self) -> str:
        """The text of the last message."""
        content = self.body["messages"][-1]["content"]
        return content if isinstance(content, str) else "".join(part["text"] for part in content)


class Handler(BaseHTTPRequestHandler):
    """One connection; what it does is decided by the script."""

    protocol_version = "HTTP/1.1"
    script: Script

    def do_POST(self) -> None:
        length = int(self.headers["Content-Length"])
        body = json.loads(self.rfile.read(length))
        seen = Seen(
            self.path,
            {name.lower(): value for name, value in self.headers.items()},
            body,
            time.monotonic(),
        )
        step = self.script.take(seen)
        try:
            step(self)
        except (BrokenPipeError, ConnectionResetError):
            self.close_connection = True

    def log_message(self, format: str, *args: object) -> None:
        """Nothing: tests read what was seen."""


Step = Callable[[Handler], None]


@dataclass
class Script:
    """The steps to come, and what was seen. After the last step every request gets status 500 and
    is noted in ``surplus``."""

    steps: list[Step]
    seen: list[Seen] = field(default_factory=list)
    surplus: int = 0
    url: str = ""
    ended: threading.Event = field(default_factory=threading.Event)
    lock: threading.Lock = field(default_factory=threading.Lock)

    def take(self, seen: Seen) -> Step:
        with self.lock:
            self.seen.append(seen)
            if self.steps:
                return self.steps.pop(0)
            self.surplus += 1
            return status(500, {"error": {"message": "the script has ended"}})


@contextmanager
def serving(steps: Sequence[Step]) -> Iterator[Script]:
    """The server while the block runs; ``url`` is its base address."""
    script = Script(list(steps))
    handler = type("Bound", (Handler,), {"script": script})
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    server.daemon_threads = True
    thread = threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True)
    thread.start()
    script.url = f"http://127.0.0.1:{server.server_address[1]}/v1"
    try:
        yield script
    finally:
        script.ended.set()
        server.shutdown()
        server.server_close()


def completion(
    text: str, finish: str = "stop", tokens: tuple[int, int] = (100, 10), model: str = "tiny"
) -> dict[str, Any]:
    """The body of a chat completion, with what OpenRouter adds to it."""
    return {
        "id": "chatcmpl-1",
        "object": "chat.completion",
        "created": 1_700_000_000,
        "model": model,
        "provider": "tests",
        "choices": [
            {
                "index": 0,
                "message": {"role": "assistant", "content": text},
                "finish_reason": finish,
                "native_finish_reason": finish,
            }
        ],
        "usage": {
            "prompt_tokens": tokens[0],
            "completion_tokens": tokens[1],
            "total_tokens": sum(tokens),
        },
    }


def answer(text: str, finish: str = "stop", after: float = 0.0, **rest: Any) -> Step:
    """A whole reply, whose first byte comes after some seconds."""

    def step(handler: Handler) -> None:
        handler.script.ended.wait(after)
        _send(handler, 200, json.dumps(completion(text, finish, **rest)).encode())

    return step


def status(code: int, body: object = None, **headers: str) -> Step:
    """An error of the provider; underscores in the names of headers stand for dashes."""

    def step(handler: Handler) -> None:
        shown = {"error": {"message": f"status {code}"}} if body is None else body
        named = {name.replace("_", "-"): value for name, value in headers.items()}
        _send(handler, code, json.dumps(shown).encode(), named)

    return step


def raw(content: bytes) -> Step:
    """Status 200 with a body that need not be JSON."""
    return lambda handler: _send(handler, 200, content)


def stall(handler: Handler) -> None:
    """Takes the request and never says a word."""
    handler.script.ended.wait()
    handler.close_connection = True


def stall_in_body(handler: Handler) -> None:
    """Sends the head and half of the body, and then nothing more."""
    _head(handler, 200, 1000)
    handler.wfile.write(b'{"id": "chatcmpl-1", ')
    handler.wfile.flush()
    handler.script.ended.wait()
    handler.close_connection = True


def drip(handler: Handler) -> None:
    """Sends white space without end, so that no limit between two bytes is ever reached."""
    _head(handler, 200, 10_000_000)
    while not handler.script.ended.wait(0.1):
        handler.wfile.write(b" ")
        handler.wfile.flush()
    handler.close_connection = True


def cut(handler: Handler) -> None:
    """Closes the connection in the middle of the body."""
    _head(handler, 200, 1000)
    handler.wfile.write(json.dumps(completion("lost")).encode()[:100])
    handler.close_connection = True


def hang_up(handler: Handler) -> None:
    """Closes the connection without an answer."""
    handler.close_connection = True


def _head(handler: Handler, code: int, length: int, headers: dict[str, str] | None = None) -> None:
    handler.send_response(code)
    handler.send_header("Content-Type", "application/json")
    handler.send_header("Content-Length", str(length))
    for name, value in (headers or {}).items():
        handler.send_header(name, value)
    handler.end_headers()
    handler.wfile.flush()


def _send(
    handler: Handler, code: int, content: bytes, headers: dict[str, str] | None = None
) -> None:
    _head(handler, code, len(content), headers)
    handler.wfile.write(content)
