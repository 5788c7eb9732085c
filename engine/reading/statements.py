"""What statements do: names that are bound, branches that are taken, loops, calls that end."""

from __future__ import annotations

import ast
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

from engine.reading import attributes, calls, conditions, expressions
from engine.reading.run import Run, merge
from engine.reading.values import (
    Class,
    Function,
    Made,
    Mapped,
    Maybe,
    Ref,
    Scope,
    Sequence,
    Unknown,
    derived,
    is_constant,
)

ROUNDS = 32
"""Of a loop; what a program does with its pipeline does not need more."""
DATA = ("dataclass", "define", "frozen", "attrs")
FIELDS = ("NamedTuple", "BaseModel", "BaseSettings", "Struct")
"""Bases whose classes are built from their annotations, as dataclasses are."""


class Stopped(Exception):
    """A context manager came to its yield: what follows runs when the block has ended."""


@dataclass(frozen=True)
class Signal:
    """How a block was left early: return, break, continue or raise."""

    kind: str
    value: Any = None


def execute(body: Iterable[ast.stmt], scope: Scope, run: Run) -> Signal | None:
    """Run statements in order; None if their end was reached."""
    for node in body:
        run.visit()
        signal = HANDLERS.get(type(node), _nothing)(node, scope, run)
        if signal is not None:
            return signal
    return None


def _nothing(node: ast.stmt, scope: Scope, run: Run) -> Signal | None:
    return None


def _expression(node: ast.Expr, scope: Scope, run: Run) -> Signal | None:
    value = expressions.value_of(node.value, scope, run)
    return value if isinstance(value, Signal) else None


def _import(node: ast.Import, scope: Scope, run: Run) -> Signal | None:
    for alias in node.names:
        if alias.asname:
            scope.put(alias.asname, Ref(alias.name))
        else:
            root = alias.name.partition(".")[0]
            scope.put(root, Ref(root))
    return None


def _import_from(node: ast.ImportFrom, scope: Scope, run: Run) -> Signal | None:
    module = "." * node.level + (node.module or "")
    for alias in node.names:
        if alias.name == "*":
            run.note(f"names: all of {module} are imported, line {node.lineno}")
        else:
            scope.put(alias.asname or alias.name, Ref(f"{module}.{alias.name}"))
    return None


def _assign(node: ast.Assign, scope: Scope, run: Run) -> Signal | None:
    value = expressions.value_of(node.value, scope, run)
    if isinstance(value, Signal):
        return value
    for target in node.targets:
        assign(target, value, scope, run)
    return None


def _annotated(node: ast.AnnAssign, scope: Scope, run: Run) -> Signal | None:
    if node.value is None:
        return None
    value = expressions.value_of(node.value, scope, run)
    if isinstance(value, Signal):
        return value
    assign(node.target, value, scope, run)
    return None


def _augmented(node: ast.AugAssign, scope: Scope, run: Run) -> Signal | None:
    left = expressions.value_of(node.target, scope, run)
    right = expressions.value_of(node.value, scope, run)
    if isinstance(left, Mapped) and isinstance(node.op, ast.BitOr):
        left.update(right)
        return None
    if isinstance(left, Sequence) and isinstance(node.op, ast.Add):
        items = expressions.items_of(right)
        left.state["items"] = (*left.items, *(items or ()))
        return None
    function = expressions.OPERATORS.get(type(node.op))
    value = Unknown() if function is None else expressions.folded(function, (left, right), node)
    assign(node.target, value, scope, run)
    return None


def assign(target: ast.expr, value: Any, scope: Scope, run: Run) -> None:
    """Bind a name, an attribute, an item or several of them."""
    if isinstance(target, ast.Name):
        scope.put(target.id, value)
    elif isinstance(target, ast.Attribute):
        owner = expressions.value_of(target.value, scope, run)
        attributes.put(owner, target.attr, value, target, run)
    elif isinstance(target, ast.Subscript):
        owner = expressions.value_of(target.value, scope, run)
        attributes.put_item(
            owner, expressions.value_of(target.slice, scope, run), value, target, run
        )
    elif isinstance(target, ast.Starred):
        assign(target.value, value, scope, run)
    elif isinstance(target, ast.Tuple | ast.List):
        _unpack(target.elts, value, scope, run)


def _unpack(targets: list[ast.expr], value: Any, scope: Scope, run: Run) -> None:
    items = expressions.items_of(value)
    star = next((i for i, t in enumerate(targets) if isinstance(t, ast.Starred)), None)
    if items is not None and star is not None:
        tail = len(targets) - star - 1
        middle = Sequence(items[star : len(items) - tail])
        items = [*items[:star], middle, *items[len(items) - tail :]]
    for place, target in enumerate(targets):
        known = items is not None and place < len(items)
        assign(target, items[place] if known and items else derived("", value), scope, run)


