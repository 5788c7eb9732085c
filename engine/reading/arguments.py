"""argparse: what a program gets that is started without arguments."""

from __future__ import annotations

import ast
from typing import Any

from engine.reading import calls, expressions
from engine.reading.run import Run
from engine.reading.statements import Signal
from engine.reading.values import Made, Mapped, Namespace, Ref, Unknown, is_constant

Arguments = tuple[Any, ...]


def method(
    parser: Made, name: str, args: Arguments, keywords: Mapped, node: ast.AST, run: Run
) -> Any:
    """A call of a method of a parser or of a group of its arguments."""
    root = parser.state.get("parser", parser)
    line = getattr(node, "lineno", 0)
    if name in ("add_argument_group", "add_mutually_exclusive_group"):
        group = Made(Ref(f"argparse.{name}"), args, keywords, line)
        group.state["parser"] = root
        return group
    if name == "add_argument":
        root.state["options"] = (*root.state.get("options", ()), (args, keywords, line))
        return Made(Ref("argparse.Action"), args, keywords, line)
    if name == "set_defaults":
        root.state["set"] = {**root.state.get("set", {}), **keywords.items}
        return None
    if name in ("parse_args", "parse_known_args"):
        given = expressions.items_of(args[0]) if args and args[0] is not None else []
        found = _parsed(root, given or [], node, run)
        return found if name == "parse_args" else (found, Unknown("further arguments", given=True))
    if name in ("error", "exit"):
        return Signal("raise")
    return Unknown(f"{name} of a parser is not read", given=True)


def _parsed(parser: Made, given: list[Any], node: ast.AST, run: Run) -> Namespace:
    found = Namespace()
    for args, keywords, line in parser.state.get("options", ()):
        options = keywords.items
        flags = [flag for flag in args if isinstance(flag, str)]
        if not flags:
            continue
        longest = next((flag for flag in flags if flag.startswith("--")), flags[0])
        dest = options.get("dest")
        name = dest if isinstance(dest, str) else longest.lstrip("-").replace("-", "_")
        found.state[name] = _value(flags, longest, options, given, line, node, run)
    found.state |= parser.state.get("set", {})
    return found


def _value(
    flags: list[str],
    longest: str,
    options: dict[Any, Any],
    given: list[Any],
    line: int,
    node: ast.AST,
    run: Run,
) -> Any:
    """The value of one option: from a list that the program itself hands in, else its default."""
    action = options.get("action", "store")
    if isinstance(action, Ref):
        action = action.leaf
    place = next((i for i, text in enumerate(given) if text in flags), None)
    if place is not None:
        if action == "store_true":
            return True
        if action == "store_false":
            return False
        if place + 1 < len(given):
            return _typed(given[place + 1], options, node, run)
    if "default" in options:
        default = options["default"]
        return _typed(default, options, node, run) if isinstance(default, str) else default
    if action in ("store_true", "store_false"):
        return action == "store_false"
    needed = bool(options.get("required")) or not longest.startswith("-")
    why = f"depends on argparse {longest} without a default, line {line}"
    return Unknown(why, given=False, none=not needed)


def _typed(value: Any, options: dict[Any, Any], node: ast.AST, run: Run) -> Any:
    kind = options.get("type")
    if kind is None or not is_constant(value):
        return value
    return calls.call(kind, (value,), Mapped(), node, run)
