"""What a study searches on a machine, and what it starts from."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import yaml

from engine.errors import UsageError
from engine.genome import canonical
from engine.schema import Config
from engine.scope import search_space, starting, worthless
from engine.strategy import registry

Composed = Callable[..., Config]
SMALL = "search.only={sampler: {}, deepcache: {}, tgate: {}, tome: {}, guidance: {}}"


def arms(
    fast: tuple[str, ...] = ("float32",), capability: float | None = None, **refused: str
) -> Any:
    """A machine and a model of noise to which everything applies but what is refused."""
    refused = {"flow_sampler": "this model predicts noise"} | refused
    return SimpleNamespace(
        applicable=lambda: dict.fromkeys(registry()) | refused,
        machine=SimpleNamespace(device="cpu", fast_dtypes=fast, capability=capability),
        subject=SimpleNamespace(
            steps=50,
            guidance_scale=5.0,
            height=64,
            width=64,
            batch=1,
            device="cpu",
            dtype="",
            task="text",
        ),
        baseline=canonical({"sampler": {"steps": 20}}),
    )


def test_a_dtype_that_is_slow_here_is_not_searched(composed: Composed) -> None:
    here = search_space(composed(), arms(("float32", "bfloat16")))
    assert here.values("precision", "dtype") == ("bfloat16",)
    slow = search_space(composed(), arms())
    assert "precision" not in slow.strategies
    assert "none of its dtypes is fast here" in slow.excluded["precision"]


def test_a_value_for_newer_devices_is_not_searched(composed: Composed) -> None:
    config = composed("goal.memory_gib=1")
    old, ampere, ada = (search_space(config, arms(capability=c)) for c in (7.5, 8.0, 8.9))
    assert ampere.values("torchao", "kind") == ("int8_dynamic", "int8_weights", "int4_weights")
    assert "fp8_dynamic" in ada.values("torchao", "kind")
    assert old.values("fused_attention", "kernel") == ("efficient",)
    assert "flash" in ampere.values("fused_attention", "kernel")
    assert search_space(config, arms()).describe() == ada.describe()


def test_a_long_first_call_is_left_out_on_a_cpu_unless_it_is_allowed(composed: Composed) -> None:
    assert "first call" in search_space(composed(), arms()).excluded["compile"]
    allowed = search_space(composed("search.first_call_s=600"), arms())
    assert "compile" in allowed.strategies


def test_a_search_by_counted_operations_leaves_out_what_changes_none(composed: Composed) -> None:
    here = search_space(composed("objective=flops"), arms())
    assert not any(one.timed_only for one in here.strategies.values())
    assert "channels_last" in here.excluded


def test_what_gains_nothing_alone_is_left_out_with_what_was_measured(
    composed: Composed, tmp_path: Path
) -> None:
    config = composed()
    here = search_space(config, arms(("float32", "bfloat16")))
    quiet = [n for n, one in here.strategies.items() if one.timed_only or one.overhead]
    gains: dict[str, Any] = {
        name: {"genes": {}, "speedup": 1.3, "low": 1.2, "high": 1.4} for name in quiet
    }
    gains["channels_last"] = {"genes": {}, "speedup": 1.01, "low": 0.97, "high": 1.05}
    gains["attention"] = {"genes": {}, "speedup": 1.05, "low": 0.98, "high": 1.12}
    gains["qkv_fusion"] = {"reason": "it failed"}
    # It counts fewer operations and takes time of its own to find out which.
    gains["tome"] = {"genes": {}, "speedup": 0.9, "low": 0.88, "high": 0.92}
    (tmp_path / "alone.json").write_text(json.dumps(gains))
    evaluator: Any = SimpleNamespace(folder=tmp_path)
    assert worthless(config, evaluator, here) == {
        "attention": "measured alone: 1.05x (0.98 to 1.12)",
        "channels_last": "measured alone: 1.01x (0.97 to 1.05)",
        "qkv_fusion": "measured alone: it failed",
        "tome": "measured alone: 0.90x (0.88 to 0.92)",
    }
    narrowed = search_space(
        config, arms(("float32", "bfloat16")), worthless(config, evaluator, here)
    )
    left = {"attention", "channels_last", "qkv_fusion", "tome"}
    assert set(here.strategies) - set(narrowed.strategies) == left
    # Who names a technique wants it searched, and counted operations tell nothing of time.
    named = composed("search.only={sampler: {}, channels_last: {}}")
    assert worthless(named, evaluator, search_space(named, arms())) == {}
    assert worthless(composed("search.alone_first=false"), evaluator, here) == {}
    assert worthless(composed("objective=flops"), evaluator, here) == {}


def test_what_only_saves_memory_is_searched_where_the_goal_names_memory(composed: Composed) -> None:
    assert "goal.memory_gib" in search_space(composed(), arms()).excluded["vae"]
    assert "vae" in search_space(composed("goal.memory_gib=1"), arms()).strategies


def test_a_search_can_be_limited_to_some_values(composed: Composed) -> None:
    config = composed("search.only={sampler: {steps: [4, 8]}, tome: {}}")
    here = search_space(config, arms())
    assert set(here.strategies) == {"sampler", "tome"}
    assert here.values("sampler", "steps") == (4, 8)
    assert len(here.values("tome", "ratio")) > 2


@pytest.mark.parametrize(
    ("only", "words"),
    [
        ("{samplr: {}}", "did you mean sampler"),
        ("{sampler: {step: [4]}}", "did you mean steps"),
        ("{sampler: {steps: [400]}}", "is 400; allowed: 3 to 50"),
        ("{sampler: 4}", "search.only.sampler is 4; write"),
    ],
)
def test_wrong_limits_are_refused_in_one_line(composed: Composed, only: str, words: str) -> None:
    with pytest.raises(UsageError, match=words) as caught:
        search_space(composed(f"search.only={only}"), arms())
    assert "\n" not in str(caught.value)


def test_a_study_starts_from_a_study_a_preset_and_a_recipe(
    composed: Composed, tmp_path: Path
) -> None:
    config = composed(
        SMALL,
        f"paths.outputs={tmp_path}",
        f"search.start=[earlier,unet-tgate,{tmp_path}/recipe.yaml]",
    )
    earlier = canonical({"sampler": {"steps": 9}})
    front = {"front": [{"genome": earlier}, {"genome": earlier}]}
    (tmp_path / "sweeps" / "earlier").mkdir(parents=True)
    (tmp_path / "sweeps" / "earlier" / "front.json").write_text(json.dumps(front))
    recipe = {"technique": {"sampler": {"steps": 7}, "tome": {"ratio": 0.3}}, "measured": {}}
    (tmp_path / "recipe.yaml").write_text(yaml.safe_dump(recipe))
    here = search_space(config, arms())
    found = starting(config, here, tmp_path, arms())
    assert [p.origin for p in found] == ["study:earlier", "preset:unet-tgate", "recipe:recipe.yaml"]
    assert found[0].genome == earlier
    assert found[2].genome["tome"]["ratio"] == 0.3
    # A study that resumes starts from the same, whatever has become of the files.
    (tmp_path / "recipe.yaml").unlink()
    assert starting(config, here, tmp_path, arms()) == found


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("unet-tgat", "did you mean unet-tgate"),
        ("none.yaml", "cannot be read"),
    ],
)
def test_a_start_that_means_nothing_is_refused(
    composed: Composed, tmp_path: Path, name: str, words: str
) -> None:
    config = composed(SMALL, f"paths.outputs={tmp_path}", f"search.start=[{name}]")
    with pytest.raises(UsageError, match=words):
        starting(config, search_space(config, arms()), tmp_path, arms())


def test_a_quick_sweep_starts_from_the_presets_that_can_run_here_and_says_which_cannot(
    composed: Composed, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    config = composed("+sweep=quick", f"paths.outputs={tmp_path}")
    here = arms(tome="tomesd is not installed")
    found = starting(config, search_space(config, here), tmp_path, here)
    genomes = {p.origin.removeprefix("preset:"): p.genome for p in found}
    assert {"unet-deepcache", "unet-tgate", "unipc", "cpu-int8"} <= set(genomes)
    assert 5 <= len(genomes) <= 8
    # Nothing of a preset is measured where one of its techniques cannot run.
    assert not {"unet-tome", "cpu-bfloat16", "cuda-native", "sdxl-tome"} & set(genomes)
    said = capsys.readouterr().out
    assert "left out preset unet-tome, tome: tomesd is not installed" in said
    assert "left out preset cpu-bfloat16, precision: none of its dtypes is fast here" in said
    assert "cuda-native" not in said
    # A preset without a sampler is the baseline and that technique.
    assert set(genomes["cpu-int8"]) == {"sampler", "dynamic_int8"}
    assert genomes["cpu-int8"]["sampler"] == here.baseline["sampler"]


def test_a_preset_without_a_sampler_takes_the_models_own_steps_where_the_baseline_has_none(
    composed: Composed, tmp_path: Path
) -> None:
    config = composed("+sweep=quick", "model.steps=12", f"paths.outputs={tmp_path}")
    here = arms()
    here.baseline = {}
    here.subject.steps = 12
    found = starting(config, search_space(config, here), tmp_path, here)
    steps = {p.origin: p.genome["sampler"]["steps"] for p in found}
    assert steps["preset:cpu-int8"] == 12
    # What takes more steps than the model itself is no acceleration.
    assert set(steps) == {"preset:cpu-int8", "preset:unipc"}


def test_a_preset_whose_values_are_not_searched_is_left_out(
    composed: Composed, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    config = composed("+sweep=quick", f"paths.outputs={tmp_path}")
    here = arms(("float32", "float16"))
    found = starting(config, search_space(config, here), tmp_path, here)
    assert "preset:cpu-bfloat16" not in {p.origin for p in found}
    said = capsys.readouterr().out
    assert "cpu-bfloat16, technique.precision.dtype=bfloat16 is not searched here" in said


def test_a_preset_that_is_the_baseline_is_left_out(
    composed: Composed, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    config = composed("+sweep=quick", f"paths.outputs={tmp_path}")
    here = arms()
    here.baseline = canonical({"sampler": {"name": "unipc", "steps": 10, "spacing": "trailing"}})
    found = starting(config, search_space(config, here), tmp_path, here)
    assert "preset:unipc" not in {p.origin for p in found}
    assert "left out preset unipc, it is the baseline" in capsys.readouterr().out


def test_a_preset_that_differs_from_the_baseline_in_steps_alone_is_left_out_where_they_stay(
    composed: Composed, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    config = composed(
        "+sweep=quick", "model=dit-mini", "goal.keep_steps=true", f"paths.outputs={tmp_path}"
    )
    here = arms()
    found = starting(config, search_space(config, here), tmp_path, here)
    assert "left out preset dpmpp-15, it is the baseline" in capsys.readouterr().out
    assert {p.genome["sampler"]["steps"] for p in found} == {20}
