"""One interpretation in progress: what was seen, what work is left, states to go back to."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from engine.reading import Method, Value
from engine.reading.values import (
    Attribute,
    Bound,
    Box,
    Class,
    Frame,
    Function,
    Made,
    Mapped,
    Model,
    Pipe,
    Scope,
    Sequence,
    Super,
    Unknown,
)

WORK = 150_000
"""Nodes that may be visited; a program of 400 lines needs some thousand."""
DEPTH = 60
"""Calls within calls."""
State = dict[Box, dict[str, Any]]
UNITED = ("active", "parts")
"""States that are tables: of two branches both count."""


class Exhausted(Exception):
    """The program does more than is interpreted."""


@dataclass
class Shot:
    """One call of a pipeline: its keywords, and the pipeline's state at that moment."""

    pipe: Pipe
    keywords: Any
    state: Mapping[str, Any]
    methods: Mapping[str, Method]
    autocast: Any
    line: int


@dataclass
class Run:
    """What one interpretation knows and has seen."""

    left: int = WORK
    depth: int = 0
    shots: list[Shot] = field(default_factory=list)
    pipes: list[Pipe] = field(default_factory=list)
    named: list[Method] = field(default_factory=list)
    """Every method that executed code named, in order."""
    notes: list[str] = field(default_factory=list)
    reached: set[int] = field(default_factory=set)
    """Calls that were interpreted, by the identity of their nodes."""
    contexts: list[Any] = field(default_factory=list)
    """Context managers around the present place."""
    frames: list[Frame] = field(default_factory=list)
    scopes: list[Scope] = field(default_factory=list)
    own: list[str] = field(default_factory=list)
    """Techniques of ours whose copied functions are being interpreted."""
    loading: Mapping[str, Method] = field(default_factory=dict)
    """Methods of keywords for from_pretrained that wait for their pipeline."""
    flags: dict[str, Any] = field(default_factory=dict)
    """Values that absl's DEFINE_... set."""
    process: dict[str, Method] = field(default_factory=dict)
    """Methods that are switched on for the whole process, such as tf32."""

    def visit(self) -> None:
        self.left -= 1
        if self.left < 0:
            raise Exhausted

    def note(self, text: str) -> None:
        if text not in self.notes:
            self.notes.append(text)

    def activate(self, target: Any, name: str, settings: Mapping[str, Any], line: int) -> None:
        """Record that a method takes effect on a pipeline or network; settings that are not known
        are left out and noted."""
        known = {key: value for key, value in settings.items() if isinstance(value, Value)}
        method = Method(name, known, line)
        if self.own and name != self.own[-1]:
            return
        self.named.append(method)
        for key, value in settings.items():
            if isinstance(value, Unknown) and not value.given:
                self.note(f"methods.{name}.{key}: {value.why}")
        if target is self:
            self.process[name] = method
        elif isinstance(target, Pipe | Model):
            before = target.state["active"].get(name)
            if before is not None:
                method = Method(name, {**before.settings, **known}, line)
            target.state["active"] = {**target.state["active"], name: method}

    def mention(self, name: str, settings: Mapping[str, Any], line: int) -> None:
        """Record that a method is named without effect so far."""
        known = {key: value for key, value in settings.items() if isinstance(value, Value)}
        if not self.own or name == self.own[-1]:
            self.named.append(Method(name, known, line))

    def deactivate(self, target: Any, name: str) -> None:
        if isinstance(target, Pipe | Model):
            rest = {key: m for key, m in target.state["active"].items() if key != name}
            target.state["active"] = rest

    def snapshot(self) -> State:
        """The states of all boxes that code can still reach."""
        roots: list[Any] = [*self.scopes, *self.pipes, *self.contexts]
        roots += [value for frame in self.frames for value in (*frame.returned, *frame.yielded)]
        boxes = reachable(roots)
        # Every copy is work too, so that a program full of open conditions ends as well.
        self.left -= len(boxes) // 8
        return {box: dict(box.state) for box in boxes}

    def restore(self, state: State) -> None:
        for box, values in state.items():
            box.state = dict(values)

    @contextlib.contextmanager
    def inside(self, frame: Frame, scope: Scope) -> Iterator[None]:
        """A call: one deeper, with its frame and names."""
        self.depth += 1
        self.frames.append(frame)
        self.scopes.append(scope)
        try:
            yield
        finally:
            self.depth -= 1
            self.frames.pop()
            self.scopes.pop()


def reachable(roots: list[Any]) -> list[Box]:
    """All boxes that can be reached from some values."""
    found: dict[int, Box] = {}
    seen: set[int] = set()
    queue = list(roots)
    while queue:
        value = queue.pop()
        if isinstance(value, str | int | float | bytes | type(None) | Unknown) or id(value) in seen:
            continue
        seen.add(id(value))
        if isinstance(value, Box):
            found[id(value)] = value
        queue.extend(_inner(value))
    return list(found.values())


def _inner(value: Any) -> list[Any]:
    if isinstance(value, dict):
        return list(value.values())
    if isinstance(value, tuple | list):
        return list(value)
    if isinstance(value, Function):
        return [value.scope, *value.defaults.values(), *value.contexts]
    if isinstance(value, Bound):
        return [value.function, value.self]
    if isinstance(value, Class):
        return [value.scope, *value.bases]
    if isinstance(value, Attribute):
        return [value.owner]
    if isinstance(value, Super):
        return [value.cls, value.self]
    if not isinstance(value, Box):
        return []
    inner = list(value.state.values())
    if isinstance(value, Scope) and value.parent is not None:
        inner.append(value.parent)
    if isinstance(value, Made):
        inner += [*value.args, value.keywords]
    return [*inner, getattr(value, "cls", None)]


def merge(run: Run, first: State, second: State, choose: Callable[[Any, Any], Any]) -> None:
    """Make the state that holds after either of two branches; ``choose`` settles what differs."""
    for box in {**first, **second}:
        one, other = first.get(box), second.get(box)
        if one is None or other is None:
            box.state = {**(one or {}), **(other or {})}
            continue
        joined = {**one, **other}
        for name in joined:
            if name not in one or name not in other or one[name] is other[name]:
                continue
            if name in UNITED:
                joined[name] = {**one[name], **other[name]}
            elif isinstance(box, Mapped) and name == "items":
                joined[name] = _joined(one[name], other[name], choose)
            elif isinstance(box, Sequence):
                joined |= {"items": max(one["items"], other["items"], key=len), "open": True}
            else:
                joined[name] = choose(one[name], other[name])
        box.state = joined


def _joined(
    one: dict[Any, Any], other: dict[Any, Any], choose: Callable[[Any, Any], Any]
) -> dict[Any, Any]:
    """The entries of a dictionary after either of two branches."""
    both = {**one, **other}
    for key in one.keys() & other.keys():
        if one[key] is not other[key]:
            both[key] = choose(one[key], other[key])
    return both
