"""What a strategy file declares, and the registry that finds the files.

A strategy is one module: a frozen dataclass under :func:`strategy` whose fields are the genes,
and up to five functions (``load``, ``apply``, ``place``, ``call``, ``reset``) that the program
generator copies, plus ``active``, ``unfit`` and ``further_weights``, which only the engine calls.
One whose settings must be measured on the model also has ``calibrate`` and ``calibrated``
(``engine.calibration``).
Importing such a module must stay cheap: torch and diffusers are imported inside the functions.
"""

from __future__ import annotations

import dataclasses
import difflib
import importlib
import pkgutil
import typing
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import cache
from importlib.metadata import entry_points
from types import ModuleType
from typing import Any, Protocol, TypeVar

from engine.errors import UsageError

Value = bool | int | float | str
FUNCTIONS = ("load", "apply", "place", "call", "reset")
"""Functions that the generator copies into a program, in the order of their use."""
PLACED = 90
"""Order from which ``apply`` runs after the pipeline was moved to its device (compilation)."""


class Context(Protocol):
    """The literal that a program carries as ``CTX`` and hands to every strategy function.

    Programs that start from an image have ``strength`` as well: of ``steps`` only that share runs.
    """

    steps: int
    guidance_scale: float
    height: int
    width: int
    batch: int
    device: str
    dtype: str


@dataclass(frozen=True)
class Gene:
    """One searched value: a number within bounds, or one of ``choices``."""

    name: str
    default: Value
    doc: str
    low: float | None = None
    high: float | None = None
    step: float | None = None
    choices: tuple[Value, ...] = ()
    sets: str | None = None
    """Name of the field of the context that this gene decides, such as ``steps``."""

    @property
    def allowed(self) -> str:
        """The legal values in words."""
        if self.choices:
            return "one of " + ", ".join(map(str, self.choices))
        return f"{_short(self.low)} to {_short(self.high)}" + (
            f" in steps of {_short(self.step)}" if self.step else ""
        )

    def values(self) -> list[Value]:
        """Every legal value in order; floats lie on the grid of ``step``."""
        if self.choices:
            return list(self.choices)
        assert self.low is not None
        assert self.high is not None
        assert self.step is not None
        count = round((self.high - self.low) / self.step) + 1
        grid = [self.low + i * self.step for i in range(count)]
        return [int(v) if isinstance(self.default, int) else round(v, 6) for v in grid]

    def checked(self, value: object) -> Value:
        """The value in its canonical type; raises ValueError that names what is allowed."""
        if self.choices:
            if value not in self.choices:
                raise ValueError(f"is {value!r}; allowed: {self.allowed}")
            return self.choices[self.choices.index(value)]
        if isinstance(value, bool) or not isinstance(value, int | float):
            raise ValueError(f"is {value!r}; allowed: {self.allowed}")
        assert self.low is not None
        assert self.high is not None
        if not self.low <= value <= self.high:
            raise ValueError(f"is {value}; allowed: {self.allowed}")
        if isinstance(self.default, int):
            if value != int(value):
                raise ValueError(f"is {value}; allowed: whole numbers, {self.allowed}")
            return int(value)
        return round(float(value), 6)


def _short(number: float | None) -> str:
    return f"{number:g}" if number is not None else "any"


def gene(
    default: Value,
    doc: str,
    *,
    low: float | None = None,
    high: float | None = None,
    step: float | None = None,
    choices: tuple[Value, ...] = (),
    sets: str | None = None,
) -> Any:
    """Declare a field of a strategy's dataclass: its default, bounds or choices, and meaning.

    Numbers need ``low``, ``high`` and ``step`` (the grid of the search; any value within the
    bounds is legal).
    """
    if not choices and (low is None or high is None or step is None):
        raise TypeError("a numeric gene needs low, high and step; any other needs choices")
    declared = {
        "doc": doc,
        "low": low,
        "high": high,
        "step": step,
        "choices": choices,
        "sets": sets,
    }
    return field(default=default, metadata=declared)


@dataclass(frozen=True)
class Needs:
    """What must hold for a strategy to apply; empty means anything goes.

    ``modules`` are class names that must occur inside the denoiser, ``methods`` are methods that it
    must have, ``parts`` are components that the pipeline must have, ``inputs`` are parameters that
    the pipeline's call must take: all are probed on the loaded pipeline. ``tools`` are programs of
    which one must be on the PATH where the device is a CPU. ``prediction`` is what the denoiser
    predicts (noise, v or flow), read from the pipeline's scheduler. ``guidance`` asks for
    classifier-free guidance with both halves in one batch, read from the source of its call.
    """

    backbone: tuple[str, ...] = ()
    modules: tuple[str, ...] = ()
    methods: tuple[str, ...] = ()
    parts: tuple[str, ...] = ()
    inputs: tuple[str, ...] = ()
    tools: tuple[str, ...] = ()
    guidance: bool = False
    fused_lora: bool = False
    """Whether a LoRA must be part of the weights; one that is a layer of its own would be lost."""
    devices: tuple[str, ...] = ()
    dtypes: tuple[str, ...] = ()
    libraries: tuple[str, ...] = ()
    prediction: tuple[str, ...] = ()
    capability: tuple[tuple[str, Value, float], ...] = ()
    """Own genes with a value that not every CUDA device runs, and the least compute capability
    that does."""
    below: tuple[tuple[str, str], ...] = ()
    """Pairs of an own gene and ``strategy.gene``: where that strategy is on, the own value must be
    smaller than its value. Both are fractions of the denoising steps, compared in whole steps too
    where the genome says how many there are."""


