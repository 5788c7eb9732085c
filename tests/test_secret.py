"""A study's secret: one for all its jobs, and nothing else tells what it leads to."""

from __future__ import annotations

from pathlib import Path

import pytest

from engine import proposals
from engine.errors import UsageError
from engine.search import Proposal
from engine.secret import Secret


def test_a_folder_keeps_its_secret_and_another_has_another(tmp_path: Path) -> None:
    first = Secret.of(tmp_path / "a")
    assert Secret.of(tmp_path / "a") == first
    assert Secret.of(tmp_path / "b") != first
    assert (tmp_path / "a" / "secret.json").stat().st_mode & 0o077 == 0
    assert not list((tmp_path / "a").glob("*.partial"))


def test_what_follows_from_a_secret_is_the_same_again_and_differs_by_purpose() -> None:
    secret = Secret("0" * 32)
    assert secret.number("search", 3) == secret.number("search", 3)
    assert len({secret.number("search", 3), secret.number("search", 4), secret.number("x", 3)}) == 3
    assert secret.rng("a").integers(1000) == secret.rng("a").integers(1000)


def test_a_damaged_secret_is_named(tmp_path: Path) -> None:
    (tmp_path / "secret.json").write_text("{}")
    with pytest.raises(UsageError, match=r"secret\.json is damaged"):
        Secret.of(tmp_path)


def test_a_proposal_keeps_its_program_and_is_known_by_it(tmp_path: Path) -> None:
    written = Proposal({}, "model", (1, 2), "print('x')", "half the steps")
    proposals.write(tmp_path, 7, written)
    assert proposals.read(tmp_path) == written
    assert written.key != Proposal({}, "model").key
    assert written.key == Proposal({}, "other", (), "print('x')").key
