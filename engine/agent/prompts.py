"""What a model is told: the templates of ``prompts/``, a greatest length, and quoted material.

A template has two blocks, ``system`` and ``user``. A prompt that would be too long loses its least
useful parts first. What a program printed or says in its comments is material and never an
instruction: it is cut, freed of control characters, and set off line by line.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from engine.agent.llm import Message, Role

if TYPE_CHECKING:
    from jinja2 import Environment

FOLDER = Path(__file__).resolve().parents[2] / "prompts"
LIMITS: Mapping[Role, int] = {
    "planner": 30_000,
    "coder": 40_000,
    "debugger": 60_000,
    "reader": 8_000,
}
"""Most characters of a whole prompt; about four make a token. A debugger sees a whole program."""
TRIMMED: Mapping[Role, tuple[str, ...]] = {
    "planner": ("cards", "insights", "failures", "left_out", "trials", "refined"),
    "coder": ("template", "facts", "left"),
    "debugger": ("reflections", "traceback", "facts"),
    "reader": ("models", "techniques"),
}
"""Parts that may be shortened, the least useful first."""
LINE = 300
"""Most characters of one line of quoted material."""


@dataclass(frozen=True)
class Part:
    """A part of a prompt in several versions, the fullest first; the last one always fits."""

    versions: tuple[str, ...]


class TooLong(ValueError):
    """A prompt that is too long even with every part at its shortest: an error of ours."""


def prompt(
    role: Role, values: Mapping[str, Any], parts: Mapping[str, Part | str] | None = None
) -> tuple[Message, Message]:
    """The system's and the user's message of a role.

    ``values`` are what the template names; ``parts`` are texts among them that may be shortened.
    Raises TooLong where even the shortest versions exceed the role's limit, and jinja2's
    UndefinedError where the template names what is not there.
    """
    known = {n: p if isinstance(p, Part) else Part((p, "")) for n, p in (parts or {}).items()}
    chosen = dict.fromkeys(known, 0)
    while True:
        shown = {name: known[name].versions[version] for name, version in chosen.items()}
        messages = _rendered(role, {**values, **shown})
        if length(messages) <= LIMITS[role]:
            return messages
        shorter = _shorter(role, known, chosen)
        if shorter is None:
            raise TooLong(f"the {role}'s prompt has {length(messages)} characters at its shortest")
        chosen[shorter] += 1


def length(messages: Sequence[Message]) -> int:
    """Characters of a prompt."""
    return sum(len(message.text) for message in messages)


def _shorter(role: Role, parts: Mapping[str, Part], chosen: Mapping[str, int]) -> str | None:
    """The least useful part that can still be shortened."""
    able = [name for name in parts if chosen[name] + 1 < len(parts[name].versions)]
    order = TRIMMED[role]
    return min(able, key=lambda n: order.index(n) if n in order else len(order), default=None)


@cache
def _environment() -> Environment:
    from jinja2 import Environment, FileSystemLoader, StrictUndefined

    # The prompts are plain text: nothing is escaped for HTML.
    return Environment(
        loader=FileSystemLoader(FOLDER),
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=False,
    )


def _rendered(role: Role, values: Mapping[str, Any]) -> tuple[Message, Message]:
    template = _environment().get_template(f"{role}.md.jinja")

    def block(name: str) -> str:
        text = "".join(template.blocks[name](template.new_context(dict(values))))
        return _closed_up(text).strip()

    return Message("system", block("system")), Message("user", block("user"))


def _closed_up(text: str) -> str:
    """Without the gaps that empty parts leave. Fenced blocks stay as they are: a traceback counts
    a program's empty lines."""
    parts = re.split(r"(^```\w+\n.*?^```$)", text, flags=re.MULTILINE | re.DOTALL)
    return "".join(p if p.startswith("```") else re.sub(r"\n{3,}", "\n\n", p) for p in parts)


def quoted(text: str, lines: int = 60) -> str:
    """Foreign text as material: every line after a bar, so that none can end the quotation, pose
    as a heading or open a block; the middle of what is too long is left out."""
    clean = [_plain(line) for line in text.splitlines()]
    if len(clean) > lines:
        head, tail = lines // 3, lines - lines // 3 - 1
        left = len(clean) - head - tail
        clean = [*clean[:head], f"... {left} lines left out ...", *clean[-tail:]]
    return "\n".join(f"| {line}" for line in clean)


def one_line(text: str, most: int = LINE) -> str:
    """Foreign text on one line, without control characters and backquotes in a row."""
    return _plain(" ".join(text.split()), most)


def program_block(program: str) -> str:
    """A program for a fenced block, which nothing in it can close."""
    kept = "".join(c for c in program if c in "\n\t" or c.isprintable())
    return re.sub(r"`{3,}", "'''", kept).strip()


def _plain(line: str, most: int = LINE) -> str:
    # Colours and other sequences of a terminal, then what is left of control characters, which
    # include the marks that turn the direction of writing.
    line = re.sub(r"\x1b\[[0-9;?]*[ -/]*[@-~]", "", line).replace("\t", "    ")
    line = "".join(c for c in line if c.isprintable())
    line = re.sub(r"`{3,}", "'''", line)
    return line if len(line) <= most else line[: most - 3] + "..."


def steady(text: str) -> str:
    """A traceback without what differs from run to run: addresses, process numbers, temporary
    folders, seconds; the same failure is then the same question, and a recording answers it."""
    text = re.sub(r"0x[0-9a-fA-F]{4,}", "0x...", text)
    text = re.sub(r"\bpid[ =:]+\d+", "pid ...", text)
    text = re.sub(r"(?<![\w.])/(?:[\w.+~-]+/)*site-packages/", "", text)
    text = re.sub(r"(?<![\w.])/(?:[\w.+~-]+/)+(?=[\w.-]+)", ".../", text)
    return re.sub(r"\b\d+(?:\.\d+)? ?(?:s|ms|seconds)\b", "... s", text)
