"""Small edits of a generated program's text, by the names that ``engine.program`` gives.

What is read here is the text alone; a None says that the text has no such place.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Mapping
from typing import Any

METHODS = ("deepcache", "tome", "tgate")
"""The methods that requests name; samplers and precisions are attributes of their own."""
NAMES = {
    "deepcache": r"deep ?cache",
    "tome": r"\btome|token merging",
    "tgate": r"t-?gate",
}
"""How a reason may spell them."""


def parses(text: str) -> bool:
    """Whether it is Python."""
    try:
        ast.parse(text)
    except SyntaxError:
        return False
    return True


def function_at(text: str, line: int) -> str | None:
    """The top-level function around a line (from 1); None outside of any, or in a class."""
    lines = text.split("\n")
    for number in range(min(line, len(lines)), 0, -1):
        found = re.match(r"(?:def|class) (\w+)", lines[number - 1])
        if found:
            return found[1]
        # What stands at the margin ended the function, unless it closes its signature.
        if number != line and re.match(r"[^\s)#]", lines[number - 1]):
            return None
        if number == line and re.match(r"[^\s)]", lines[number - 1]):
            return None
    return None


def with_import(text: str, statement: str, function: str | None) -> str:
    """With an import at the head of a function, or at the head of the file."""
    if function is not None:
        pattern = rf"(^def {function}\((?:.|\n)*?\) -> [^\n]*:\n(?:    \"\"\"(?:.|\n)*?\"\"\"\n)?)"
        changed, count = re.subn(
            pattern, lambda m: f"{m[1]}    {statement}\n", text, count=1, flags=re.M
        )
        if count and changed != text:
            return changed
    head = "from __future__ import annotations\n"
    return text.replace(head, f"{head}\n{statement}\n", 1)


def pipeline_class(text: str) -> str | None:
    found = re.search(r"\b(\w+Pipeline)\.from_(?:pretrained|single_file)\(", text)
    return found[1] if found else None


def solvers(text: str) -> dict[str, str]:
    """The sampler names that the program knows, to the scheduler's class."""
    return dict(re.findall(r'^    "(\w+)": \(\s*"(\w+Scheduler)"', text, re.M))


def solver(text: str) -> str | None:
    found = re.search(r"^    sampler_apply\(pipe, CTX, name='(\w+)'", text, re.M)
    return found[1] if found else None


def with_solver(text: str, name: str) -> str:
    return re.sub(r"(sampler_(?:apply|call)\(pipe, CTX, name=)'\w+'", rf"\1'{name}'", text)


def steps(text: str) -> int | None:
    """Steps of the sampler, else those of the model."""
    found = re.search(r"sampler_apply\(pipe, CTX, .*?steps=(\d+)", text) or re.search(
        r"^    steps=(\d+),$", text, re.M
    )
    return int(found[1]) if found else None


def with_steps(text: str, count: int) -> str:
    text = re.sub(r"(?m)^    steps=\d+,$", f"    steps={count},", text)
    return re.sub(r"(sampler_(?:apply|call)\(pipe, CTX, [^)\n]*?steps=)\d+", rf"\g<1>{count}", text)


def gene(text: str, method: str, name: str) -> str | None:
    """A method's parameter as it stands in the calls."""
    found = re.search(rf"{method}_apply\(pipe, CTX, [^\n]*?\b{name}=([\w.']+)", text)
    return found[1] if found else None


def with_gene(text: str, method: str, name: str, value: str) -> str:
    pattern = rf"({method}_(?:apply|call)\(pipe, CTX, [^\n]*?\b{name}=)[\w.']+"
    return re.sub(pattern, rf"\g<1>{value}", text)


def dtype(text: str) -> str | None:
    found = re.search(r"(?m)^    dtype='(\w+)',$", text)
    return found[1] if found else None


def with_dtype(text: str, value: str) -> str | None:
    changed = re.sub(r"(?m)^    dtype='\w+',$", f"    dtype='{value}',", text)
    return changed if changed != text else None


