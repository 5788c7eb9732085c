"""The page: complete, self-contained, escaped, and rebuilt from files alone."""

from __future__ import annotations

import re
import shutil
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest

from engine.errors import UsageError
from engine.report import write_run_report, write_study_report
from engine.report.material import read_study
from engine.report.text import describe
from engine.results import save, write_json
from tests.report.small_study import FAILED, FRONT, HOSTILE, Study


class Reader(HTMLParser):
    """Collects tags with attributes, ids and text; void and foreign elements need no care."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.words: list[str] = []
        self.feed(page)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))

    def handle_data(self, data: str) -> None:
        self.words.append(data)

    @property
    def text(self) -> str:
        return " ".join("".join(self.words).split())

    def values(self, attribute: str) -> list[str]:
        return [a[attribute] or "" for _, a in self.tags if attribute in a]


@pytest.fixture(scope="module")
def page(study: Study) -> str:
    return write_study_report(study.folder).read_text(encoding="utf-8")


@pytest.fixture
def copy(study: Study, tmp_path: Path) -> Path:
    return Path(shutil.copytree(study.folder, tmp_path / "copy"))


def test_nothing_is_fetched_from_elsewhere(page: str) -> None:
    reader = Reader(page)
    for value in [*reader.values("src"), *reader.values("href"), *reader.values("srcset")]:
        assert value.startswith(("#", "data:image/"))
    assert not {"script", "link", "iframe", "object"} & {tag for tag, _ in reader.tags}
    style = page[page.index("<style>") : page.index("</style>")]
    assert "@import" not in style
    assert "url(" not in style
    assert "default-src 'none'" in page


def test_what_comes_from_data_is_escaped(page: str) -> None:
    assert "<script>" not in page
    assert "<b>of output" not in page
    assert "<config>" not in page
    assert HOSTILE in Reader(page).text
    assert "# <config>" in Reader(page).text


def test_every_internal_link_has_its_target_and_no_id_occurs_twice(page: str) -> None:
    reader = Reader(page)
    ids = reader.values("id")
    assert len(ids) == len(set(ids))
    wanted = {v.removeprefix("#") for v in reader.values("href") if v.startswith("#")}
    assert len(wanted) > 20
    assert wanted <= set(ids)


def test_every_front_row_and_trial_is_there(study: Study, page: str) -> None:
    reader = Reader(page)
    ids = reader.values("id")
    assert [i for i in ids if i.startswith("point-")] == ["point-9", "point-7", "point-3"]
    for trial in study.trials:
        assert f"trial-{trial.trial}" in ids
        assert describe(trial.genome) in reader.text
    for number in FRONT:
        assert f"python -m engine +trial=mine/{number}" in reader.text
    for number in FAILED:
        assert f"{study.trials[number].stage}" in reader.text
    assert "3.80 to 4.16" in reader.text
    assert "9.90x" in reader.text


def test_the_recommended_point_and_its_worst_prompts_come_first(study: Study, page: str) -> None:
    text = Reader(page).text
    assert text.index("Worst prompts of #7") < text.index("Worst prompts of #9")
    worst = text[text.index("Worst prompts of #7") : text.index("Further prompts")]
    pairs: dict[int, dict[str, float]] = {}
    for sample in study.trials[7].samples:
        pairs.setdefault(sample.seed, {})[sample.arm] = sample.score or 0.0
    order = sorted(pairs, key=lambda seed: pairs[seed]["candidate"] - pairs[seed]["base"])
    assert [int(seed) for seed in re.findall(r"seed (\d+), score", worst)] == order[:4]


def test_the_sentence_the_warnings_and_the_commands_are_shown(copy: Path, study: Study) -> None:
    control = {"low": 0.8, "high": 1.3, "median": 1.0, "ok": False, "word": "other load"}
    write_json(copy / "study.json", study.study | {"control": control})
    text = Reader(write_study_report(copy).read_text(encoding="utf-8")).text
    assert "3.96x (3.80 to 4.16) faster than DPM-Solver++ 2M, 20 steps" in text
    assert "Measured on a miniature" in text
    assert "The A/A control is void" in text
    assert "0.80 to 1.30 (other load)" in text
    assert "accelerated.py --prompt 'a " in text


def test_no_warning_without_its_cause(copy: Path, study: Study) -> None:
    write_json(copy / "study.json", study.study | {"miniature": False})
    text = Reader(write_study_report(copy).read_text(encoding="utf-8")).text
    assert "Measured on a miniature" not in text
    assert "is void" not in text


def test_the_page_is_rebuilt_the_same_from_a_copy_of_the_folder(copy: Path, page: str) -> None:
    assert write_study_report(copy).read_text(encoding="utf-8") == page
    assert not list(copy.glob("*.partial"))


def test_a_damaged_trial_is_named_and_costs_only_itself(copy: Path) -> None:
    (copy / "2" / "result.json").write_text("{", encoding="utf-8")
    text = Reader(write_study_report(copy).read_text(encoding="utf-8")).text
    assert "cannot be read" in text
    assert "11 trials" in text


def test_optional_figures_may_be_missing(copy: Path, study: Study) -> None:
    keep = ("study", "model", "baseline", "goal", "evaluations", "failed")
    write_json(copy / "study.json", {key: study.study[key] for key in keep})
    rows: list[dict[str, Any]] = [
        {"trial": entry["trial"], "genome": entry["genome"], "speedup": 2.0, "loss": None}
        for entry in study.front["front"]
    ]
    write_json(copy / "front.json", {"study": {}, "front": rows})
    text = Reader(write_study_report(copy).read_text(encoding="utf-8")).text
    assert "quality: not measured" in text
    (copy / "front.json").unlink()
    text = Reader(write_study_report(copy).read_text(encoding="utf-8")).text
    assert "No result: 12 compositions tried, 2 failed" in text


def test_the_page_says_why_quality_was_not_measured(copy: Path, study: Study) -> None:
    reason = "the miniature sdxl-mini is not trained yet, its weights are random numbers"
    write_json(copy / "study.json", study.study | {"unmeasured": reason})
    for trial in study.trials:
        silent = replace(trial, loss=None, loss_low=None, loss_high=None)
        save(silent, copy / str(trial.trial) / "result.json")
    text = Reader(write_study_report(copy).read_text(encoding="utf-8")).text
    assert f"Quality: not measured ({reason}); the pictures mean nothing." in text
    assert "Gain over all allowed losses" not in text


def test_a_folder_without_its_files_is_refused_with_what_to_give(
    copy: Path, tmp_path: Path
) -> None:
    with pytest.raises(UsageError, match=r"no study\.json in .*: give the folder of a study"):
        write_study_report(tmp_path)
    with pytest.raises(UsageError, match=r"no run\.json"):
        write_run_report(tmp_path)
    (copy / "front.json").write_text("{", encoding="utf-8")
    with pytest.raises(UsageError, match="damaged"):
        write_study_report(copy)


def test_a_single_composition_makes_the_same_page(study: Study, tmp_path: Path) -> None:
    folder = Path(shutil.copytree(study.folder / "7", tmp_path / "run"))
    write_json(folder / "run.json", study.study | {"command": "python -m engine technique=x"})
    text = Reader(write_run_report(folder).read_text(encoding="utf-8")).text
    assert "3.96x (3.80 to 4.16) faster" in text
    assert "9.12 to 10.8" in text
    assert "Worst prompts" in text
    assert "#7" not in text[text.index("One composition") :]
    assert "python -m engine technique=x" in text
    assert "Convergence" not in text


def test_a_failed_composition_says_why(study: Study, tmp_path: Path) -> None:
    folder = Path(shutil.copytree(study.folder / "10", tmp_path / "run"))
    write_json(folder / "run.json", study.study | {"evaluations": 1, "failed": 1})
    text = Reader(write_run_report(folder).read_text(encoding="utf-8")).text
    assert "No result: 1 composition tried, 1 failed" in text
    assert "timeout : no answer within 120 s" in text.replace("timeout:", "timeout :")


def _rewrite(copy: Path, study: Study, front: dict[str, Any] | None = None, **more: Any) -> str:
    write_json(copy / "study.json", study.study | more)
    if front is not None:
        write_json(copy / "front.json", front)
    return write_study_report(copy).read_text(encoding="utf-8")


def _front(study: Study, **more: Any) -> dict[str, Any]:
    return {"front": [entry | more for entry in study.front["front"]]}


def test_a_start_that_costs_is_shown_with_when_it_has_paid(copy: Path, study: Study) -> None:
    assert "First call" not in Reader(_rewrite(copy, study)).text
    front = _front(study, first_call_s=41.5, break_even=120.3)
    front["front"][0] |= {"break_even": 0.0}
    front["front"][1] |= {"break_even": None}
    text = Reader(_rewrite(copy, study, front)).text
    assert "41.5pays after: at once" in text
    assert "41.5pays after: \u2013" in text
    assert "41.5pays after: 121 images" in text


def test_a_workload_has_its_own_figures(copy: Path, study: Study) -> None:
    trial = study.trials[7]
    samples = tuple(
        replace(s, height=64, width=64 if i < 40 else 96, batch=1 if i < 40 else 2)
        for i, s in enumerate(trial.samples)
    )
    save(replace(trial, samples=samples), copy / "7" / "result.json")
    shapes = [
        {"height": 64, "width": 64, "batch": 1, "weight": 3},
        {"height": 64, "width": 96, "batch": 2, "weight": 1},
    ]
    front = _front(study, seconds_p95=0.123, images_per_second=9.87, recompilations=2)
    workload = {"name": "mixed", "shapes": shapes}
    text = Reader(_rewrite(copy, study, front, workload=workload)).text
    assert "95th percentile 0.123" in text
    assert "9.87" in text
    assert "Workload mixed, #7 by shape" in text
    assert "96 x 64, batch 225.0 %160.3000.08003.75x" in text


def test_the_users_prompts_are_listed_and_disjoint_or_not(copy: Path, study: Study) -> None:
    data = {"file": "mine.jsonl", "search": ["a cat", HOSTILE], "acceptance": ["a dog"]}
    page = _rewrite(copy, study, data=data)
    text = Reader(page).text
    assert "mine.jsonl: 2 prompts for the search and 1 held out" in text
    assert "none is in both" in text
    assert "<script>" not in page
    shared = _rewrite(copy, study, data=data | {"acceptance": ["a cat"]})
    assert "1 of them are in both" in Reader(shared).text


def test_fidelity_is_named_where_it_is_the_quality(copy: Path, study: Study) -> None:
    trial = study.trials[7]
    samples = tuple(
        replace(s, ssim=0.9 - i / 1000) if s.arm == "candidate" else s
        for i, s in enumerate(trial.samples)
    )
    save(replace(trial, samples=samples), copy / "7" / "result.json")
    goal = study.study["goal"] | {"quality": "same_image", "max_worst": 0.1}
    text = Reader(_rewrite(copy, study, _front(study, loss_worst=0.077), goal=goal)).text
    assert "2.8 % fidelity loss" in text
    assert "fidelity loss at most 5.0 %, that of the worst tenth at most 10.0 %" in text
    assert "worst tenth 7.7 %" in text
    assert "CLIP" not in text
    worst = text[text.index("Worst prompts of #7") : text.index("Further prompts")]
    assert f"seed {trial.samples[-1].seed}, SSIM {0.9 - 71 / 1000:.3f}" in worst


def test_contributions_appear_from_thirty_trials_on(copy: Path, study: Study) -> None:
    few = Reader(_rewrite(copy, study)).text
    assert "told from 30 measured trials on; 10 trials were measured" in few
    for number in range(12, 60):
        more = replace(study.trials[1 + number % 3], trial=number, parents=())
        save(more, copy / str(number) / "result.json")
    text = Reader(_rewrite(copy, study)).text
    assert "From the 58 trials that the search measured" in text
    assert "What this cannot tell" in text


def test_contributions_are_told_from_what_the_search_measured(copy: Path, study: Study) -> None:
    save(replace(study.trials[7], speedup=77.0), copy / "7" / "search.json")
    material = read_study(copy)
    assert {t.trial: t.speedup for t in material.searched}[7] == 77.0
    assert material.trial(7) == study.trials[7]


def test_ancestors_are_drawn_with_their_origins(page: str) -> None:
    text = Reader(page).text
    assert "Genealogy" in text
    assert "#7 3.96x, loss 2.8 % crossover" in text
    assert "from #5: sampler steps 9 to 11" in text
    assert "#9: 7 ancestors" in text


def test_thousands_of_trials_make_a_page_that_opens(copy: Path, study: Study) -> None:
    for number in range(12, 1500):
        kind = study.trials[number % 12]
        parents = (number - 5, number - 7)
        save(
            replace(kind, trial=number, rung=1, samples=(), parents=parents),
            copy / str(number) / "result.json",
        )
    page = write_study_report(copy).read_text(encoding="utf-8")
    reader = Reader(page)
    assert "500 of 1,500 trials are listed" in reader.text
    ids = set(reader.values("id"))
    assert len([i for i in ids if i.startswith("trial-")]) == 500
    assert {f"trial-{number}" for number in FRONT} <= ids
    assert {v[1:] for v in reader.values("href") if v.startswith("#")} <= ids
    assert "and 113 more run" in reader.text
    assert len(page) < 2_500_000
