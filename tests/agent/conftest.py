"""What the agent's tests share: a guard, so that none of them reaches another machine."""

from __future__ import annotations

import ipaddress
import socket
from typing import Any

import pytest

NAMES = ("", "localhost")


@pytest.fixture(autouse=True)
def only_this_machine(monkeypatch: pytest.MonkeyPatch) -> None:
    """Refuse every connection and every look-up that leaves this machine."""
    connect, look_up = socket.socket.connect, socket.getaddrinfo

    def checked(host: object) -> None:
        text = host.decode() if isinstance(host, bytes) else str(host or "")
        try:
            away = not ipaddress.ip_address(text).is_loopback
        except ValueError:
            away = text not in NAMES
        if away:
            raise AssertionError(f"a test tried to reach {text}")

    def guarded_connect(self: socket.socket, address: Any) -> None:
        if self.family in (socket.AF_INET, socket.AF_INET6):
            checked(address[0])
        connect(self, address)

    def guarded_look_up(host: Any, *args: Any, **rest: Any) -> Any:
        checked(host)
        return look_up(host, *args, **rest)

    monkeypatch.setattr(socket.socket, "connect", guarded_connect)
    monkeypatch.setattr(socket, "getaddrinfo", guarded_look_up)
    for name in ("HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "OPENAI_BASE_URL"):
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.lower(), raising=False)
