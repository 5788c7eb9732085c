"""The value of an expression, as far as the text tells it."""

from __future__ import annotations

import ast
import builtins
import operator
import re
from collections.abc import Callable, Iterator
from typing import Any

from engine.reading import attributes, calls, conditions, statements
from engine.reading.run import Run
from engine.reading.values import (
    Function,
    Mapped,
    Maybe,
    Ref,
    Scope,
    Sequence,
    Super,
    Unknown,
    derived,
    is_constant,
)

LONGEST = 100_000
"""Characters or items of a folded constant."""
LARGEST = 10**18
WIDE = re.compile(r"\d{5,}")
"""A width in a format that would make a text of a size that nobody needs."""
CONVERSIONS: dict[int, Callable[[Any], Any]] = {114: repr, 115: str, 97: ascii}
"""What !r, !s and !a in an f-string do."""
OPERATORS: dict[type[ast.AST], Callable[..., Any]] = {
    ast.Add: operator.add, ast.Sub: operator.sub, ast.Mult: operator.mul,
    ast.Div: operator.truediv, ast.FloorDiv: operator.floordiv, ast.Mod: operator.mod,
    ast.Pow: operator.pow, ast.BitOr: operator.or_, ast.BitAnd: operator.and_,
    ast.BitXor: operator.xor, ast.LShift: operator.lshift, ast.RShift: operator.rshift,
    ast.Eq: operator.eq, ast.NotEq: operator.ne, ast.Lt: operator.lt, ast.LtE: operator.le,
    ast.Gt: operator.gt, ast.GtE: operator.ge, ast.UAdd: operator.pos, ast.USub: operator.neg,
    ast.Invert: operator.invert,
}  # fmt: skip


def value_of(node: ast.expr, scope: Scope, run: Run) -> Any:
    """The value of any expression; Unknown for those that only a run would tell."""
    run.visit()
    handler = HANDLERS.get(type(node))
    if handler is None:
        return Unknown(f"what line {node.lineno} computes is not read")
    return handler(node, scope, run)


def _constant(node: ast.Constant, scope: Scope, run: Run) -> Any:
    return node.value


def _name(node: ast.Name, scope: Scope, run: Run) -> Any:
    found = scope.find(node.id)
    if found is not None:
        return found.state[node.id]
    if hasattr(builtins, node.id):
        return Ref(f"builtins.{node.id}")
    return Unknown(f"{node.id} is defined nowhere, line {node.lineno}")


def _attribute(node: ast.Attribute, scope: Scope, run: Run) -> Any:
    return attributes.get(value_of(node.value, scope, run), node.attr, node, run)


def _call(node: ast.Call, scope: Scope, run: Run) -> Any:
    callee = value_of(node.func, scope, run)
    if callee == Ref("builtins.super") and not node.args:
        return _super(scope)
    args: list[Any] = []
    keywords = Mapped()
    for argument in node.args:
        if isinstance(argument, ast.Starred):
            items = items_of(value_of(argument.value, scope, run))
            args += items if items is not None else []
            if items is None:
                keywords.update(Unknown(f"the arguments of line {node.lineno} are not known"))
        else:
            args.append(value_of(argument, scope, run))
    for keyword in node.keywords:
        value = value_of(keyword.value, scope, run)
        if keyword.arg is None:
            keywords.update(value)
        else:
            keywords.put(keyword.arg, value)
    run.reached.add(id(node))
    return calls.call(callee, tuple(args), keywords, node, run)


def _super(scope: Scope) -> Any:
    """What ``super()`` means in the method around."""
    cls, this = scope.find("__class__"), scope.find("__self__")
    if cls is None or this is None:
        return Unknown("super() outside of a method")
    return Super(cls.state["__class__"], this.state["__self__"])


def items_of(value: Any) -> list[Any] | None:
    """The items of what can be iterated, None if they are not known."""
    if isinstance(value, Sequence):
        return list(value.items)
    if isinstance(value, Mapped):
        return list(value.items)
    if isinstance(value, tuple | str):
        return list(value)[:LONGEST]
    return None


def _unary(node: ast.UnaryOp, scope: Scope, run: Run) -> Any:
    value = value_of(node.operand, scope, run)
    if isinstance(node.op, ast.Not):
        found = conditions.truth(value)
        if isinstance(found, Maybe):
            return Maybe(not found.likely)
        return derived("not known", value) if found is None else not found
    return folded(OPERATORS[type(node.op)], (value,), node)


