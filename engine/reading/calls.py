"""Calls: of the program's functions and classes, which are interpreted, and of everything else."""

from __future__ import annotations

import ast
from dataclasses import replace
from typing import Any

from engine.reading import library, methods, own, pipelines, pure, statements
from engine.reading.run import DEPTH, Run
from engine.reading.statements import Signal
from engine.reading.values import (
    MISSING,
    Attribute,
    Bound,
    Class,
    Frame,
    Function,
    Instance,
    Made,
    Mapped,
    Model,
    Pipe,
    Ref,
    Scheduler,
    Scope,
    Sequence,
    Unknown,
    derived,
    tags_of,
)

REPEATS = 4
"""Of one function within itself."""
KINDS = {"staticmethod": "static", "classmethod": "class", "property": "property",
         "cached_property": "property", "contextmanager": "context",
         "asynccontextmanager": "context"}  # fmt: skip
Arguments = tuple[Any, ...]


def call(callee: Any, args: Arguments, keywords: Mapped, node: ast.AST, run: Run) -> Any:
    """The value of a call. A call that ends in an exception gives a raise signal."""
    if isinstance(callee, Function):
        return invoke(callee, args, keywords, node, run)
    if isinstance(callee, Bound):
        return invoke(callee.function, (callee.self, *args), keywords, node, run)
    if isinstance(callee, Class):
        return instantiate(callee, args, keywords, node, run)
    if isinstance(callee, Instance):
        found = callee.cls.lookup("__call__")
        if isinstance(found, Function):
            return invoke(found, (callee, *args), keywords, node, run)
    if isinstance(callee, Pipe):
        found = callee.cls.lookup("__call__") if callee.cls else MISSING
        if isinstance(found, Function):
            return invoke(found, (callee, *args), keywords, node, run)
        return pipelines.shoot(callee, args, keywords, node, run)
    if isinstance(callee, Ref):
        return library.call(callee, args, keywords, node, run)
    if isinstance(callee, Attribute):
        return _method(callee, args, keywords, node, run)
    if isinstance(callee, Made):
        return library.call_made(callee, args, keywords, node, run)
    return passed(callee, args, keywords, node, run)


def passed(callee: Any, args: Arguments, keywords: Mapped, node: ast.AST, run: Run) -> Any:
    """The value of a call of something unknown, which calls the functions that it is handed."""
    for value in (*args, *keywords.items.values()):
        if isinstance(value, Function | Bound):
            blank = Mapped(None, Unknown("what it is called with is not known", given=True))
            call(value, (), blank, node, run)
    line = getattr(node, "lineno", 0)
    tags = tags_of(callee, *args, *keywords.items.values())
    known = derived(f"what line {line} calls is not known", callee)
    return replace(known, tags=known.tags | tags)


def _method(callee: Attribute, args: Arguments, keywords: Mapped, node: ast.AST, run: Run) -> Any:
    owner, name = callee.owner, callee.name
    if isinstance(owner, Pipe):
        return pipelines.method(owner, name, args, keywords, node, run)
    if isinstance(owner, Model):
        return methods.on_model(owner, name, args, keywords, node, run)
    if isinstance(owner, Scheduler):
        return owner if name in ("to", "from_config") else Unknown("a scheduler's own value")
    if isinstance(owner, Made):
        return library.method(owner, name, args, keywords, node, run)
    if isinstance(owner, Class):
        base = owner.library_base()
        if base is not None:
            found = library.call(Ref(f"{base.path}.{name}"), args, keywords, node, run)
            if isinstance(found, Pipe):
                found.cls = owner
            return found
    if isinstance(owner, Function | Bound):
        return passed(owner, args, keywords, node, run)
    return pure.method(owner, name, args, keywords, node, run)


def invoke(function: Function, args: Arguments, keywords: Mapped, node: ast.AST, run: Run) -> Any:
    """Interpret a function of the program with these arguments."""
    line = getattr(node, "lineno", 0)
    if run.depth > DEPTH or sum(f.function is function for f in run.frames) >= REPEATS:
        return Unknown(f"line {line} calls itself too often")
    scope = Scope(function.scope)
    bind(function, args, keywords, scope, line)
    if function.owner is not None and args:
        scope.state["__class__"] = function.owner
        scope.state["__self__"] = args[0]
    frame = Frame(function, stops_at_yield=function.kind == "context")
    technique = own.technique(function)
    with run.inside(frame, scope), own.entered(technique, function, scope, line, run):
        run.contexts += function.contexts
        try:
            return _result(function, frame, scope, run)
        finally:
            del run.contexts[len(run.contexts) - len(function.contexts) :]


