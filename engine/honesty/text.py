"""What the text of a program shows, and how what it says is passed on."""

from __future__ import annotations

import ast
from collections.abc import Sequence

from engine.errors import printable


def catches_everything(text: str) -> bool:
    """Whether a program has an ``except`` for every error that does not raise again."""
    try:
        tree = ast.parse(text)
    except (SyntaxError, ValueError, RecursionError):
        return False
    for node in ast.walk(tree):
        if isinstance(node, ast.ExceptHandler):
            broad = node.type is None or (
                isinstance(node.type, ast.Name) and node.type.id in ("Exception", "BaseException")
            )
            if broad and not any(isinstance(inner, ast.Raise) for inner in ast.walk(node)):
                return True
        if isinstance(node, ast.Call) and _called(node) in ("suppress", "contextlib.suppress"):
            names = {a.id for a in node.args if isinstance(a, ast.Name)}
            if names & {"Exception", "BaseException"}:
                return True
    return False


UNUSUAL = {
    "ctypes": "calls the system's libraries",
    "subprocess": "starts processes",
    "multiprocessing": "starts processes",
    "socket": "opens sockets",
    "requests": "uses the network",
    "urllib": "uses the network",
    "threading": "starts threads",
    "gc": "walks the interpreter's objects",
    "signal": "handles signals",
    "pickle": "reads pickles",
    "importlib": "imports by name",
}
"""Modules that a program of this kind hardly needs, and what they do."""
CALLS = ("eval", "exec", "os.system", "os.fork", "os.popen", "os.kill", "__import__", "setattr")


def lint(text: str) -> tuple[str, ...]:
    """What is unusual in a program, one sentence each, with its line. A warning for a reader and no
    protection: that is the sandbox."""
    try:
        tree = ast.parse(text)
    except (SyntaxError, ValueError, RecursionError):
        return ()
    found: dict[str, None] = {}
    for node in ast.walk(tree):
        names: Sequence[str] = ()
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            names = [node.module or ""]
        for name in names:
            root = name.partition(".")[0]
            if root in UNUSUAL:
                found[f"line {getattr(node, 'lineno', 0)}: imports {root}, {UNUSUAL[root]}"] = None
        if isinstance(node, ast.Call) and _called(node) in CALLS:
            found[f"line {node.lineno}: calls {_called(node)}"] = None
    if catches_everything(text):
        found["it catches every error somewhere and goes on"] = None
    return tuple(found)


def _called(node: ast.Call) -> str:
    """The name of what is called, as written; empty for anything but a name."""
    try:
        return ast.unparse(node.func) if isinstance(node.func, ast.Name | ast.Attribute) else ""
    except RecursionError:
        return ""


def quoted(text: str, limit: int = 300) -> str:
    """What a program said, as data for a person or a model: without control characters, on one
    line, between quotes and not longer than ``limit`` characters."""
    plain = " ".join(printable(text, 10 * limit).split())
    if len(plain) > limit:
        plain = plain[: limit - 3] + "..."
    return '"' + plain.replace("\\", "\\\\").replace('"', '\\"') + '"'


def by(numbers: Sequence[int]) -> str:
    """Sides in words, such as 64 x 64."""
    return " x ".join(map(str, numbers))
