"""Builtins, and methods of texts, lists and dictionaries."""

from __future__ import annotations

import ast
import builtins
from collections.abc import Callable
from typing import Any

from engine.reading import attributes, calls, conditions, expressions
from engine.reading.run import Run
from engine.reading.statements import Signal
from engine.reading.values import (
    MISSING,
    Class,
    Function,
    Instance,
    Mapped,
    Namespace,
    Pipe,
    Ref,
    Sequence,
    Unknown,
    derived,
    is_constant,
)

Arguments = tuple[Any, ...]
FOLDED = ("int", "float", "str", "bool", "round", "abs", "min", "max", "sum", "len", "divmod",
          "ord", "chr", "repr", "pow", "complex")  # fmt: skip
"""Builtins of constants that are computed."""
TEXT = ("format", "join", "upper", "lower", "replace", "split", "rsplit", "strip", "lstrip",
        "rstrip", "startswith", "endswith", "removeprefix", "removesuffix", "partition",
        "rpartition", "title", "capitalize", "splitlines", "count", "find", "isdigit", "casefold",
        "encode", "decode", "is_integer", "bit_length", "index")  # fmt: skip
"""Methods of constants that are computed; none of them makes something much longer."""
NOTHING = ("print", "input", "breakpoint", "help")
TYPES = {"int": int, "float": float, "str": str, "bool": bool, "bytes": bytes, "tuple": tuple}


def builtin(name: str, args: Arguments, keywords: Mapped, node: ast.AST, run: Run) -> Any:
    """A call of a builtin."""
    handler = BUILTINS.get(name)
    if handler is not None:
        return handler(args, keywords, node, run)
    if name in FOLDED:
        return _folded(name, args, keywords, node)
    if name in ("exit", "quit"):
        return Signal("raise")
    if name in ("exec", "eval", "compile"):
        run.note(f"code: line {getattr(node, 'lineno', 0)} runs a text as code")
        return Unknown("code in a text is not read")
    if name in NOTHING:
        return None if name == "print" else _typed(node)
    return calls.passed(Ref(f"builtins.{name}"), args, keywords, node, run)


def _typed(node: ast.AST) -> Unknown:
    return Unknown(f"what a person types decides, line {getattr(node, 'lineno', 0)}")


def _folded(name: str, args: Arguments, keywords: Mapped, node: ast.AST) -> Any:
    plain = [tuple(a.items) if isinstance(a, Sequence) else a for a in args]
    if any(isinstance(a, Sequence) and a.state["open"] for a in args):
        return derived("how long a list is is not known", *args)
    if name == "len" and args and isinstance(args[0], Mapped):
        return len(args[0].items) if args[0].open is None else args[0].open
    if name == "len" and plain and isinstance(plain[0], tuple):
        return len(plain[0])
    if name == "str" and isinstance(args[0] if args else "", Ref):
        return args[0].path
    if name == "pow" or (name in ("int", "float") and not plain):
        return derived("not computed", *args) if plain else 0
    if name == "bool" and args:
        found = conditions.truth(args[0])
        return derived("not known", args[0]) if found is None else found
    if keywords.items and not all(map(is_constant, keywords.items.values())):
        return derived("not known", *args)
    function = getattr(builtins, name)
    return expressions.folded(lambda *v: function(*v, **keywords.items), tuple(plain), node)


def _range(args: Arguments, keywords: Mapped, node: ast.AST, run: Run) -> Any:
    if not all(isinstance(value, int) for value in args) or not args:
        return derived("how often a loop runs is not known", *args)
    try:
        span = range(*args)
    except (TypeError, ValueError):
        return Unknown("a range that fails")
    return Sequence(span[:1000])


def _getattr(args: Arguments, keywords: Mapped, node: ast.AST, run: Run) -> Any:
    if len(args) < 2 or not isinstance(args[1], str):
        return derived("which attribute is not known", *args)
    owner, name, *default = args
    if default and not _has(owner, name):
        return default[0]
    return attributes.get(owner, name, node, run)