def _result(function: Function, frame: Frame, scope: Scope, run: Run) -> Any:
    from engine.reading import conditions, expressions

    if isinstance(function.node, ast.Lambda):
        return expressions.value_of(function.node.body, scope, run)
    try:
        signal = statements.execute(function.node.body, scope, run)
    except statements.Stopped:
        signal = None
    if frame.stops_at_yield:
        made = Made(Ref("$context"), tuple(frame.yielded[:1]), Mapped(), function.node.lineno)
        return made
    if frame.yielded:
        return Sequence(frame.yielded)
    if signal is not None and signal.kind == "raise":
        if not frame.returned:
            return signal
        value = frame.returned.pop()
    else:
        value = signal.value if signal is not None and signal.kind == "return" else None
        if signal is None and frame.returned:
            # Its end without a value is the rarer way out of a function that also returns one.
            value = frame.returned.pop()
    choose = conditions.chooser(Unknown(), function.node.lineno)
    for other in frame.returned:
        value = other if value is None else value if other is None else choose(value, other)
    return value


def bind(function: Function, args: Arguments, keywords: Mapped, scope: Scope, line: int) -> None:
    """Put the arguments of a call under the names of the parameters."""
    parameters = function.node.args
    places = [p.arg for p in (*parameters.posonlyargs, *parameters.args)]
    given = dict(keywords.items)
    rest = keywords.open
    for name, value in zip(places, args, strict=False):
        scope.state[name] = value
    for name in [*places[len(args) :], *(p.arg for p in parameters.kwonlyargs)]:
        if name in given:
            scope.state[name] = given.pop(name)
        elif name in function.defaults:
            default = function.defaults[name]
            scope.state[name] = default
        else:
            scope.state[name] = rest or Unknown(
                f"parameter {name} of {function.name} is not given, line {line}", given=True
            )
    if parameters.vararg is not None:
        scope.state[parameters.vararg.arg] = tuple(args[len(places) :])
    if parameters.kwarg is not None:
        left = {name: value for name, value in given.items() if name not in places}
        scope.state[parameters.kwarg.arg] = Mapped(left, rest)


def instantiate(cls: Class, args: Arguments, keywords: Mapped, node: ast.AST, run: Run) -> Any:
    """An object of a class of the program, initialised."""
    base = cls.library_base()
    if base is not None and base.leaf in ("dict", "TypedDict"):
        return Mapped(keywords.items, keywords.open)
    made = Instance(cls)
    found = cls.lookup("__init__")
    if isinstance(found, Function):
        result = invoke(found, (made, *args), keywords, node, run)
        return result if isinstance(result, Signal) and result.kind == "raise" else made
    if cls.is_data:
        _fill(made, cls, args, keywords, node, run)
    return made


def _fill(
    made: Instance, cls: Class, args: Arguments, keywords: Mapped, node: ast.AST, run: Run
) -> None:
    """The fields of a dataclass: arguments above defaults."""
    given = dict(zip(cls.fields, args, strict=False)) | keywords.items
    for name in cls.fields:
        value = given.get(name, MISSING)
        if value is MISSING:
            value = cls.lookup(name)
        if isinstance(value, Made) and value.ref.leaf in ("field", "Field"):
            factory = value.keywords.items.get("default_factory")
            default = value.argument(0, "default")
            value = default if factory is None else call(factory, (), Mapped(), node, run)
        if value is MISSING:
            value = keywords.open or Unknown(f"field {name} is not given", given=True)
        made.state[name] = value
    after = cls.lookup("__post_init__")
    if isinstance(after, Function):
        invoke(after, (made,), Mapped(), node, run)


def entered(value: Any, node: ast.AST, run: Run) -> Any:
    """What ``with value as name`` binds."""
    if isinstance(value, Instance):
        found = value.cls.lookup("__enter__")
        if isinstance(found, Function):
            return invoke(found, (value,), Mapped(), node, run)
    if isinstance(value, Made) and value.ref == Ref("$context"):
        return value.args[0] if value.args else None
    return value


def decorated(made: Any, decorator: Any, node: ast.AST, run: Run) -> Any:
    """A function under a decorator. Those of libraries leave it as it is, unless they are known to
    change how it is called."""
    if isinstance(decorator, Function | Bound | Instance):
        return call(decorator, (made,), Mapped(), node, run)
    if not isinstance(made, Function):
        return made
    if isinstance(decorator, Ref):
        return replace(made, kind=KINDS.get(decorator.leaf, made.kind))
    if not isinstance(decorator, Made):
        return made
    owner = decorator.state.get("owner")
    if isinstance(owner, Made):
        # @app.command(), @app.get("/"): whoever runs the app calls it.
        owner.state["commands"] = (*owner.state.get("commands", ()), made)
        return made
    leaf = decorator.ref.leaf
    if leaf == "autocast":
        return replace(made, contexts=(*made.contexts, decorator))
    if leaf in ("option", "argument"):
        return library.with_option(made, decorator)
    if decorator.ref.path == "hydra.main":
        first = next((p.arg for p in made.node.args.args), "")
        line = getattr(node, "lineno", 0)
        why = Unknown(f"a config of Hydra decides, line {line}")
        return replace(made, defaults={**made.defaults, first: why})
    return made
