"""The blind page and its votes; a browser votes as a person would."""

from __future__ import annotations

import base64
import json
import re
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from scipy.stats import binomtest

from engine.errors import UsageError
from engine.measure import statistics
from engine.report import blind, votes
from engine.report.material import Material, read_study
from tests.report.chromium import body
from tests.report.small_study import FAILED, HOSTILE, Study

PAIRS = 36


@pytest.fixture(scope="module")
def material(study: Study) -> Material:
    return read_study(study.folder)


@pytest.fixture(scope="module")
def ballot(material: Material) -> blind.Ballot:
    return blind.ballot(material, blind.choose(material, None))


@pytest.fixture(scope="module")
def page(material: Material) -> str:
    return blind.render(material, blind.choose(material, None))


def _data(page: str) -> dict[str, Any]:
    match = re.search(r'<script type="application/json" id="data">(.*?)</script>', page, re.DOTALL)
    assert match is not None
    found: dict[str, Any] = json.loads(match.group(1))
    return found


def test_the_recommended_trial_is_chosen_and_another_can_be(material: Material) -> None:
    assert blind.choose(material, None).trial == 7
    assert blind.choose(material, 9).trial == 9
    with pytest.raises(UsageError, match=r"no trial 99 .* of 3, 7, 9"):
        blind.choose(material, 99)
    with pytest.raises(UsageError, match="no pairs of pictures"):
        blind.choose(material, FAILED[0])


def test_a_study_without_pictures_is_refused(study: Study, tmp_path: Path) -> None:
    copy = Path(shutil.copytree(study.folder, tmp_path / "copy"))
    for folder in copy.glob("*/images"):
        shutil.rmtree(folder)
    with pytest.raises(UsageError, match=r"no trial in .* stored pictures"):
        blind.choose(read_study(copy), None)


def test_sides_are_balanced_mixed_and_the_same_each_time(
    material: Material, ballot: blind.Ballot
) -> None:
    assert len(ballot.pairs) == PAIRS
    assert sum(ballot.candidate_left) == PAIRS // 2
    assert list(ballot.candidate_left) != sorted(ballot.candidate_left)
    seeds = [p.base.seed for p in ballot.pairs]
    assert seeds != sorted(seeds)
    assert blind.ballot(material, blind.choose(material, None)) == ballot
    assert blind.ballot(material, blind.choose(material, 9)).page != ballot.page


def test_the_key_is_read_back_and_shows_nothing_at_a_glance(ballot: blind.Ballot) -> None:
    assert blind.unscrambled(ballot.key, ballot.page) == ballot.candidate_left
    low = [byte & 1 for byte in base64.b64decode(ballot.key)]
    agree = sum(bool(a) == b for a, b in zip(low, ballot.candidate_left, strict=True))
    assert 0.2 * PAIRS < agree < 0.8 * PAIRS


def test_the_page_does_not_say_which_arm_drew_what(page: str, ballot: blind.Ballot) -> None:
    data = _data(page)
    assert "_base" not in page
    assert "_candidate" not in page
    assert [set(pair) for pair in data["pairs"]] == [{"caption", "left", "right"}] * PAIRS
    assert [p["caption"] for p in data["pairs"]] == [p.base.prompt for p in ballot.pairs]


def test_the_page_fetches_nothing_and_escapes_captions(page: str) -> None:
    assert "default-src 'none'" in page
    assert not re.search(r'(?:src|href)="(?!data:)', page)
    assert HOSTILE not in page
    assert any(p["caption"] == HOSTILE for p in _data(page)["pairs"])
    assert page.count("<script") == 2


def test_each_picture_is_on_the_side_that_the_key_says(
    material: Material, ballot: blind.Ballot, page: str
) -> None:
    folder = material.folders[7]
    for shown, pair, left in zip(
        _data(page)["pairs"], ballot.pairs, ballot.candidate_left, strict=True
    ):
        uri = blind._embedded(folder / str(pair.candidate.image), material.folder)
        assert shown["left" if left else "right"] == uri


def _saved(tmp_path: Path, ballot: blind.Ballot, choose: Callable[[int], str], **more: Any) -> Path:
    data = {
        "format": blind.FORMAT,
        "page": ballot.page,
        "study": "mine",
        "trial": 7,
        "key": ballot.key,
        "voter": "v1",
        "saved": "2026-01-01T00:00:00Z",
        "votes": {str(i): choose(i) for i in range(PAIRS)},
    } | more
    path = tmp_path / f"{len(list(tmp_path.glob('*.json')))}.json"
    path.write_text(json.dumps(data), encoding="utf-8")
    return path


