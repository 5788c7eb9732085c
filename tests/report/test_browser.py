"""The page in a real browser: nothing wider than the window, all pictures drawn."""

from __future__ import annotations

import json
from html import escape
from pathlib import Path
from typing import Any

import pytest

from engine.report import write_study_report
from tests.report.chromium import body
from tests.report.small_study import FRONT, Study

WIDTHS = (1280, 400, 360)
MEASURE = """
const found = [];
for (const frame of document.querySelectorAll('iframe')) {
  const page = frame.contentDocument;
  for (const fold of page.querySelectorAll('details')) fold.open = true;
  const shown = [...page.querySelectorAll('.plot')].filter(p => p.getClientRects().length);
  found.push({
    inner: frame.contentWindow.innerWidth,
    scroll: page.documentElement.scrollWidth,
    plots: shown.map(p => p.className),
    letters: Math.min(...shown.map(p => {
      const svg = p.querySelector('svg');
      return 12 * svg.getBoundingClientRect().width / svg.viewBox.baseVal.width;
    })),
    pictures: [...page.querySelectorAll('svg.picture use')].map(
      u => u.getBoundingClientRect().width),
    scripts: page.scripts.length,
  });
}
document.body.textContent = JSON.stringify(found);
"""


def _measure(page: str, folder: Path) -> list[dict[str, Any]]:
    """Lay the page out in frames of several widths; each frame has the page's own policy."""
    frames = "".join(
        f'<iframe style="border:0;width:{width}px;height:900px" srcdoc="{escape(page)}"></iframe>'
        for width in WIDTHS
    )
    script = f"<script>window.addEventListener('load', () => {{{MEASURE}}});</script>"
    wrapper = folder / "wrapper.html"
    wrapper.write_text(f"<!DOCTYPE html><body>{frames}{script}</body>", encoding="utf-8")
    text = body(wrapper, folder)
    found: list[dict[str, Any]] = json.loads(text)
    return found


@pytest.fixture(scope="module")
def layouts(study: Study, tmp_path_factory: pytest.TempPathFactory) -> list[dict[str, Any]]:
    page = write_study_report(study.folder).read_text(encoding="utf-8")
    return _measure(page, tmp_path_factory.mktemp("browser"))


def test_the_page_never_scrolls_sideways(layouts: list[dict[str, Any]]) -> None:
    assert [found["inner"] for found in layouts] == list(WIDTHS)
    assert [found["scroll"] for found in layouts if found["scroll"] > found["inner"]] == []


def test_one_drawing_of_each_plot_is_shown_with_readable_letters(
    layouts: list[dict[str, Any]],
) -> None:
    # The front, and the genealogy of each of its points.
    assert [found["plots"] for found in layouts] == [
        ["plot wide"] * (1 + len(FRONT)),
        ["plot narrow"] * (1 + len(FRONT)),
        ["plot narrow"] * (1 + len(FRONT)),
    ]
    assert min(found["letters"] for found in layouts) >= 10


def test_every_picture_is_drawn_and_no_script_runs(layouts: list[dict[str, Any]]) -> None:
    for found in layouts:
        assert len(found["pictures"]) == 3 * 36 * 2
        assert min(found["pictures"]) >= 60
        assert found["scripts"] == 0