def _has(owner: Any, name: str) -> bool:
    """Whether a value has an attribute, as far as that is known; private ones of library objects
    are there only if the program has put them there."""
    if isinstance(owner, Pipe) and name in attributes.PARTS:
        return attributes.part(owner, name) is not None
    if isinstance(owner, Instance):
        return name in owner.state or owner.cls.lookup(name) is not MISSING
    if isinstance(owner, Namespace):
        return name in owner.state
    if isinstance(owner, Ref | Unknown) or not hasattr(owner, "state"):
        return True
    return name in owner.state or not name.startswith("_")


def _hasattr(args: Arguments, keywords: Mapped, node: ast.AST, run: Run) -> Any:
    if len(args) < 2 or not isinstance(args[1], str):
        return derived("which attribute is not known", *args)
    owner, name = args[:2]
    if isinstance(owner, Instance | Namespace) or (name.startswith("_") and _has(owner, name)):
        return _has(owner, name)
    if not _has(owner, name):
        return False
    part = isinstance(owner, Pipe) and name in (*attributes.PARTS, "scheduler")
    return True if part else Unknown(f"whether there is {name} is not known", given=True)


def _setattr(args: Arguments, keywords: Mapped, node: ast.AST, run: Run) -> Any:
    if len(args) == 3 and isinstance(args[1], str):
        attributes.put(args[0], args[1], args[2], node, run)
    return None


def _list(args: Arguments, keywords: Mapped, node: ast.AST, run: Run) -> Any:
    items = expressions.items_of(args[0]) if args else []
    if items is None:
        return derived("what a list holds is not known", *args)
    return Sequence(items, open_=bool(args) and _open(args[0]))


def _open(value: Any) -> bool:
    return isinstance(value, Sequence) and bool(value.state["open"])


def _tuple(args: Arguments, keywords: Mapped, node: ast.AST, run: Run) -> Any:
    made = _list(args, keywords, node, run)
    return tuple(made.items) if isinstance(made, Sequence) and not _open(made) else made


def _sorted(args: Arguments, keywords: Mapped, node: ast.AST, run: Run) -> Any:
    made = _list(args[:1], keywords, node, run)
    if isinstance(made, Sequence) and all(map(is_constant, made.items)) and not keywords.items:
        try:
            return Sequence(sorted(made.items), open_=_open(made))
        except TypeError:
            return made
    return made


def _dict(args: Arguments, keywords: Mapped, node: ast.AST, run: Run) -> Any:
    made = Mapped()
    if args and isinstance(args[0], Sequence):
        pairs = [expressions.items_of(pair) for pair in args[0].items]
        for pair in pairs:
            if pair is not None and len(pair) == 2 and is_constant(pair[0]):
                made.put(pair[0], pair[1])
    elif args:
        made.update(args[0])
    made.update(keywords)
    return made


def _zip(args: Arguments, keywords: Mapped, node: ast.AST, run: Run) -> Any:
    lists = [expressions.items_of(value) for value in args]
    known = [items for items in lists if items is not None]
    if len(known) < len(lists):
        count = min((len(items) for items in known), default=1)
        pairs = zip(lists, args, strict=True)
        lists = [i if i is not None else [derived("", v)] * count for i, v in pairs]
    return Sequence(zip(*[items or [] for items in lists], strict=False))


def _enumerate(args: Arguments, keywords: Mapped, node: ast.AST, run: Run) -> Any:
    items = expressions.items_of(args[0]) if args else None
    start = args[1] if len(args) > 1 else keywords.items.get("start", 0)
    if items is None or not isinstance(start, int):
        return Sequence([(Unknown("a number"), derived("", *args))], open_=True)
    return Sequence([(start + place, item) for place, item in enumerate(items)])


def _map(args: Arguments, keywords: Mapped, node: ast.AST, run: Run) -> Any:
    items = expressions.items_of(args[1]) if len(args) > 1 else None
    rows = [derived("", *args[1:])] if items is None else items[:32]
    return Sequence([calls.call(args[0], (item,), Mapped(), node, run) for item in rows])