@dataclass(frozen=True)
class KnownGood:
    """A setting that someone published or measured, with its source; it seeds searches."""

    genes: Mapping[str, Value]
    source: str


@dataclass(frozen=True)
class Declared:
    """The data that the decorator attaches to a strategy's dataclass."""

    slot: str
    order: int
    exact: bool
    needs: Needs
    conflicts: tuple[str, ...]
    known_good: tuple[KnownGood, ...]
    timed_only: bool
    overhead: bool
    for_memory: bool
    first_call_s: float


_T = TypeVar("_T", bound=type)


def strategy(
    *,
    slot: str,
    order: int,
    exact: bool,
    needs: Needs | None = None,
    conflicts: tuple[str, ...] = (),
    known_good: tuple[KnownGood, ...] = (),
    timed_only: bool = False,
    overhead: bool = False,
    for_memory: bool = False,
    first_call_s: float = 0.0,
) -> Callable[[_T], _T]:
    """Mark a frozen dataclass as a strategy's genes.

    ``slot``: at most one strategy per slot in a genome. ``order``: place in ``accelerate``,
    lower first (5 precision, 10 scheduler, 30 fusion, 35 quantization, 40 layout, 45 VAE,
    50 attention, 60 tokens, 70 caches, 80 guidance, 85 placement, from 90 after the move to the
    device: 95 compilation). ``exact``: the picture stays the same up to rounding.
    ``timed_only``: it changes seconds or memory and no counted operation, so a search by counted
    operations leaves it out. ``overhead``: it counts fewer operations and takes time of its own for
    it, so that on some machines it is slower. Techniques of both kinds are measured alone before a
    search. ``for_memory``: it saves memory and no time, so a search leaves it
    out unless the goal names memory. ``first_call_s``: seconds that it typically adds to the first
    call on a CPU; a search there leaves it out when that exceeds its limit.
    """

    def mark(cls: _T) -> _T:
        if not dataclasses.is_dataclass(cls):
            raise TypeError(f"{cls.__name__} must be a dataclass")
        cls.__strategy__ = Declared(  # type: ignore[attr-defined]
            slot=slot,
            order=order,
            exact=exact,
            needs=needs or Needs(),
            conflicts=conflicts,
            known_good=known_good,
            timed_only=timed_only,
            overhead=overhead,
            for_memory=for_memory,
            first_call_s=first_call_s,
        )
        return cls

    return mark


@dataclass(frozen=True)
class Strategy:
    """One registered strategy: its declared data, its genes and its module."""

    name: str
    module: ModuleType
    genes: Mapping[str, Gene]
    slot: str
    order: int
    exact: bool
    needs: Needs
    conflicts: tuple[str, ...]
    known_good: tuple[KnownGood, ...]
    timed_only: bool
    overhead: bool
    for_memory: bool
    first_call_s: float

    @property
    def summary(self) -> str:
        return (self.module.__doc__ or "").strip().partition("\n")[0]

    def function(self, name: str) -> Callable[..., Any] | None:
        found: Callable[..., Any] | None = getattr(self.module, name, None)
        return found

    def defaults(self) -> dict[str, Value]:
        return {name: g.default for name, g in self.genes.items()}

    def checked(self, genes: Mapping[str, object]) -> dict[str, Value]:
        """All genes in canonical form, missing ones at their default.

        Raises UsageError that names the gene, what is allowed and the nearest name.
        """
        for name in genes:
            if name not in self.genes:
                raise UsageError(
                    f"technique {self.name} has no gene {name!r}{nearest(name, self.genes)}"
                )
        values = self.defaults()
        for name, value in genes.items():
            try:
                values[name] = self.genes[name].checked(value)
            except ValueError as error:
                raise UsageError(f"technique.{self.name}.{name} {error}") from None
        return values


def nearest(name: str, known: Any) -> str:
    """``; did you mean x?`` with the nearest of the known names, and all of them."""
    names = sorted(known)
    close = difflib.get_close_matches(name, names, n=2, cutoff=0.5)
    hint = f"; did you mean {' or '.join(close)}?" if close else ""
    return f"{hint} (known: {', '.join(names)})"


def _read(module: ModuleType) -> Strategy:
    found = [
        value
        for value in vars(module).values()
        if isinstance(value, type)
        and value.__module__ == module.__name__
        and hasattr(value, "__strategy__")
    ]
    if len(found) != 1:
        raise TypeError(f"{module.__name__} must define exactly one @strategy dataclass")
    cls = found[0]
    declared: Declared = cls.__strategy__
    genes = {
        f.name: Gene(f.name, typing.cast(Value, f.default), **f.metadata)
        for f in dataclasses.fields(cls)
    }
    return Strategy(
        name=module.__name__.rpartition(".")[2],
        module=module,
        genes=genes,
        **{f.name: getattr(declared, f.name) for f in dataclasses.fields(Declared)},
    )


@cache
def registry() -> Mapping[str, Strategy]:
    """Every strategy by name: the files of ``strategies/`` and the entry points of that group."""
    import strategies

    modules = [
        importlib.import_module(f"strategies.{found.name}")
        for found in pkgutil.iter_modules(strategies.__path__)
    ]
    modules += [point.load() for point in entry_points(group="engine.strategies")]
    known = {s.name: s for s in map(_read, modules)}
    return dict(sorted(known.items(), key=lambda item: (item[1].order, item[0])))


def find(name: str) -> Strategy:
    """The strategy of that name; raises UsageError with the nearest names."""
    known = registry()
    if name not in known:
        raise UsageError(f"unknown technique {name!r}{nearest(name, known)}")
    return known[name]