def test_votes_are_counted_by_arm_whatever_the_side(tmp_path: Path, ballot: blind.Ballot) -> None:
    def candidate(i: int) -> str:
        return "left" if ballot.candidate_left[i] else "right"

    found = votes.read(_saved(tmp_path, ballot, candidate))
    assert (found.candidate, found.baseline, found.neither) == (PAIRS, 0, 0)
    assert "the candidate is preferred" in votes.result_words(found)
    leftist = votes.read(_saved(tmp_path, ballot, lambda i: "left"))
    assert (leftist.candidate, leftist.baseline) == (PAIRS // 2, PAIRS // 2)
    assert "no preference is shown" in votes.result_words(leftist)
    nothing = votes.read(_saved(tmp_path, ballot, lambda i: "none"))
    assert "nobody preferred either" in votes.result_words(nothing)


@pytest.mark.parametrize(("hits", "count"), [(0, 5), (5, 5), (3, 10), (20, 36), (1, 1)])
def test_the_interval_is_wilsons(hits: int, count: int) -> None:
    expected = binomtest(hits, count).proportion_ci(method="wilson")
    assert statistics.wilson(hits, count) == pytest.approx((expected.low, expected.high), abs=1e-9)


def test_nothing_counted_says_nothing() -> None:
    assert statistics.wilson(0, 0) == (0.0, 1.0)


def test_voters_are_pooled_and_nobody_counts_twice(tmp_path: Path, ballot: blind.Ballot) -> None:
    first = _saved(tmp_path, ballot, lambda i: "left")
    later = _saved(tmp_path, ballot, lambda i: "none", saved="2026-01-02T00:00:00Z")
    other = _saved(tmp_path, ballot, lambda i: "right", voter="v2")
    lines = votes.lines([later, first, other])
    assert lines[0].startswith("1 of 3 files left out")
    assert lines[-2].startswith("mine #7, 2 voters: candidate 18, baseline 18, no difference 36")


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"format": 9}, "no votes of format"),
        ({"votes": {"0": "up"}}, "damaged"),
        ({"votes": {"999": "left"}}, "damaged"),
        ({"key": "?"}, "damaged"),
        ({"page": "zz"}, "damaged"),
        ({"votes": []}, "damaged"),
    ],
)
def test_damaged_votes_are_refused_in_one_line(
    tmp_path: Path, ballot: blind.Ballot, change: dict[str, Any], words: str
) -> None:
    path = _saved(tmp_path, ballot, lambda i: "left", **change)
    with pytest.raises(UsageError, match=words) as caught:
        votes.read(path)
    assert "\n" not in str(caught.value)


DRIVE = """
const frame = document.querySelector('iframe');
const settle = () => new Promise(done => frame.addEventListener('load', done, { once: true }));
const at = id => frame.contentDocument.getElementById(id);
const press = key => frame.contentDocument.dispatchEvent(
  new frame.contentWindow.KeyboardEvent('keydown', { key }));
const state = () => ({
  progress: at('progress').textContent, result: at('result').textContent,
  ended: !at('end').hidden, left: at('left-image').naturalWidth,
  wide: frame.contentDocument.documentElement.scrollWidth,
});
const run = async () => {
  const found = [state()];
  press('1'); press('2'); press('0'); at('left').click(); press('ArrowLeft');
  found.push(state());
  const again = settle(); frame.contentWindow.location.reload(); await again;
  found.push(state());
  for (let i = 0; i < 40; i++) press('1');
  found.push(state());
  let saved = null;
  const inner = frame.contentWindow;
  const make = inner.URL.createObjectURL;
  inner.URL.createObjectURL = blob => { saved = blob; return make.call(inner.URL, blob); };
  // A download that goes on keeps a headless browser from ending.
  let name = null;
  inner.HTMLAnchorElement.prototype.click = function () { name = this.download; };
  at('save').click();
  found.push({ votes: await saved.text(), name, said: at('said').textContent });
  document.body.textContent = JSON.stringify(found);
};
window.addEventListener('load', () => setTimeout(run, 200));
"""


def test_a_browser_votes_reloads_ends_and_saves(
    page: str, ballot: blind.Ballot, tmp_path: Path
) -> None:
    (tmp_path / "blind.html").write_text(page, encoding="utf-8")
    wrapper = tmp_path / "wrapper.html"
    wrapper.write_text(
        '<!DOCTYPE html><body><iframe style="border:0;width:390px;height:900px" src="blind.html">'
        f"</iframe><script>{DRIVE}</script></body>",
        encoding="utf-8",
    )
    start, voted, reloaded, ended, saved = json.loads(body(wrapper, tmp_path))
    assert start["progress"].startswith(f"Pair 1 of {PAIRS}")
    assert start["left"] == 64
    assert start["wide"] <= 390
    assert voted["progress"].startswith(f"Pair 4 of {PAIRS}")
    # The fourth vote was kept, although the voter had gone back to it.
    assert reloaded["progress"].startswith(f"Pair 5 of {PAIRS}")
    assert ended["ended"]
    path = tmp_path / "votes.json"
    path.write_text(saved["votes"], encoding="utf-8")
    found = votes.read(path)
    assert (found.neither, found.decided) == (1, PAIRS - 1)
    sides = ballot.candidate_left
    chosen = dict.fromkeys(range(PAIRS), "left") | {1: "right", 2: "none"}
    own = sum((chosen[i] == "left") == sides[i] for i in range(PAIRS) if i != 2)
    assert found.candidate == own
    counts = f"Candidate {own}, baseline {PAIRS - 1 - own}, no difference 1."
    assert ended["result"].startswith(counts)
    interval = votes.result_words(found).partition("(")[2].partition(" to ")[0]
    assert f"({interval} % to " in ended["result"]
    assert saved["name"] == "votes.json"
    assert "votes.json" in saved["said"]
