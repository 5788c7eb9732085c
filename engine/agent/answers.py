"""The program, or the JSON value, in a reply that may hold prose around it."""

from __future__ import annotations

import ast
import json
import re
import textwrap
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, NoReturn

from engine.agent.llm import FormatFailure

_FENCE = re.compile(r"^(?P<indent>[ \t]*)(?P<ticks>`{3,}|~{3,})[ \t]*(?P<label>[^`\n]*)$")
_PYTHON = ("python", "py", "python3")
_STARTS = re.compile(r"(import|from|def|class|async def)\s|[@#]|\"\"\"|'''|[A-Z][A-Z0-9_]* *=")
"""How the first line of a program without a fence begins, as prose does not."""


@dataclass(frozen=True)
class _Block:
    label: str
    text: str


def code_of(text: str) -> str:
    """The one Python program of a reply; raises FormatFailure where there is none.

    Of several fenced blocks: those labelled python before others, of these the ones that parse
    before the ones that do not, of these the longest, and of equals the last, since a model shows
    fragments first and corrects itself later. A fence that is never closed ends with the reply.
    Without a fence the reply is the program, less the prose before and after it. The program may
    be wrong Python; to say so with its line is the reader's work.
    """
    text = _plain(text)
    blocks = [block for block in _blocks(text) if block.text.strip()]
    labelled = [block for block in blocks if block.label in _PYTHON]
    unlabelled = [block for block in blocks if block.label == ""]
    found = [block.text for block in labelled or unlabelled]
    if found:
        parsed = [code for code in found if _parses(code)]
        longest = max(len(code) for code in parsed or found)
        return [code for code in parsed or found if len(code) == longest][-1]
    bare = None if blocks else _unfenced(text)
    if bare is None:
        raise FormatFailure("the reply holds no Python program", text)
    return bare


def json_of(text: str) -> Any:
    """The one JSON value of a reply; raises FormatFailure where there is none or it ends early.

    The whole reply, else the last fenced block that is JSON, else the longest object or array in
    the prose. NaN and Infinity are refused: JSON has none.
    """
    text = _plain(text)
    blocks = [block.text for block in _blocks(text) if block.label in ("json", "json5", "")]
    for candidate in (text, *reversed(blocks)):
        try:
            return _loads(candidate)
        except ValueError:
            continue
    decoder = json.JSONDecoder(parse_constant=_no_constant)
    found: list[tuple[int, Any]] = []
    place, failure = 0, None
    while (match := re.compile(r"[{\[]").search(text, place)) is not None:
        try:
            value, place = decoder.raw_decode(text, match.start())
            found.append((place - match.start(), value))
        except ValueError as error:
            failure = failure or error
            place = match.end()
    # In cut off JSON the inner objects are whole; the outer one is what was meant.
    if found and not (failure and _open(text)):
        return max(found, key=lambda item: item[0])[1]
    raise FormatFailure(_json_fault(text, failure), text)


def _plain(text: str) -> str:
    """Without the thoughts that local models write in front, and with plain ends of lines."""
    text = text.replace("\r\n", "\n").lstrip("\ufeff")
    return re.sub(r"\A\s*<think>.*?</think>", "", text, flags=re.DOTALL)


def _blocks(text: str) -> Iterator[_Block]:
    """The fenced blocks. A fence inside a program's own text does not end it: the block goes on to
    the closing fence with which it parses, if there is one."""
    lines = text.split("\n")
    place = 0
    while place < len(lines):
        match = _FENCE.match(lines[place])
        place += 1
        if match is None:
            continue
        closings = [
            index
            for index in range(place, len(lines))
            if (end := _FENCE.match(lines[index])) is not None
            and not end["label"].strip()
            and end["ticks"].startswith(match["ticks"])
        ]
        label = (match["label"].split() or [""])[0].strip("{}.").lower()
        ends = closings[:1] or [len(lines)]
        if (
            label in (*_PYTHON, "")
            and len(closings) > 1
            and not _parses(_body(lines, place, ends[0]))
        ):
            ends = [end for end in closings if _parses(_body(lines, place, end))] or ends
        yield _Block(label, _body(lines, place, ends[0]))
        place = ends[0] + 1


def _body(lines: list[str], start: int, end: int) -> str:
    return textwrap.dedent("\n".join(lines[start:end])).strip("\n") + "\n"


def _parses(code: str) -> bool:
    try:
        ast.parse(code)
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        return False
    return True


def _unfenced(text: str) -> str | None:
    """A program without a fence: from the first line that looks like one, and up to the last line
    with which it parses."""
    lines = text.split("\n")
    start = next((i for i, line in enumerate(lines) if _STARTS.match(line)), None)
    if start is None:
        return None
    rest = lines[start:]
    kept = list(rest)
    while kept:
        try:
            ast.parse("\n".join(kept))
        except SyntaxError as error:
            # All that follows the first wrong line was prose, or the program is wrong there.
            kept = kept[: min((error.lineno or 1) - 1, len(kept) - 1)]
        except (ValueError, RecursionError, MemoryError):
            return None
        else:
            break
    whole = [line for line in rest[len(kept) :] if line.strip()]
    looks_like_code = any(re.match(r"\s+\S|\w+[.\w]*\(|[\w.]+ *=|return\b", line) for line in whole)
    code = rest if looks_like_code or not kept else kept
    if not any(re.match(r"(import|from|def|class|async def)\s", line) for line in code):
        return None
    return "\n".join(code).strip("\n") + "\n"


def _loads(text: str) -> Any:
    return json.loads(text, parse_constant=_no_constant)


def _no_constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is not JSON")


def _open(text: str) -> bool:
    """Whether the first object or array of a text is never closed."""
    depth, inside, escaped = 0, False, False
    start = re.search(r"[{\[]", text)
    for char in text[start.start() :] if start else "":
        if inside:
            escaped, inside = char == "\\" and not escaped, char != '"' or escaped
        elif char == '"':
            inside = True
        elif char in "{[":
            depth += 1
        elif char in "}]":
            depth -= 1
            if depth == 0:
                return False
    return depth > 0


def _json_fault(text: str, failure: Exception | None) -> str:
    if failure is None:
        return "the reply holds no JSON"
    if _open(text):
        return "the JSON ends early: its first bracket is never closed"
    return f"the reply holds no whole JSON: {failure}"
