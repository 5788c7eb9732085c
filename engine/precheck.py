"""What is known to be wrong before Hydra composes anything is refused in one line."""

from __future__ import annotations

import os
import re
import shutil
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from engine.call import MULTIRUN, OTHER_CONF, Call, groups
from engine.config import CONF, keys, unknown_key
from engine.errors import UsageError, line
from engine.llms import check_override
from engine.strategy import find, nearest

if TYPE_CHECKING:
    from hydra.core.override_parser.types import Override

FREE_SPACE = 200 * 2**20
"""Bytes that must be free where results are written."""


def precheck(call: Call) -> None:
    """Refuse what can be known to be wrong before Hydra composes anything."""
    from hydra.core.override_parser.overrides_parser import OverridesParser
    from hydra.errors import HydraException

    parser = OverridesParser.create()
    multirun = bool(MULTIRUN & set(call.flags))
    foreign = any(flag.partition("=")[0] in OTHER_CONF for flag in call.flags)
    overrides: list[Override] = []
    for text in call.overrides:
        if "=" not in text and not text.startswith("~"):
            raise UsageError(f"{text!r} is no setting; type key=value, such as model=sd-mini")
        try:
            overrides.append(parser.parse_override(text))
        except HydraException as error:
            raise UsageError(
                f"cannot read {text!r}: {line(error)}; close brackets and quotes, and quote "
                "special characters, such as \"key='a, b'\""
            ) from error
        if overrides[-1].is_sweep_override() and not call.shows and not multirun:
            raise UsageError(
                f"{text!r} has several values; add -m to run each, or write key=[a,b] for a list"
            )
        foreign |= overrides[-1].key_or_group == "hydra.searchpath"
    for override in overrides:
        name = override.key_or_group
        if not re.match(r"hydra([./]|$)", name) and not override.is_delete():
            _check(override, name, foreign)
    _check_selection(overrides)
    if not call.shows:
        check_outputs(Path((call.value("paths.outputs") or "outputs").strip("'\"")))


def _check(override: Override, name: str, foreign: bool) -> None:
    head, *tail = name.removeprefix("baseline.").split(".")
    schema = keys()
    if name in groups():
        options = sorted(path.stem for path in (CONF / name).glob("*.yaml"))
        for value in _names(_values(override)):
            if name == "technique":
                find(value)
            elif value not in options and not foreign:
                raise UsageError(f"unknown {name} {value!r}{nearest(value, options)}")
    elif head == "technique" and tail:
        for value in _values(override):
            genes = {".".join(tail[1:]): value} if tail[1:] else value
            if not isinstance(genes, dict):
                raise UsageError(f"{name}={value} names no gene; type {name}.GENE=VALUE")
            find(tail[0]).checked(genes)
    elif name in schema:
        for value in _values(override):
            if not (isinstance(value, str) and "${" in value):
                schema[name].checked(value)
                check_override(name, value)
    elif not (foreign and override.is_add()):
        raise unknown_key(name)


def _check_selection(overrides: Sequence[Override]) -> None:
    """Techniques that exclude each other, and genes of a technique that is not composed."""
    from engine.genome import canonical

    selected = composed_by_default()
    if any(o.key_or_group == "technique" for o in overrides):
        selected = set()
    known = True
    for override in overrides:
        if override.key_or_group == "technique":
            for value in _values(override):
                names = list(_names([value]))
                doubled = next((n for n in names if names.count(n) > 1), None)
                if doubled:
                    raise UsageError(f"technique {doubled} is named twice; name it once")
                given = {name: _given(overrides, name) for name in names}
                canonical(given)
                selected |= set(names)
        # An experiment may compose techniques too.
        known &= override.key_or_group != "experiment"
    for override in overrides:
        head, *tail = override.key_or_group.split(".")
        if head == "technique" and tail and known and tail[0] not in selected:
            both = ",".join([*sorted(selected), tail[0]])
            raise UsageError(
                f"{override.key_or_group} is set, but technique {tail[0]} is not composed; "
                f"add 'technique=[{both}]'"
            )


def _given(overrides: Sequence[Override], technique: str) -> dict[str, Any]:
    """The genes that the command line sets for a technique to one value each."""
    found = {}
    for override in overrides:
        head, _, gene = override.key_or_group.rpartition(".")
        if head == f"technique.{technique}" and not override.is_sweep_override():
            found[gene] = _plain(override.value())
    return found


def composed_by_default() -> set[str]:
    """The techniques of the defaults list of ``conf/config.yaml``."""
    from omegaconf import OmegaConf

    entries = OmegaConf.to_container(OmegaConf.load(CONF / "config.yaml").defaults)
    assert isinstance(entries, list)
    return {n for e in entries if isinstance(e, dict) for n in e.get("technique") or []}


def _values(override: Override) -> Iterator[Any]:
    """The values that an override may take; an interval sweep is left to its sweeper."""
    if not override.is_sweep_override():
        yield _plain(override.value())
    elif override.is_discrete_sweep():
        yield from map(_plain, override.sweep_iterator())


def _plain(value: Any) -> Any:
    return value.text if hasattr(value, "text") else value


def _names(values: Iterable[Any]) -> Iterator[str]:
    for value in values:
        yield from _names(map(_plain, value)) if isinstance(value, list) else [str(value)]


def check_outputs(folder: Path) -> None:
    """Refuse a folder of results that cannot be written or has less than 200 MB free."""
    place = folder.absolute()
    while not place.exists():
        place = place.parent
    if not place.is_dir() or not os.access(place, os.W_OK | os.X_OK):
        raise UsageError(f"cannot write to {folder} ({place}); type paths.outputs=FOLDER")
    free = shutil.disk_usage(place).free
    if free < FREE_SPACE:
        raise UsageError(
            f"only {free / 2**20:.0f} MB free at {folder}, {FREE_SPACE / 2**20:.0f} MB needed; "
            "free some or type paths.outputs=FOLDER"
        )