def _filter(args: Arguments, keywords: Mapped, node: ast.AST, run: Run) -> Any:
    items = expressions.items_of(args[1]) if len(args) > 1 else None
    if items is None:
        return derived("what is left is not known", *args[1:])
    kept = items
    if args[0] is not None:
        found = [calls.call(args[0], (item,), Mapped(), node, run) for item in items[:32]]
        kept = [i for i, f in zip(items, found, strict=False) if conditions.truth(f) is not False]
    return Sequence(kept)


def _any(args: Arguments, keywords: Mapped, node: ast.AST, run: Run, stop: bool = True) -> Any:
    items = expressions.items_of(args[0]) if args else None
    if items is None or _open(args[0]):
        return derived("not known", *args)
    truths = [conditions.truth(item) for item in items]
    if stop in truths:
        return stop
    return next(
        (item for item, t in zip(items, truths, strict=True) if t is not (not stop)), not stop
    )


def _all(args: Arguments, keywords: Mapped, node: ast.AST, run: Run) -> Any:
    return _any(args, keywords, node, run, stop=False)


def _next(args: Arguments, keywords: Mapped, node: ast.AST, run: Run) -> Any:
    items = expressions.items_of(args[0]) if args else None
    if items:
        return items[0]
    return args[1] if len(args) > 1 and items is not None else derived("", *args)


def _isinstance(args: Arguments, keywords: Mapped, node: ast.AST, run: Run) -> Any:
    value, kinds = args if len(args) == 2 else (Unknown(), ())
    names = kinds if isinstance(kinds, tuple) else (kinds,)
    if isinstance(value, Instance):
        return any(value.cls is kind for kind in names) or Unknown("a class is not known")
    known = [TYPES[k.leaf] for k in names if isinstance(k, Ref) and k.leaf in TYPES]
    if is_constant(value) and len(known) == len(names):
        return isinstance(value, tuple(known))
    pairs = {"dict": Mapped, "list": Sequence}
    for kind in names:
        if isinstance(kind, Ref) and isinstance(value, pairs.get(kind.leaf, Ref)):
            return kind.leaf in pairs
    return derived("the type of a value is not known", value)


def _vars(args: Arguments, keywords: Mapped, node: ast.AST, run: Run) -> Any:
    if args and isinstance(args[0], Namespace | Instance):
        return Mapped(args[0].state)
    return Unknown("names of this place are not read")


def _type(args: Arguments, keywords: Mapped, node: ast.AST, run: Run) -> Any:
    if args and isinstance(args[0], Instance):
        return args[0].cls
    if args and isinstance(args[0], Pipe) and args[0].state["class"]:
        return Ref(f"diffusers.{args[0].state['class']}")
    return Unknown("a type is not known", given=True)


def _globals(args: Arguments, keywords: Mapped, node: ast.AST, run: Run) -> Any:
    if not run.scopes:
        return Unknown("names of this place are not read")
    return Mapped(run.scopes[0].state)


def _slice(args: Arguments, keywords: Mapped, node: ast.AST, run: Run) -> Any:
    return slice(*args) if args and all(map(is_constant, args)) else derived("a slice", *args)


def _reversed(args: Arguments, keywords: Mapped, node: ast.AST, run: Run) -> Any:
    made = _list(args, keywords, node, run)
    return Sequence(reversed(made.items)) if isinstance(made, Sequence) else made


BUILTINS: dict[str, Callable[..., Any]] = {
    "range": _range, "getattr": _getattr, "hasattr": _hasattr, "setattr": _setattr,
    "list": _list, "set": _list, "frozenset": _list, "iter": _list, "tuple": _tuple,
    "sorted": _sorted, "dict": _dict, "zip": _zip, "enumerate": _enumerate, "map": _map,
    "filter": _filter, "any": _any, "all": _all, "next": _next, "isinstance": _isinstance,
    "vars": _vars, "type": _type, "globals": _globals, "locals": _globals, "slice": _slice,
    "reversed": _reversed,
}  # fmt: skip


