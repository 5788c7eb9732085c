"""Keys of APIs: read from the environment, and kept out of everything that is written."""

from __future__ import annotations

import os
from collections.abc import Iterable
from urllib.parse import quote

from engine.errors import UsageError
from engine.schema import LlmConfig

HIDDEN = "[key]"


def key_of(config: LlmConfig) -> str | None:
    """The key that ``llm.api_key_env`` names, None where it names none; raises UsageError where the
    environment does not hold it."""
    if config.api_key_env is None:
        return None
    key = os.environ.get(config.api_key_env, "").strip()
    if not key:
        raise UsageError(
            f"llm={config.name} needs a key, and the environment variable {config.api_key_env} is "
            f"not set; set it (export {config.api_key_env}=...), name another with "
            "llm.api_key_env=NAME, or type llm=offline"
        )
    return key


def redacted(text: str, keys: Iterable[str]) -> str:
    """The text without the keys, also where an address or JSON holds them in its own spelling."""
    for key in keys:
        for spelling in {key, quote(key), quote(key, safe=""), key.replace('"', '\\"')}:
            text = text.replace(spelling, HIDDEN)
    return text
