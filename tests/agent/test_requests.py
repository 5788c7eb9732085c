"""Three requests that were answered by hand through the mailbox, answered again from the recording.

``python -m tests.agent.requests`` made the recordings.
"""

from __future__ import annotations

from pathlib import Path

import pytest

from engine.reading import read
from engine.specification import mismatches
from tests.agent.requests import RECORDINGS, REQUESTS, Compose, replayed, specification

WRITTEN = ("ddim-deepcache", "unipc-tome")


@pytest.mark.slow
@pytest.mark.parametrize("name", REQUESTS)
def test_a_recorded_request_is_answered_with_the_same_program(
    name: str, tmp_path: Path, composed: Compose
) -> None:
    made = replayed(composed, name, tmp_path)
    kept = (RECORDINGS / name / "program.txt").read_text(encoding="utf-8")
    assert made.program == kept
    assert made.written
    if name in WRITTEN:
        assert made.calls == 1
        assert made.trial is None
    else:
        assert made.calls == 3
        assert made.met
        assert (made.figures["speedup"] or 0) >= 1.6


@pytest.mark.parametrize("name", REQUESTS)
def test_a_recorded_program_says_what_its_request_asks(name: str) -> None:
    text = (RECORDINGS / name / "program.txt").read_text(encoding="utf-8")
    assert mismatches(specification(name), read(text)) == ()