def _delete(node: ast.Delete, scope: Scope, run: Run) -> Signal | None:
    for target in node.targets:
        if isinstance(target, ast.Name):
            scope.state.pop(target.id, None)
    return None


def _if(node: ast.If, scope: Scope, run: Run) -> Signal | None:
    condition = expressions.value_of(node.test, scope, run)
    return branch(
        condition,
        lambda: execute(node.body, scope, run),
        lambda: execute(node.orelse, scope, run),
        run,
        node.lineno,
    )


Block = Callable[[], Signal | None]


def branch(condition: Any, first: Block, second: Block, run: Run, line: int) -> Signal | None:
    """One of two blocks; both where it is not known which, and then what holds after either."""
    found = conditions.truth(condition)
    if isinstance(found, bool):
        return first() if found else second()
    before = run.snapshot()
    one = first()
    after_one = run.snapshot()
    run.restore(before)
    other = second()
    after_other = run.snapshot()
    choose = conditions.chooser(condition, line)
    if isinstance(condition, Maybe):
        merge(run, after_one, after_other, choose)
        return one if condition.likely else other
    left = [signal for signal in (one, other) if signal is not None]
    if not left:
        merge(run, after_one, after_other, choose)
        return None
    if len(left) == 2:
        merge(run, after_one, after_other, choose)
        return _both(one, other, choose, run)
    # Only one side goes on: its state holds, with the methods of the other side beside it.
    stays, gone = (after_other, after_one) if one is not None else (after_one, after_other)
    if left[0].kind == "raise":
        run.restore(stays)
    else:
        merge(run, stays, gone, lambda kept, _: kept)
    if left[0].kind == "return" and run.frames:
        run.frames[-1].returned.append(left[0].value)
    return None


def _both(
    one: Signal | None, other: Signal | None, choose: Callable[[Any, Any], Any], run: Run
) -> Signal | None:
    assert one is not None
    assert other is not None
    if one.kind == "raise" or other.kind == "raise":
        return other if one.kind == "raise" else one
    if one.kind == other.kind == "return":
        return Signal("return", choose(one.value, other.value))
    return one if one.kind == "return" else other


def _for(node: ast.For | ast.AsyncFor, scope: Scope, run: Run) -> Signal | None:
    values = expressions.value_of(node.iter, scope, run)
    items = expressions.items_of(values)
    if items is None or (not items and isinstance(values, Sequence) and values.state["open"]):
        items = [derived(f"what line {node.lineno} goes through is not known", values)]
    for item in items[:ROUNDS]:
        assign(node.target, item, scope, run)
        signal = execute(node.body, scope, run)
        if signal is not None and signal.kind == "break":
            return None
        if signal is not None and signal.kind != "continue":
            return signal
    return execute(node.orelse, scope, run)


def _while(node: ast.While, scope: Scope, run: Run) -> Signal | None:
    for _ in range(ROUNDS):
        found = conditions.truth(expressions.value_of(node.test, scope, run))
        if found is False:
            return execute(node.orelse, scope, run)
        signal = execute(node.body, scope, run)
        if signal is not None and signal.kind == "break":
            return None
        if signal is not None and signal.kind != "continue":
            return signal
        if found is not True:
            return None
    return None


def _try(node: ast.Try, scope: Scope, run: Run) -> Signal | None:
    signal = execute(node.body, scope, run)
    if signal is not None and signal.kind == "raise":
        signal = execute(node.handlers[0].body, scope, run) if node.handlers else signal
    elif signal is None:
        signal = execute(node.orelse, scope, run)
    final = execute(node.finalbody, scope, run)
    return final or signal


def _with(node: ast.With | ast.AsyncWith, scope: Scope, run: Run) -> Signal | None:
    count = len(run.contexts)
    try:
        for item in node.items:
            value = expressions.value_of(item.context_expr, scope, run)
            run.contexts.append(value)
            if item.optional_vars is not None:
                assign(item.optional_vars, calls.entered(value, node, run), scope, run)
            else:
                calls.entered(value, node, run)
        return execute(node.body, scope, run)
    finally:
        del run.contexts[count:]


def _return(node: ast.Return, scope: Scope, run: Run) -> Signal | None:
    value = None if node.value is None else expressions.value_of(node.value, scope, run)
    return value if isinstance(value, Signal) else Signal("return", value)


def _raise(node: ast.Raise, scope: Scope, run: Run) -> Signal | None:
    return Signal("raise")


def _break(node: ast.Break | ast.Continue, scope: Scope, run: Run) -> Signal | None:
    return Signal("break" if isinstance(node, ast.Break) else "continue")


def _assert(node: ast.Assert, scope: Scope, run: Run) -> Signal | None:
    found = conditions.truth(expressions.value_of(node.test, scope, run))
    return Signal("raise") if found is False else None


