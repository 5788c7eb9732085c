"""What a language model's configuration must say before anything is asked."""

from __future__ import annotations

import re
from urllib.parse import urlsplit

from engine.errors import UsageError
from engine.schema import LlmConfig

APIS = ("openai", "anthropic", "google", "openrouter", "vllm", "ollama")
"""The doors that send requests over a network, or to a server on this machine."""


def settled(config: LlmConfig) -> LlmConfig:
    """The configuration, checked; raises UsageError. No message repeats what may hold a key."""
    _check_key_name(config.api_key_env)
    _check_address(config.base_url)
    if config.name in APIS:
        if config.model is None:
            raise UsageError(f"llm={config.name} needs the name of a model; type llm.model=NAME")
        if config.timeout_s is None:
            raise UsageError(
                "llm.timeout_s=null is for llm=mailbox only; type the seconds that one request "
                "may take, such as llm.timeout_s=300"
            )
    if config.name == "replay" and config.folder is None:
        raise UsageError(
            "llm=replay needs a recording; type llm.folder=FOLDER of a study that holds calls.jsonl"
        )
    return config


def check_override(key: str, value: object) -> None:
    """Refuse a key or a password in an override before Hydra stores it; raises UsageError."""
    if key == "llm.api_key_env" and isinstance(value, str):
        _check_key_name(value)
    elif key == "llm.base_url" and isinstance(value, str):
        _check_address(value)


def _check_key_name(name: str | None) -> None:
    # Keys have lower-case letters, names of variables here have none: so a pasted key is noticed.
    if name is not None and not re.fullmatch(r"[A-Z_][A-Z0-9_]*", name):
        raise UsageError(
            "llm.api_key_env takes the NAME of an environment variable in capitals, such as "
            "OPENAI_API_KEY, never the key itself; set the key in the environment"
        )


def _check_address(address: str | None) -> None:
    if address is None:
        return
    parts = urlsplit(address)
    if parts.username or parts.password or parts.query or parts.fragment:
        raise UsageError(
            "llm.base_url must hold no user, password or query, since configurations are stored; "
            "put the key in an environment variable and name it in llm.api_key_env"
        )
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise UsageError(
            f"llm.base_url={address!r} is no address; it looks like http://localhost:8000/v1"
        )
