"""Options of a searcher: their types and bounds are read from its dataclass of options.

Each option is a field that carries its bounds, so that a wrong value is refused in one way
whatever the searcher.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, TypeVar

from engine.errors import UsageError
from engine.strategy import nearest

_Options = TypeVar("_Options")


@dataclass(frozen=True)
class Without:
    """The options of a searcher that has none."""


def option(
    default: bool | int | float | str,
    *,
    low: float = 0,
    high: float = math.inf,
    choices: tuple[str, ...] = (),
) -> Any:
    """Declare an option: its default, whose type it keeps, and the bounds or choices."""
    bounds = {"low": low, "high": high, "choices": choices}
    return dataclasses.field(default=default, metadata=bounds)


def parsed(kind: type[_Options], search: str, given: Mapping[str, object]) -> _Options:
    """The options of ``search`` from what was given; raises UsageError that says what is allowed.

    ``kind`` is a dataclass all of whose fields are declared with :func:`option`.
    """
    known: dict[str, dataclasses.Field[Any]] = {
        field.name: field
        for field in dataclasses.fields(kind)  # type: ignore[arg-type]
    }
    for name, value in given.items():
        if not known:
            raise UsageError(f"search.{name} is unknown: search={search} has no options")
        if name not in known:
            raise UsageError(f"search={search} has no option {name!r}{nearest(name, known)}")
        if allowed := _broken(known[name], value):
            raise UsageError(f"search.{name} is {value!r}; allowed: {allowed}")
    return kind(**given)


def _broken(field: dataclasses.Field[Any], value: object) -> str | None:
    """What is allowed, in words, where the value is not; None where it is."""
    low, high, choices = (field.metadata[name] for name in ("low", "high", "choices"))
    if isinstance(field.default, bool):
        return None if isinstance(value, bool) else "true or false"
    if choices:
        return None if value in choices else " or ".join(choices)
    bounds = f"from {low:g}" if high == math.inf else f"{low:g} to {high:g}"
    whole = isinstance(field.default, int)
    types = int if whole else int | float
    if isinstance(value, bool) or not isinstance(value, types) or not low <= value <= high:
        return f"whole numbers {bounds}" if whole else bounds
    return None