def method(
    owner: Any, name: str, args: Arguments, keywords: Mapped, node: ast.AST, run: Run
) -> Any:
    """A call of a method of a text, list, dictionary or class of the program."""
    if isinstance(owner, Mapped):
        return _of_mapping(owner, name, args, keywords, node, run)
    if isinstance(owner, Sequence):
        return _of_sequence(owner, name, args, node, run)
    if isinstance(owner, Namespace):
        return _of_mapping(Mapped(owner.state), name, args, keywords, node, run)
    if is_constant(owner) and name in TEXT and not _grows(owner, name, args, keywords):
        plain = tuple(tuple(a.items) if isinstance(a, Sequence) else a for a in args)
        if all(map(is_constant, keywords.items.values())) and keywords.open is None:
            return expressions.folded(
                lambda own, *v: _listed(getattr(own, name)(*v, **keywords.items)),
                (owner, *plain),
                node,
            )
    if isinstance(owner, Instance | Class | Function) or is_constant(owner):
        return calls.passed(Unknown(f"{name} is not known", given=True), args, keywords, node, run)
    return calls.passed(owner, args, keywords, node, run)


def _grows(owner: Any, name: str, args: Arguments, keywords: Mapped) -> bool:
    """Whether a method of a text might make something of a size that nobody needs."""
    values = (*args, *keywords.items.values())
    if name == "format" and isinstance(owner, str):
        wide = any(isinstance(value, int) and abs(value) > 10_000 for value in values)
        return bool(expressions.WIDE.search(owner)) or ("{:{" in owner and wide)
    if name not in ("replace", "join") or not isinstance(owner, str | bytes):
        return False
    sizes = [len(value) for value in values if isinstance(value, str | bytes | tuple)]
    sizes += [len(value.items) for value in values if isinstance(value, Sequence)]
    return (len(owner) + 1) * max(sizes, default=0) > expressions.LONGEST


def _listed(value: Any) -> Any:
    return tuple(value) if isinstance(value, list) else value


def _of_mapping(
    owner: Mapped, name: str, args: Arguments, keywords: Mapped, node: ast.AST, run: Run
) -> Any:
    key = args[0] if args else None
    default = args[1] if len(args) > 1 else None
    if name in ("get", "pop", "setdefault"):
        if not is_constant(key):
            return derived("a key is not known", key)
        if key in owner.items:
            value = owner.items[key]
            if name == "pop":
                owner.state["items"] = {k: v for k, v in owner.items.items() if k != key}
            return value
        if name == "setdefault":
            owner.put(key, default)
        return owner.open or default
    if name == "items":
        return Sequence(owner.items.items(), open_=owner.open is not None)
    if name == "keys":
        return Sequence(owner.items, open_=owner.open is not None)
    if name == "values":
        return Sequence(owner.items.values(), open_=owner.open is not None)
    if name in ("copy", "to_dict", "model_dump", "dict"):
        return Mapped(owner.items, owner.open)
    if name == "update":
        if args:
            owner.update(args[0])
        owner.update(keywords)
        return None
    if name == "fromkeys" and args:
        return Mapped(dict.fromkeys(expressions.items_of(key) or [], default))
    return calls.passed(Unknown(f"{name} of a dictionary"), args, keywords, node, run)


def _of_sequence(owner: Sequence, name: str, args: Arguments, node: ast.AST, run: Run) -> Any:
    if name in ("append", "add", "appendleft"):
        owner.state["items"] = (*owner.items, *args[:1])
        return None
    if name in ("extend", "update"):
        items = expressions.items_of(args[0]) if args else None
        owner.state["items"] = (*owner.items, *(items or ()))
        owner.state["open"] = owner.state["open"] or items is None
        return None
    if name == "copy":
        return Sequence(owner.items, open_=owner.state["open"])
    if name == "pop" and owner.items:
        place = args[0] if args and isinstance(args[0], int) else -1
        items = list(owner.items)
        if -len(items) <= place < len(items):
            value = items.pop(place)
            owner.state["items"] = tuple(items)
            return value
    if name in ("sort", "reverse", "clear"):
        if name == "clear":
            owner.state["items"] = ()
        return None
    return derived(f"{name} of a list is not known", owner, *args)