def _calls(method: str) -> str:
    """A pattern for the statements that call a method's functions."""
    simple = rf"    {method}_(?:apply|reset)\(pipe[^\n]*\)\n"
    merged = (
        rf"    options = _merged\(\n        options,\n        {method}_call\([^\n]*\n"
        rf'        "{method}",\n    \)\n'
    )
    return f"^(?:{simple}|{merged})"


def is_used(text: str, method: str) -> bool:
    """Whether the program calls it where it runs."""
    return re.search(rf"^    {method}_apply\(pipe", text, re.M) is not None


def is_called(text: str, method: str) -> bool:
    """Whether the program calls it anywhere, in code that runs or not."""
    return re.search(rf"^ +{method}_apply\(pipe", text, re.M) is not None


def without_calls(text: str, method: str) -> str:
    return re.sub(_calls(method), "", text, flags=re.M)


def with_calls(text: str, method: str, genes: Mapping[str, Any]) -> str | None:
    """With the calls of a method that the program defines, behind those of the methods that it
    defines earlier; None where it does not define it."""
    if f"def {method}_apply(" not in text:
        return None
    given = "".join(f", {name}={value!r}" for name, value in genes.items())
    before = re.findall(r"^# --- (\w+) ---$", text.partition(f"# --- {method} ---")[0], re.M)
    text = _behind(
        text, before, "apply", f"    {method}_apply(pipe, CTX{given})\n",
        "    pipe._accelerated = True\n",
    )  # fmt: skip
    if f"def {method}_reset(" in text:
        head = 'call accelerate(pipe) before generate")\n'
        text = _behind(text, before, "reset", f"    {method}_reset(pipe)\n", head)
    if f"def {method}_call(" in text:
        block = (
            f"    options = _merged(\n        options,\n        {method}_call(pipe, CTX{given}),\n"
            f'        "{method}",\n    )\n'
        )
        text = _behind(text, before, "call", block, "    options: dict[str, Any] = {}\n", last=True)
    return text


def _behind(
    text: str, before: list[str], what: str, lines: str, head: str, last: bool = False
) -> str:
    """``lines`` behind the last statement of an earlier method, or behind ``head``."""
    ends = [
        match.end()
        for name in before
        for match in re.finditer(_calls(name), text, re.M)
        if f"{name}_{what}(" in match[0]
    ]
    where = max(ends, default=(text.rindex(head) if last else text.index(head)) + len(head))
    return text[:where] + lines + text[where:]


def buried(text: str, method: str) -> str:
    """With every call of a method under ``if False``."""

    def under(match: re.Match[str]) -> str:
        inner = "".join(f"    {line}\n" for line in match[0].splitlines())
        return f"    if False:\n{inner}"

    return re.sub(_calls(method), under, text, flags=re.M)


_DEAD = r"^    if False:\n((?:        [^\n]*\n)+)"


def is_buried(text: str, method: str) -> bool:
    return any(f"{method}_apply(" in match[1] for match in re.finditer(_DEAD, text, re.M))


def unburied(text: str, method: str) -> str:
    def out(match: re.Match[str]) -> str:
        if not re.search(rf"\b{method}_", match[1]):
            return match[0]
        return "".join(f"{line[4:]}\n" for line in match[1].splitlines())

    return re.sub(_DEAD, out, text, flags=re.M)


_IDLE = (
    r"dead|never|not active|inactive|missing|not found|no effect|not used|unused|absent|none of"
    r"|does not (?:act|run|take)|did not (?:act|run|take)|found none|found nothing|left out"
    r"|did nothing|disabled|lacks|without effect|not (?:there|seen|applied|in the program)"
)


def idle_named(reason: str, method: str) -> bool:
    """Whether one sentence of the reason says that this method does nothing or is not there."""
    for sentence in re.split(r"[;\n]|\. ", reason):
        if re.search(NAMES[method], sentence, re.I) and re.search(_IDLE, sentence, re.I):
            return True
    return False
