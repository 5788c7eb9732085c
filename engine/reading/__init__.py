"""What a program says that it does, read without running it.

:func:`read` interprets the syntax tree with known values instead of images: constants, names,
functions that are called, classes, defaults of a command line. What hangs on something that only a
run would tell is named in :attr:`Reading.unread`, never guessed. Needs the standard library and
the catalogue of ``conf/model``; neither torch nor the network.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

Value = bool | int | float | str
GIVEN = "given"
"""The preprocessor of a program whose caller hands in the control image as the ControlNet reads
it."""


class NotPython(Exception):
    """The text is no Python program; ``line`` counts from one."""

    def __init__(self, line: int, message: str) -> None:
        super().__init__(f"line {line}: {message}")
        self.line = line
        self.message = message


@dataclass(frozen=True)
class Method:
    """One technique that a program names, with the settings that it states.

    ``name`` is the technique's name in ``strategies/`` where it has one (deepcache, tome, tgate,
    compile, ...), else the library's own word for it (autocast, xformers, lora, ...). Settings
    have the names of the technique's genes where these say the same thing; ``line`` is where the
    method takes effect, or where it is named if it never does.
    """

    name: str
    settings: Mapping[str, Value] = field(default_factory=dict)
    line: int = 0


@dataclass(frozen=True)
class Reading:
    """What a program does with its pipeline, as far as its text says.

    None means not stated, so that the pipeline's own value holds; what is stated and cannot be
    read is None too and named in ``unread``, a sentence each that begins with the field's name.
    ``pipeline`` and ``scheduler`` are class names of diffusers. Sizes are pixels, ``dtype`` is
    float32, float16 or bfloat16. ``preprocessor`` is what the control image is made with, or
    :data:`GIVEN`. ``methods`` take effect in the call that counts, which is the
    last one; ``dead`` are named in code that never runs, or undone or never switched on before it.
    """

    pipeline: str | None = None
    model_id: str | None = None
    revision: str | None = None
    controlnet: str | None = None
    scheduler: str | None = None
    scheduler_settings: Mapping[str, Value] = field(default_factory=dict)
    steps: int | None = None
    guidance_scale: float | None = None
    height: int | None = None
    width: int | None = None
    strength: float | None = None
    dtype: str | None = None
    preprocessor: str | None = None
    negative_prompt: str | None = None
    methods: tuple[Method, ...] = ()
    dead: tuple[Method, ...] = ()
    unread: tuple[str, ...] = ()

    def method(self, name: str) -> Method | None:
        """The live method of that name."""
        return next((found for found in self.methods if found.name == name), None)

    def to_json(self) -> dict[str, Any]:
        """Plain data that ``json`` takes."""
        return dataclasses.asdict(self)

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> Reading:
        """The reverse of :meth:`to_json`."""
        lists = {
            name: tuple(Method(**method) for method in data.get(name, ()))
            for name in ("methods", "dead")
        }
        return cls(**{**data, **lists, "unread": tuple(data.get("unread", ()))})


def read(text: str) -> Reading:
    """What the program says; raises :class:`NotPython` where Python's own parser refuses it."""
    from engine.reading.reader import reading_of

    return reading_of(text)


def effective_key(reading: Reading) -> str:
    """16 hexadecimal digits of what the program does; see :func:`engine.reading.keys.key_of`."""
    from engine.reading.keys import key_of

    return key_of(reading)