def _global(node: ast.Global | ast.Nonlocal, scope: Scope, run: Run) -> Signal | None:
    for name in node.names:
        place: Scope | None = scope.module
        if isinstance(node, ast.Nonlocal):
            place = scope.parent.find(name) if scope.parent else None
        if place is not None and place is not scope:
            scope.outer[name] = place
    return None


def _match(node: ast.Match, scope: Scope, run: Run) -> Signal | None:
    subject = expressions.value_of(node.subject, scope, run)

    def cases(rest: list[ast.match_case]) -> Signal | None:
        if not rest:
            return None
        fits = _fits(rest[0].pattern, subject, scope, run)
        if rest[0].guard is not None and fits is not False:
            fits = expressions.value_of(rest[0].guard, scope, run)
        return branch(
            fits,
            lambda: execute(rest[0].body, scope, run),
            lambda: cases(rest[1:]),
            run,
            node.lineno,
        )

    return cases(node.cases)


def _fits(pattern: ast.pattern, subject: Any, scope: Scope, run: Run) -> Any:
    """Whether a value matches a pattern; Unknown for patterns that take things apart."""
    if isinstance(pattern, ast.MatchValue):
        wanted = expressions.value_of(pattern.value, scope, run)
        if is_constant(wanted) and is_constant(subject):
            return wanted == subject
    elif isinstance(pattern, ast.MatchSingleton) and is_constant(subject):
        return subject is pattern.value
    elif isinstance(pattern, ast.MatchOr):
        found = [_fits(part, subject, scope, run) for part in pattern.patterns]
        return True if True in found else next((f for f in found if f is not False), False)
    elif isinstance(pattern, ast.MatchAs):
        fits = True if pattern.pattern is None else _fits(pattern.pattern, subject, scope, run)
        if pattern.name:
            scope.put(pattern.name, subject)
        return fits
    return derived("a pattern decides", subject)


def defaults_of(arguments: ast.arguments, scope: Scope, run: Run) -> dict[str, Any]:
    """The defaults of parameters, computed where the function is defined."""
    places = [*arguments.posonlyargs, *arguments.args]
    found = {}
    for parameter, node in zip(reversed(places), reversed(arguments.defaults), strict=False):
        found[parameter.arg] = expressions.value_of(node, scope, run)
    for parameter, default in zip(arguments.kwonlyargs, arguments.kw_defaults, strict=True):
        if default is not None:
            found[parameter.arg] = expressions.value_of(default, scope, run)
    return found


def _function(
    node: ast.FunctionDef | ast.AsyncFunctionDef, scope: Scope, run: Run
) -> Signal | None:
    defaults = defaults_of(node.args, scope, run)
    owner = scope.state.get("__class__")
    made: Any = Function(node.name, node, scope, defaults, owner=owner)
    for decorator in reversed(node.decorator_list):
        value = expressions.value_of(decorator, scope, run)
        made = calls.decorated(made, value, decorator, run)
    scope.put(node.name, made)
    return None


def _class(node: ast.ClassDef, scope: Scope, run: Run) -> Signal | None:
    bases = tuple(expressions.value_of(base, scope, run) for base in node.bases)
    body = Scope(scope, is_class=True)
    decorators = [expressions.value_of(d, scope, run) for d in node.decorator_list]
    refs = [d.ref if isinstance(d, Made) else d for d in decorators]
    is_data = any(isinstance(ref, Ref) and ref.leaf in DATA for ref in refs)
    is_data |= any(isinstance(base, Ref) and base.leaf in FIELDS for base in bases)
    inherited = [base for base in bases if isinstance(base, Class)]
    is_data |= any(base.is_data for base in inherited)
    fields = [name for base in inherited for name in base.fields]
    fields += [
        part.target.id
        for part in node.body
        if isinstance(part, ast.AnnAssign) and isinstance(part.target, ast.Name)
    ]
    cls = Class(node.name, body, bases, is_data, tuple(dict.fromkeys(fields)))
    body.state["__class__"] = cls
    execute(node.body, body, run)
    scope.put(node.name, cls)
    return None


HANDLERS: dict[type[ast.AST], Callable[..., Signal | None]] = {
    ast.Expr: _expression, ast.Import: _import, ast.ImportFrom: _import_from,
    ast.Assign: _assign, ast.AnnAssign: _annotated, ast.AugAssign: _augmented,
    ast.Delete: _delete, ast.If: _if, ast.For: _for, ast.AsyncFor: _for, ast.While: _while,
    ast.Try: _try, ast.TryStar: _try, ast.With: _with, ast.AsyncWith: _with,
    ast.Return: _return, ast.Raise: _raise, ast.Break: _break, ast.Continue: _break,
    ast.Assert: _assert, ast.Global: _global, ast.Nonlocal: _global, ast.Match: _match,
    ast.FunctionDef: _function, ast.AsyncFunctionDef: _function, ast.ClassDef: _class,
}  # fmt: skip