def _binary(node: ast.BinOp, scope: Scope, run: Run) -> Any:
    left, right = value_of(node.left, scope, run), value_of(node.right, scope, run)
    if isinstance(node.op, ast.BitOr) and isinstance(left, Mapped):
        merged = Mapped(left.items, left.open)
        merged.update(right)
        return merged
    if isinstance(node.op, ast.Add) and isinstance(left, Sequence) and isinstance(right, Sequence):
        return Sequence([*left.items, *right.items])
    if isinstance(node.op, ast.Mult):
        for items, count in ((left, right), (right, left)):
            if isinstance(items, Sequence) and isinstance(count, int):
                return Sequence(items.items * min(max(count, 0), 100))
    if type(node.op) not in OPERATORS:
        return derived(f"what line {node.lineno} computes is not read", left, right)
    return folded(OPERATORS[type(node.op)], (left, right), node)


def folded(function: Callable[..., Any], values: tuple[Any, ...], node: ast.AST) -> Any:
    """A function of constants, computed if that is small work; Unknown otherwise."""
    line = getattr(node, "lineno", 0)
    if not all(map(is_constant, values)) or not _small(function, values):
        return derived(f"what line {line} computes is not known", *values)
    try:
        result = function(*values)
    except Exception:
        return Unknown(f"line {line} fails when it is computed")
    if isinstance(result, int | float) and abs(result) > LARGEST:
        return Unknown(f"line {line} computes a number that is too large")
    if isinstance(result, str | bytes | tuple) and len(result) > LONGEST:
        return Unknown(f"line {line} computes a text that is too long")
    return result


def _small(function: Callable[..., Any], values: tuple[Any, ...]) -> bool:
    if function is operator.pow:
        return all(isinstance(v, int | float) and abs(v) <= 4096 for v in values[:1]) and all(
            isinstance(v, int | float) and abs(v) <= 16 for v in values[1:]
        )
    if function is operator.lshift:
        return values[1] <= 60 if isinstance(values[1], int) else True
    if function is operator.mul and not all(isinstance(v, int | float) for v in values):
        sizes = [len(v) if isinstance(v, str | bytes | tuple) else int(v or 0) for v in values]
        return sizes[0] * sizes[1] <= LONGEST
    if function is operator.mod and isinstance(values[0], str):
        return len(values[0]) < 1000 and "*" not in values[0] and not WIDE.search(values[0])
    return True


def _conditional(node: ast.IfExp, scope: Scope, run: Run) -> Any:
    condition = value_of(node.test, scope, run)
    return conditions.either(
        run,
        condition,
        lambda: value_of(node.body, scope, run),
        lambda: value_of(node.orelse, scope, run),
    )


def _dict(node: ast.Dict, scope: Scope, run: Run) -> Any:
    made = Mapped()
    for key, part in zip(node.keys, node.values, strict=True):
        value = value_of(part, scope, run)
        if key is None:
            made.update(value)
            continue
        name = value_of(key, scope, run)
        if is_constant(name):
            made.put(name, value)
        else:
            made.update(derived("a key is not known", name))
    return made


def _list(node: ast.List | ast.Set | ast.Tuple, scope: Scope, run: Run) -> Any:
    items: list[Any] = []
    is_open = False
    for part in node.elts:
        if isinstance(part, ast.Starred):
            found = items_of(value_of(part.value, scope, run))
            items += found or []
            is_open |= found is None
        else:
            items.append(value_of(part, scope, run))
    if isinstance(node, ast.Tuple) and not is_open:
        return tuple(items)
    return Sequence(items, open_=is_open)


def _joined(node: ast.JoinedStr, scope: Scope, run: Run) -> Any:
    texts: list[Any] = []
    for part in node.values:
        if not isinstance(part, ast.FormattedValue):
            texts.append(value_of(part, scope, run))
            continue
        value = value_of(part.value, scope, run)
        spec = value_of(part.format_spec, scope, run) if part.format_spec else ""
        convert = CONVERSIONS.get(part.conversion, lambda v: v)
        if isinstance(spec, str) and len(spec) < 8:
            texts.append(folded(lambda v, s=spec, c=convert: format(c(v), s), (value,), node))
        else:
            texts.append(Unknown("a format is not known"))
    return folded(lambda *parts: "".join(parts), tuple(texts), node)


