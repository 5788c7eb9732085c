"""Files that are written whole."""

from __future__ import annotations

from pathlib import Path

import pytest

from engine.files import replacing, write_text


def test_a_text_replaces_what_was_there_and_leaves_nothing_beside_it(tmp_path: Path) -> None:
    file = tmp_path / "new" / "one.txt"
    write_text(file, "first")
    write_text(file, "zweites, mit Umlaut: ü")
    assert file.read_text(encoding="utf-8") == "zweites, mit Umlaut: ü"
    assert list(file.parent.iterdir()) == [file]


def test_what_fails_half_way_leaves_the_old_file(tmp_path: Path) -> None:
    file = tmp_path / "one.txt"
    write_text(file, "old")

    def half() -> None:
        with replacing(file) as partial:
            partial.write_text("ha")
            assert file.read_text() == "old"
            raise OSError("no space left")

    with pytest.raises(OSError, match="no space"):
        half()
    assert file.read_text() == "old"
    assert list(tmp_path.iterdir()) == [file]
