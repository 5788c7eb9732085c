"""Headless Chromium for tests: what a page's body says after its scripts have run."""

from __future__ import annotations

import html
import os
import re
import shutil
import subprocess
from pathlib import Path

import pytest

FLAGS = (
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--allow-file-access-from-files",
    "--virtual-time-budget=20000",
    "--dump-dom",
)


def _browser() -> str:
    names = ("chromium", "chromium-browser", "google-chrome", "chrome")
    found = next((path for name in names if (path := shutil.which(name))), None)
    if found is None:
        pytest.skip("no chromium binary")
    return found


def body(page: Path, folder: Path) -> str:
    """The text of the body of a page that replaces it by JSON; ``folder`` is for the profile."""
    done = subprocess.run(
        [_browser(), *FLAGS, f"--user-data-dir={folder / 'profile'}", page.as_uri()],
        capture_output=True,
        text=True,
        timeout=120,
        env=os.environ | {"HOME": str(folder)},
        check=True,
    )
    match = re.search(r"<body>([\[{].*[\]}])</body>", done.stdout, re.DOTALL)
    assert match is not None, done.stdout[-500:] + done.stderr[-500:]
    return html.unescape(match.group(1))
