"""Conditions: whether a value counts as true, and what holds where that is not known."""

from __future__ import annotations

import ast
from collections.abc import Callable
from typing import Any

from engine.reading import expressions
from engine.reading.run import Run, merge
from engine.reading.values import (
    MISSING,
    Instance,
    Mapped,
    Maybe,
    Namespace,
    Ref,
    Scope,
    Sequence,
    Unknown,
    derived,
    is_constant,
    tags_of,
)


def truth(value: Any) -> bool | Maybe | None:
    """Whether a value counts as true; None if that is not known."""
    if isinstance(value, Maybe):
        return value
    if isinstance(value, Unknown):
        return False if value.none else None
    if isinstance(value, Mapped):
        return True if value.items else (None if value.open else False)
    if isinstance(value, Sequence):
        return True if value.items else (None if value.state["open"] else False)
    if isinstance(value, Instance) and value.cls.lookup("__bool__") is not MISSING:
        return None
    return bool(value) if is_constant(value) or isinstance(value, tuple) else True


def either(run: Run, condition: Any, first: Callable[[], Any], second: Callable[[], Any]) -> Any:
    """The value of one of two expressions, by a condition that may not be known."""
    found = truth(condition)
    if found is True:
        return first()
    if found is False:
        return second()
    before = run.snapshot()
    one = first()
    after_one = run.snapshot()
    run.restore(before)
    other = second()
    choose = chooser(condition)
    merge(run, after_one, run.snapshot(), choose)
    return one if one is other else choose(one, other)


def chooser(condition: Any, line: int = 0) -> Callable[[Any, Any], Any]:
    """How two values become one that hold on two sides of a condition: the likely one, the one
    that both agree on, else unknown."""

    def choose(first: Any, second: Any) -> Any:
        if isinstance(condition, Maybe):
            return first if condition.likely else second
        if first is second or (is_constant(first) and is_constant(second) and first == second):
            return first
        if isinstance(first, Ref) and first == second:
            return first
        where = f"a condition of line {line}" if line else "a condition"
        reason = f" ({condition.why})" if isinstance(condition, Unknown) else ""
        given = isinstance(condition, Unknown) and condition.given
        return Unknown(f"{where} decides{reason}", given, tags=tags_of(first, second))

    return choose


def boolean(node: ast.BoolOp, scope: Scope, run: Run) -> Any:
    stop = isinstance(node.op, ast.Or)
    value: Any = None
    for position, part in enumerate(node.values):
        value = expressions.value_of(part, scope, run)
        found = truth(value)
        if found is stop:
            return value
        last = position == len(node.values) - 1
        if isinstance(found, bool) or last:
            continue
        rest = node.values[position + 1 :]
        return _open_bool(node.op, value, rest, scope, run)
    return value


def _open_bool(op: ast.boolop, value: Any, rest: list[ast.expr], scope: Scope, run: Run) -> Any:
    """``value and ...`` or ``value or ...`` where the value's truth is not known."""
    others = [expressions.value_of(part, scope, run) for part in rest]
    truths = [truth(other) for other in others]
    stop = isinstance(op, ast.Or)
    if isinstance(value, Maybe):
        # Where the machine is what it likely is, the first value passes or settles it.
        return (
            value
            if value.likely is stop
            else others[-1]
            if len(others) == 1
            else derived("", *others)
        )
    if stop in [t for t in truths if isinstance(t, bool)] and not stop:
        return False
    return derived("a condition decides", value, *others)


def compare(node: ast.Compare, scope: Scope, run: Run) -> Any:
    left = expressions.value_of(node.left, scope, run)
    results: list[Any] = []
    for op, part in zip(node.ops, node.comparators, strict=True):
        right = expressions.value_of(part, scope, run)
        results.append(_compared(op, left, right, node))
        left = right
    if any(result is False for result in results):
        return False
    return next((r for r in results if r is not True), True)


def _compared(op: ast.cmpop, left: Any, right: Any, node: ast.AST) -> Any:
    if isinstance(op, ast.Is | ast.IsNot):
        same = _identical(left, right)
        return same if not isinstance(same, bool) or isinstance(op, ast.Is) else not same
    if isinstance(op, ast.In | ast.NotIn):
        inside = _contained(left, right)
        return inside if not isinstance(inside, bool) or isinstance(op, ast.In) else not inside
    if isinstance(left, Ref) and isinstance(right, Ref) and isinstance(op, ast.Eq | ast.NotEq):
        return (left == right) is isinstance(op, ast.Eq)
    if isinstance(left, Unknown) and left.none and isinstance(op, ast.Eq | ast.NotEq):
        return expressions.folded(expressions.OPERATORS[type(op)], (None, right), node)
    return expressions.folded(expressions.OPERATORS[type(op)], (left, right), node)


def _identical(left: Any, right: Any) -> Any:
    for one, other in ((left, right), (right, left)):
        if isinstance(one, Unknown):
            return True if one.none and other is None else derived("", one)
        if other is None:
            return one is None
    if is_constant(left) and is_constant(right):
        return left == right
    return left is right or (isinstance(left, Ref) and left == right)


def _contained(item: Any, container: Any) -> Any:
    if isinstance(container, Mapped) and is_constant(item):
        if item in container.items:
            return True
        return container.open or False
    if isinstance(container, Namespace) and isinstance(item, str):
        return item in container.state
    items = expressions.items_of(container)
    if isinstance(container, str) and isinstance(item, str):
        return item in container
    if items is None or not is_constant(item):
        return derived("what it holds is not known", item, container)
    if any(is_constant(other) and other == item for other in items):
        return True
    whole = all(is_constant(other) or isinstance(other, Ref) for other in items)
    closed = not (isinstance(container, Sequence) and container.state["open"])
    return False if whole and closed else Unknown("what a list holds is not known")
