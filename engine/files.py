"""Files that are written whole: a reader sees the old one or the new one, never half of it."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from pathlib import Path


@contextlib.contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """A path beside ``path`` to write to, which takes its place when the block ends; after an
    exception it is gone, and what stood at ``path`` stays."""
    path.parent.mkdir(parents=True, exist_ok=True)
    # Shards of a benchmark and jobs of a study write the same file.
    partial = path.with_name(f"{path.name}.{os.getpid()}.partial")
    try:
        yield partial
        os.replace(partial, path)
    finally:
        partial.unlink(missing_ok=True)


def write_text(path: Path, text: str) -> None:
    """Write a text in UTF-8, whole."""
    with replacing(path) as partial:
        partial.write_text(text, encoding="utf-8")
