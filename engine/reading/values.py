"""Values of the interpreter: Python's own constants, and stand-ins for what only a run would make.

Whatever a program can change lies in the ``state`` of a :class:`Box`, whose values are replaced and
never changed in place, so that a shallow copy of all states is a snapshot.
"""

from __future__ import annotations

import ast
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

CONSTANTS = (bool, int, float, str, bytes, type(None))


@dataclass(frozen=True)
class Unknown:
    """A value that the text does not tell.

    ``why`` says so in words. ``given`` marks what the program's caller hands in, which is no gap
    in the text. ``none`` marks what is None unless the caller hands in something. ``tags`` say
    what it was made from, such as the name of an edge detector.
    """

    why: str = "not known"
    given: bool = False
    none: bool = False
    tags: frozenset[str] = frozenset()


@dataclass(frozen=True)
class Maybe:
    """A condition that hangs on the machine; ``likely`` is what it is on an accelerator."""

    likely: bool


@dataclass(frozen=True)
class Ref:
    """Something imported, or a builtin, by its dotted name."""

    path: str

    @property
    def leaf(self) -> str:
        return self.path.rpartition(".")[2]

    @property
    def root(self) -> str:
        return self.path.partition(".")[0]


class Box:
    """A value with a state; equal only to itself."""

    def __init__(self, state: Mapping[str, Any] | None = None) -> None:
        self.state: dict[str, Any] = dict(state or {})


class Scope(Box):
    """Names of a module, class body or call."""

    def __init__(self, parent: Scope | None, *, is_class: bool = False) -> None:
        super().__init__()
        self.parent = parent
        self.is_class = is_class
        self.outer: dict[str, Scope] = {}
        """Names that ``global`` or ``nonlocal`` send elsewhere."""

    def find(self, name: str) -> Scope | None:
        """The scope that holds a name; bodies of classes are closed to the functions inside."""
        if name in self.outer:
            return self.outer[name]
        scope: Scope | None = self
        while scope is not None:
            if name in scope.state and (scope is self or not scope.is_class):
                return scope
            scope = scope.parent
        return None

    def put(self, name: str, value: Any) -> None:
        self.outer.get(name, self).state[name] = value

    @property
    def module(self) -> Scope:
        scope = self
        while scope.parent is not None:
            scope = scope.parent
        return scope


class Sequence(Box):
    """A list, set, deque or generator; ``open`` if there may be more than its items."""

    def __init__(self, items: Iterable[Any] = (), *, open_: bool = False) -> None:
        super().__init__({"items": tuple(items), "open": open_})

    @property
    def items(self) -> tuple[Any, ...]:
        found: tuple[Any, ...] = self.state["items"]
        return found


class Mapped(Box):
    """A dictionary with known keys; ``open`` holds why there may be others, or None."""

    def __init__(
        self, items: Mapping[Any, Any] | None = None, open_: Unknown | None = None
    ) -> None:
        super().__init__({"items": dict(items or {}), "open": open_})

    @property
    def items(self) -> dict[Any, Any]:
        found: dict[Any, Any] = self.state["items"]
        return found

    @property
    def open(self) -> Unknown | None:
        found: Unknown | None = self.state["open"]
        return found

    def put(self, key: Any, value: Any) -> None:
        self.state["items"] = {**self.items, key: value}

    def update(self, other: Any) -> None:
        """Lay another mapping over this one; one that is not known leaves it open."""
        if isinstance(other, Mapped):
            self.state["items"] = {**self.items, **other.items}
            self.state["open"] = self.open or other.open
        elif isinstance(other, Namespace):
            self.state["items"] = {**self.items, **other.state}
        else:
            self.state["open"] = other if isinstance(other, Unknown) else Unknown()


class Namespace(Box):
    """Attributes by name: parsed arguments, SimpleNamespace, a config."""


class Instance(Box):
    """An object of a class of the program."""

    def __init__(self, cls: Class) -> None:
        super().__init__()
        self.cls = cls


