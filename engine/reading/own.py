"""Functions of our own strategies, as the generator copies them into programs.

A program of ours calls ``deepcache_apply(pipe, CTX, interval=3, branch=0)``, and the function
stands in the same text. Its body is interpreted like any other; what it means for the technique is
then decided here, because several of them work by means that no library knows.
"""

from __future__ import annotations

import ast
import contextlib
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any

from engine.reading import Method
from engine.reading.run import Run
from engine.reading.values import Function, Model, Pipe, Scope

FOLDER = Path(__file__).resolve().parent.parent.parent / "strategies"
ROLES = ("load", "apply", "place", "call")
"""Functions whose call means that the technique is on; reset only cleans up."""
SEEN = ("deepcache", "tome")
"""Techniques that a library's own call switches on, so that the body itself must show it."""


@cache
def names() -> frozenset[str]:
    """The techniques of this checkout."""
    return frozenset(path.stem for path in FOLDER.glob("*.py") if path.stem != "__init__")


def technique(function: Function) -> tuple[str, str] | None:
    """The technique and the role of a copied function; None for any other."""
    name, _, role = function.name.rpartition("_")
    at_top = function.scope.parent is None
    return (name, role) if at_top and role in ROLES and name in names() else None


@contextlib.contextmanager
def entered(
    found: tuple[str, str] | None, function: Function, scope: Scope, line: int, run: Run
) -> Iterator[None]:
    """Around the body of a function of ours: other techniques that its code names do not count,
    its own does, unless the body does nothing."""
    if found is None:
        yield
        return
    name, role = found
    run.own.append(name)
    try:
        yield
    finally:
        _settle(name, role, function, scope, line, run)
        run.own.pop()


def _settle(name: str, role: str, function: Function, scope: Scope, line: int, run: Run) -> None:
    genes = {
        parameter.arg: scope.state.get(parameter.arg)
        for parameter in (*function.node.args.args[2:], *function.node.args.kwonlyargs)
    }
    pipe = next((v for v in scope.state.values() if isinstance(v, Pipe)), None)
    seen = _active(pipe, name) if name in SEEN else not _unapplied(pipe, name, role, function)
    if not _does_something(function) or not seen:
        run.mention(name, genes, line)
    elif role == "load":
        known = {k: v for k, v in genes.items() if isinstance(v, bool | int | float | str)}
        run.named.append(Method(name, known, line))
        run.loading = {**run.loading, name: Method(name, known, line)}
    elif pipe is not None:
        target = _holder(pipe, name)
        run.activate(target, name, genes, line)


def _holder(pipe: Pipe, name: str) -> Any:
    """The part of the pipeline on which a library has switched the technique on, else the pipe."""
    for part in pipe.state["parts"].values():
        if isinstance(part, Model) and name in part.state["active"]:
            return part
    return pipe


def _active(pipe: Pipe | None, name: str) -> bool:
    return pipe is not None and _holder(pipe, name) is not pipe


def _unapplied(pipe: Pipe | None, name: str, role: str, function: Function) -> bool:
    """Whether the keywords of a technique are passed while its change of the pipeline, which stands
    in the same text, was never made."""
    changes = f"{name}_apply" in function.scope.state
    made = pipe is not None and name in _holder(pipe, name).state["active"]
    return role == "call" and changes and not made


def _does_something(function: Function) -> bool:
    """Whether a body is more than a docstring, pass and leaving at once."""
    if isinstance(function.node, ast.Lambda):
        return True
    for node in function.node.body:
        if isinstance(node, ast.Pass):
            continue
        if isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant):
            continue
        if isinstance(node, ast.Raise):
            return False
        return not (isinstance(node, ast.Return) and _empty(node.value))
    return False


def _empty(value: ast.expr | None) -> bool:
    nothing = isinstance(value, ast.Dict) and not value.keys
    return value is None or nothing or isinstance(value, ast.Constant | ast.Name)