def _subscript(node: ast.Subscript, scope: Scope, run: Run) -> Any:
    value = value_of(node.value, scope, run)
    return attributes.item(value, value_of(node.slice, scope, run), node, run)


def _slice(node: ast.Slice, scope: Scope, run: Run) -> Any:
    parts = (node.lower, node.upper, node.step)
    found = tuple(None if part is None else value_of(part, scope, run) for part in parts)
    return slice(*found) if all(map(is_constant, found)) else derived("a slice", *found)


def _lambda(node: ast.Lambda, scope: Scope, run: Run) -> Any:
    return Function("lambda", node, scope, statements.defaults_of(node.args, scope, run))


def _comprehension(
    node: ast.ListComp | ast.SetComp | ast.GeneratorExp, scope: Scope, run: Run
) -> Any:
    inner = Scope(scope)
    items, is_open = [], False
    for known in _rounds(node.generators, inner, run):
        items.append(value_of(node.elt, inner, run))
        is_open |= not known
    return Sequence(items, open_=is_open)


def _dict_comprehension(node: ast.DictComp, scope: Scope, run: Run) -> Any:
    inner = Scope(scope)
    made = Mapped()
    for _ in _rounds(node.generators, inner, run):
        key = value_of(node.key, inner, run)
        value = value_of(node.value, inner, run)
        if is_constant(key):
            made.put(key, value)
        else:
            made.update(derived("a key is not known", key))
    return made


def _rounds(
    generators: list[ast.comprehension], scope: Scope, run: Run, known: bool = True
) -> Iterator[bool]:
    """Bind the names of a comprehension, round by round; yields whether the round is certain.

    A round whose condition is not known counts: better one entry too many than one too few.
    """
    if not generators:
        yield known
        return
    first, *rest = generators
    values = value_of(first.iter, scope, run)
    items = items_of(values)
    for item in [derived("what is iterated is not known", values)] if items is None else items:
        run.visit()
        statements.assign(first.target, item, scope, run)
        tests = [conditions.truth(value_of(test, scope, run)) for test in first.ifs]
        if False not in tests:
            sure = known and items is not None and all(test is True for test in tests)
            yield from _rounds(rest, scope, run, sure)


def _named(node: ast.NamedExpr, scope: Scope, run: Run) -> Any:
    value = value_of(node.value, scope, run)
    statements.assign(node.target, value, scope, run)
    return value


def _yield(node: ast.Yield | ast.YieldFrom, scope: Scope, run: Run) -> Any:
    value = None if node.value is None else value_of(node.value, scope, run)
    if run.frames:
        frame = run.frames[-1]
        many = items_of(value) if isinstance(node, ast.YieldFrom) else None
        frame.yielded += [value] if many is None else many
        if frame.stops_at_yield:
            raise statements.Stopped
    return Unknown("what is sent to a generator is not known")


def _inner(node: ast.Await | ast.Starred, scope: Scope, run: Run) -> Any:
    return value_of(node.value, scope, run)


# Looked up when they are called: the modules import each other.
def _bool(node: ast.BoolOp, scope: Scope, run: Run) -> Any:
    return conditions.boolean(node, scope, run)


def _compare(node: ast.Compare, scope: Scope, run: Run) -> Any:
    return conditions.compare(node, scope, run)


HANDLERS: dict[type[ast.AST], Callable[..., Any]] = {
    ast.Constant: _constant, ast.Name: _name, ast.Attribute: _attribute, ast.Call: _call,
    ast.BoolOp: _bool, ast.UnaryOp: _unary, ast.BinOp: _binary, ast.Compare: _compare,
    ast.IfExp: _conditional, ast.Dict: _dict, ast.List: _list, ast.Set: _list, ast.Tuple: _list,
    ast.JoinedStr: _joined, ast.Subscript: _subscript, ast.Slice: _slice, ast.Lambda: _lambda,
    ast.ListComp: _comprehension, ast.SetComp: _comprehension, ast.GeneratorExp: _comprehension,
    ast.DictComp: _dict_comprehension, ast.NamedExpr: _named, ast.Yield: _yield,
    ast.YieldFrom: _yield, ast.Await: _inner, ast.Starred: _inner,
}  # fmt: skip
