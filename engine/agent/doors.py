"""Opens the door to a language model that the configuration names."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path

from engine.agent import calls
from engine.agent.backend import Backend, require
from engine.agent.budget import Budget
from engine.agent.keys import key_of, redacted
from engine.agent.llm import Model
from engine.agent.mailbox import Mailbox
from engine.agent.record import Record
from engine.agent.replay import Replay
from engine.agent.retry import Retry
from engine.agent.structured import Structured
from engine.console import say as say_on_console
from engine.errors import UsageError
from engine.schema import LlmConfig
from engine.strategy import Value


def door(config: LlmConfig, folder: Path, say: Callable[[str], None] = say_on_console) -> Model:
    """The model of ``config.llm``, with its recording in ``folder`` (a study's).

    From the outside in: the schema is checked and repaired; what is recorded is answered from the
    recording and the rest written to it; the budget is checked, so only for calls that are really
    sent; then comes the one layer of retries, and the provider. Sends nothing yet. Raises
    UsageError for missing packages, a missing key or recording, and for ``llm=offline``, which
    asks no model.
    """
    path = folder / calls.FILE
    recorded = calls.read(path)
    defaults: Mapping[str, Value] = {
        name: value
        for name, value in (
            ("temperature", config.temperature),
            ("max_tokens", config.max_tokens),
        )
        if value is not None
    }
    keys: tuple[str, ...] = ()
    source = "model"
    sender: Model
    if config.name == "offline":
        raise UsageError("llm=offline asks no language model; name one, such as llm=openai")
    if config.name == "replay":
        assert config.folder is not None
        sender = replay = Replay(Path(config.folder))
        defaults, source = replay.defaults, "replay"
    elif config.name == "mailbox":
        letters = Path(config.folder) if config.folder else folder / "mailbox"
        who = config.model or "person"
        read = {entry.reply.id for entry in recorded if entry.reply and entry.reply.id}
        sender = Retry(Mailbox(letters, who, read=read, say=say), 1, config.timeout_s)
    else:
        backend = Backend(config)
        keys = backend.keys
        backend.prices.write(folder)
        if config.budget.dollars is not None and backend.prices.snapshot()["price"] is None:
            say(
                f"the price of {backend.name} is unknown, so llm.budget.dollars cannot stop it; "
                "llm.budget.tokens can"
            )
        sender = Retry(backend, config.attempts, config.timeout_s)
    budget = Budget(sender, config.budget, calls.spent(recorded))
    hide = _hider(keys)
    return Structured(Record(budget, path, defaults, source=source, hide=hide))


def ready(config: LlmConfig) -> None:
    """Look for what ``door`` needs, before a study has measured anything: packages, key, recording.

    Raises UsageError for what is missing. Imports and sends nothing.
    """
    if config.name == "replay":
        assert config.folder is not None
        Replay(Path(config.folder))
    elif config.name not in ("offline", "mailbox"):
        require(config.name)
        key_of(config)


def _hider(keys: tuple[str, ...]) -> Callable[[str], str]:
    def hide(text: str) -> str:
        return redacted(text, keys)

    return hide
