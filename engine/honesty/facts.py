"""What the rules of honesty are told, and what they answer."""

from __future__ import annotations

from dataclasses import dataclass, field

from engine.worker.evidence import Evidence


@dataclass(frozen=True)
class Suspicion:
    """One reason to distrust a program. ``quarantine`` means: measure again in a fresh process on
    fresh prompts, and refuse the program only if it comes back."""

    code: str
    reason: str
    quarantine: bool = False

    def __str__(self) -> str:
        return f"{self.code}: {self.reason}"


@dataclass(frozen=True)
class Declared:
    """What is known of the program and of the task without running anything of it.

    ``base`` is what the worker saw of the trusted baseline in one image. ``methods`` are techniques
    that the program was to use: a plan's or a request's. ``prompts`` are prompts that anybody can
    know. Sizes are in pixels as the program is asked for them.
    """

    text: str = ""
    base: Evidence | None = None
    methods: tuple[str, ...] = ()
    height: int | None = None
    width: int | None = None
    images: int = 1
    threads: int | None = None
    first_call_s: float = 60.0
    prompts: tuple[str, ...] = ()


@dataclass(frozen=True)
class Again:
    """Prompts that were asked three times, twice with one seed and once with another; means."""

    repeated: float
    """Distance between the two pictures of one prompt and one seed."""
    reseeded: float
    """Distance between the pictures of one prompt and two seeds."""
    seconds: tuple[float, float]
    """Seconds of the first picture and of the one with another seed."""


@dataclass(frozen=True)
class Variant:
    """A request unlike those that were timed: asked size, delivered size or why there is none."""

    name: str
    asked: tuple[int, int]
    delivered: tuple[int, int] | None
    reason: str = ""


@dataclass(frozen=True)
class Measurements:
    """What the coordinator measured; whatever is None was not measured."""

    distances: tuple[float, str, str] | None = None
    """Smallest distance between pictures of prompts that the baseline tells apart, and these
    prompts."""
    own_first: tuple[float, float] | None = None
    """Share of the pictures that fit their own prompt best: the program's, the baseline's."""
    likeness: tuple[float, float] | None = None
    """Mean similarity of a picture to the baseline's of the same request, and of the baseline's
    to its pictures of other prompts, both by the scorer's image tower."""
    scores: tuple[float, float] | None = None
    """Mean score: the program's, the baseline's."""
    detail: float | None = None
    """Median share of the baseline's fine detail."""
    again: Again | None = None
    seconds: float | None = None
    seconds_base: float | None = None
    load_s: float | None = None
    load_base_s: float | None = None
    flops: float | None = None
    flops_base: float | None = None
    rate: float | None = None
    """Operations a second that the device reaches at best."""
    other: Evidence | None = None
    """What was seen for a prompt that anybody can know, beside one that nobody can."""
    variants: tuple[Variant, ...] = field(default=())