class Made(Box):
    """What a call of a library gave: its name and arguments."""

    def __init__(self, ref: Ref, args: tuple[Any, ...], keywords: Mapped, line: int) -> None:
        super().__init__()
        self.ref = ref
        self.args = args
        self.keywords = keywords
        self.line = line

    def argument(self, place: int, *names: str) -> Any:
        """An argument by its place or one of its names; None if there is none."""
        if place < len(self.args):
            return self.args[place]
        return next((self.keywords.items[n] for n in names if n in self.keywords.items), None)


class Scheduler(Box):
    """A scheduler: ``class`` is its name, ``settings`` what its construction states."""

    def __init__(self, name: str | None, settings: Mapping[str, Any]) -> None:
        super().__init__({"class": name, "settings": dict(settings)})


class Model(Box):
    """A network: ``active`` are the methods in effect on it by name."""

    def __init__(self, name: str, **state: Any) -> None:
        super().__init__({"active": {}, "dtype": None, **state})
        self.name = name


class Pipe(Box):
    """A pipeline. State: ``class``, ``id``, ``revision``, ``controlnet``, ``dtype``,
    ``scheduler`` (None: its own), ``parts`` (networks by name), ``active`` (methods)."""

    def __init__(self, cls: Class | None = None, **state: Any) -> None:
        super().__init__({"parts": {}, "active": {}, "dtype": None, "scheduler": None, **state})
        self.cls = cls


@dataclass(frozen=True, eq=False)
class Class:
    """A class of the program; ``bases`` are classes or references."""

    name: str
    scope: Scope
    bases: tuple[Any, ...]
    is_data: bool = False
    fields: tuple[str, ...] = ()

    def lookup(self, name: str) -> Any:
        """An attribute of the class or its bases; :data:`MISSING` if there is none."""
        if name in self.scope.state:
            return self.scope.state[name]
        for base in self.bases:
            if isinstance(base, Class):
                found = base.lookup(name)
                if found is not MISSING:
                    return found
        return MISSING

    def library_base(self) -> Ref | None:
        """The nearest base that is no class of the program."""
        for base in self.bases:
            found = base if isinstance(base, Ref) else None
            if isinstance(base, Class):
                found = base.library_base()
            if found is not None:
                return found
        return None


@dataclass(frozen=True, eq=False)
class Function:
    """A function, method or lambda of the program."""

    name: str
    node: ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda
    scope: Scope
    defaults: Mapping[str, Any]
    kind: str = "function"
    """function, static, class, property or context (a generator as context manager)."""
    contexts: tuple[Any, ...] = ()
    """Context managers that decorate it."""
    owner: Class | None = None


@dataclass(frozen=True, eq=False)
class Bound:
    """A method with the object that it is called on."""

    function: Function
    self: Any


@dataclass(frozen=True, eq=False)
class Attribute:
    """A method of a value that is no object of the program, such as ``pipe.to``."""

    owner: Any
    name: str


@dataclass(frozen=True, eq=False)
class Super:
    """What ``super()`` gave: attributes of the bases of ``cls``."""

    cls: Class
    self: Any


MISSING = object()
"""Stands where there is nothing, not even None."""


def is_constant(value: Any) -> bool:
    """Whether a value is known in full: a constant or a tuple of such."""
    if isinstance(value, tuple):
        return all(map(is_constant, value))
    return isinstance(value, CONSTANTS)


def tags_of(*values: Any) -> frozenset[str]:
    """What values were made from, looked for inside sequences too."""
    found: frozenset[str] = frozenset()
    for value in values:
        if isinstance(value, Unknown):
            found |= value.tags
        elif isinstance(value, Sequence):
            found |= tags_of(*value.items)
        elif isinstance(value, tuple):
            found |= tags_of(*value)
    return found


def derived(why: str, *values: Any) -> Unknown:
    """What is made of values of which some are not known: it inherits their reason and tags."""
    first = next((v for v in values if isinstance(v, Unknown)), None)
    given = any(v.given for v in values if isinstance(v, Unknown))
    tags = tags_of(*values)
    if first is None:
        return Unknown(why, tags=tags)
    return replace(first, given=given, none=False, tags=tags)


@dataclass
class Frame:
    """One call in progress: its function, and what it has given so far."""

    function: Function
    returned: list[Any] = field(default_factory=list)
    yielded: list[Any] = field(default_factory=list)
    stops_at_yield: bool = False
