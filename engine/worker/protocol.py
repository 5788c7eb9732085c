"""Messages between coordinator and worker: a length-prefixed JSON header, then bytes.

Never pickle: what a worker sends is data. ``multiprocessing.connection`` frames the messages on
every platform; only its byte calls are used.
"""

from __future__ import annotations

import json
import struct
from multiprocessing.connection import Connection
from typing import Any

MAX_MESSAGE = 512 * 2**20
_LENGTH = struct.Struct("<I")


class ProtocolError(Exception):
    """The other side sent something that is no message."""


def send(connection: Connection[Any, Any], header: dict[str, Any], payload: bytes = b"") -> None:
    text = json.dumps(header).encode()
    connection.send_bytes(_LENGTH.pack(len(text)) + text + payload)


def receive(connection: Connection[Any, Any]) -> tuple[dict[str, Any], memoryview]:
    """The next message; raises EOFError when the other side is gone."""
    message = memoryview(connection.recv_bytes(MAX_MESSAGE))
    try:
        (length,) = _LENGTH.unpack(message[: _LENGTH.size])
        start = _LENGTH.size
        header = json.loads(bytes(message[start : start + length]))
    except (struct.error, ValueError) as error:
        raise ProtocolError(f"not a message: {error}") from error
    if not isinstance(header, dict):
        raise ProtocolError("the header is no object")
    return header, message[start + length :]
