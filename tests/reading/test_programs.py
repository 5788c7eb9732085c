"""Programs in many styles, each with every field that the reader must find in it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from engine.reading import Reading, effective_key, read

FOLDER = Path(__file__).with_name("programs")
EXPECTED: dict[str, dict[str, Any]] = json.loads(
    Path(__file__).with_name("expected.json").read_text(encoding="utf-8")
)
"""By program: the fields that it states, no others."""
NAMES = sorted(path.stem for path in FOLDER.glob("*.txt"))


def reading_of(name: str) -> Reading:
    return read((FOLDER / f"{name}.txt").read_text(encoding="utf-8"))


def fields_of(reading: Reading) -> dict[str, Any]:
    """What a reading says, without what it says nothing about."""
    data = reading.to_json()
    for name in ("methods", "dead"):
        data[name] = {method["name"]: method["settings"] for method in data[name]}
    data["unread"] = list(reading.unread)
    return {name: value for name, value in data.items() if value not in (None, {}, [])}


@pytest.mark.parametrize("name", NAMES)
def test_every_field_is_read_exactly(name: str) -> None:
    assert fields_of(reading_of(name)) == EXPECTED[name]


def test_every_program_has_its_row_and_there_are_enough() -> None:
    assert sorted(EXPECTED) == NAMES
    assert len(NAMES) >= 60


@pytest.mark.parametrize("name", NAMES)
def test_a_reading_survives_json(name: str) -> None:
    reading = reading_of(name)
    again = Reading.from_json(json.loads(json.dumps(reading.to_json())))
    assert again == reading
    assert effective_key(again) == effective_key(reading)
