"""The composed configuration: schema, files and what is refused."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable
from pathlib import Path

import pytest

from engine import catalogue
from engine.call import APPENDED, HIDDEN
from engine.config import CONF, from_mapping, keys, main, read, stale, unknown_key
from engine.errors import UsageError
from engine.lora import Lora
from engine.models import CHECKPOINTS
from engine.requests import Shape
from engine.schema import Config, PathsConfig, Within
from engine.search import searcher
from engine.search.space import space
from engine.strategy import registry

Composed = Callable[..., Config]
OPTIONS = sorted(
    f"{'+' if path.parent.name in APPENDED else ''}{path.parent.name}={path.stem}"
    for path in CONF.glob("*/*.yaml")
    if path.parent.name not in HIDDEN
)
SEARCHES = [path.stem for path in CONF.glob("search/*.yaml")]
# Without the program it says which key is missing, as it should.
MORE = {
    "baseline=file": ("baseline.program=mine.py",),
    "model=auto": (f"model.weights={CHECKPOINTS / 'sd-mini'}",),
    "llm=replay": ("llm.folder=outputs/sweeps/mine",),
}
KNOWN = [name for name in catalogue.names() if name != "auto"]


def test_defaults_compose_to_the_miniature_with_a_first_composition(composed: Composed) -> None:
    config = composed()
    assert (config.model.name, config.model.weights) == ("sd-mini", "mini")
    assert list(config.technique) == ["sampler", "deepcache"]
    assert (config.baseline.name, config.objective) == ("strong", "time")
    assert config.baseline.technique["sampler"]["steps"] == 20
    assert config.paths == PathsConfig("outputs", None, None, None)
    assert (config.workload.shapes, config.search.only) == ((), None)


@pytest.mark.parametrize("option", OPTIONS)
def test_every_group_option_composes(composed: Composed, option: str) -> None:
    config = composed(option, *MORE.get(option, ()))
    group, _, name = option.lstrip("+").partition("=")
    if group in ("model", "hw"):
        assert getattr(config, group).name == name
    if group == "technique":
        assert config.technique == {name: registry()[name].defaults()}


def test_lists_and_mappings_are_read_by_their_own_functions(composed: Composed) -> None:
    config = composed(
        "workload.shapes=[{height: 96, batch: 2}]",
        "search.only={sampler: {steps: [4, 8]}, tome: {}}",
        "search.start=[mine]",
    )
    assert config.workload.shapes == (Shape(96, 64, batch=2),)
    assert config.search.only == {"sampler": {"steps": [4, 8]}, "tome": {}}
    assert list(config.search.start) == ["mine"]


def test_loras_and_keywords_of_the_call_are_read_and_checked(composed: Composed) -> None:
    assert composed("model=flux-schnell").model.call == {"max_sequence_length": 256}
    config = composed("model.lora=[{id: a/b, scale: 0.5}]", "++model.call={clip_skip: 1}")
    assert config.model.lora == (Lora("a/b", 0.5),)
    assert config.model.call == {"clip_skip": 1}
    again = from_mapping(json.loads(json.dumps(dataclasses.asdict(config))))
    assert again.model == config.model
    for wrong, words in {
        "++model.call={height: 64}": "type model.height=VALUE",
        "++model.call={sigmas: [1]}": "it takes a number, a text, true or false",
        "model.lora=[{scale: 1}]": "names no id",
    }.items():
        with pytest.raises(UsageError, match=words):
            composed(wrong)


def test_techniques_come_in_canonical_order_with_their_genes(composed: Composed) -> None:
    config = composed("technique=[deepcache,sampler]", "technique.deepcache.interval=2")
    assert list(config.technique) == ["sampler", "deepcache"]
    assert config.technique["deepcache"]["interval"] == 2


def test_experiment_composes_techniques_that_the_command_line_can_replace(
    composed: Composed,
) -> None:
    assert set(composed("+experiment=deepcache_tome").technique) == {"deepcache", "tome"}
    replaced = composed("+experiment=deepcache_tome", "technique=[sampler]")
    assert set(replaced.technique) == {"sampler"}


def test_tiny_debug_shrinks_the_search(composed: Composed) -> None:
    config = composed("+debug=tiny")
    assert (config.debug, config.search.population, config.search.generations) == (True, 2, 2)


@pytest.mark.parametrize("name", SEARCHES)
def test_a_search_file_sets_its_searchers_own_options_to_their_defaults(
    composed: Composed, name: str
) -> None:
    here = space({"tome": registry()["tome"]})
    written = searcher(name, here, 0, composed(f"search={name}").search.options())
    assert written == searcher(name, here, 0)


def test_technique_files_equal_their_strategies(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--check"]) == 0, capsys.readouterr().out


def test_a_changed_and_an_orphaned_technique_file_are_stale(tmp_path: Path) -> None:
    strategies = list(registry().values())
    for path, text in stale(tmp_path, strategies).items():
        assert text is not None
        path.write_text(text)
    assert stale(tmp_path, strategies) == {}
    first = tmp_path / f"{strategies[0].name}.yaml"
    first.write_text(first.read_text() + "more: 1\n")
    orphan = tmp_path / "orphan.yaml"
    orphan.write_text("# Written by `python -m engine.config` from strategies/orphan.py;\n")
    own = tmp_path / "own.yaml"
    own.write_text("# by a person\n")
    changes = stale(tmp_path, strategies)
    assert set(changes) == {first, orphan}
    assert changes[orphan] is None


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("search.population=0", "search.population=0 is out of bounds; it takes a whole number"),
        ("search.population=2.5", "whole number from 1 to 1000"),
        ("goal.max_loss=nan", "goal.max_loss=nan is out of bounds"),
        ("goal.max_loss=high", "a number from 0 to 1"),
        ("goal.keep_steps=3", "true or false"),
        ("study=../elsewhere", "is not a name"),
        ("trial=17", "is not STUDY/NUMBER"),
        ("program=true", "name it"),
        ("+goal.max_los=0.1", "did you mean max_loss"),
        ("+technique.deepcach.interval=3", "did you mean deepcache or dbcache?"),
        ("technique.deepcache.interval=99", "2 to 6"),
        ("model.name=${nothing}", "nothing"),
    ],
)
def test_a_wrong_value_is_refused_in_one_line(override: str, message: str) -> None:
    import hydra

    with hydra.initialize_config_dir(str(CONF), version_base="1.3"):
        cfg = hydra.compose("config", overrides=[override])
    with pytest.raises(UsageError) as caught:
        read(cfg)
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


def test_names_that_look_like_numbers_stay_names(composed: Composed) -> None:
    assert composed("study=12").study == "12"


def test_unknown_key_names_where_the_leaf_exists() -> None:
    assert "did you mean goal.max_loss?" in str(unknown_key("max_loss"))


def test_every_bounded_key_refuses_what_lies_beyond() -> None:
    bounded = [key for key in keys().values() if isinstance(key.rule, Within)]
    assert len(bounded) > 10
    for key in bounded:
        assert isinstance(key.rule, Within)
        for beyond in (key.rule.low - 1, key.rule.high + 1):
            with pytest.raises(UsageError, match=key.path):
                key.checked(beyond)


FLOWS = ("sd3", "flux", "flux-schnell", "sd3-mini", "flux-mini")
FEW = ("sdxl-turbo", "pixart-alpha", "pixart-sigma", "pixart-mini")


@pytest.mark.parametrize("baseline", ["strong", "compiled"])
@pytest.mark.parametrize("model", KNOWN)
def test_the_strong_baseline_takes_20_solver_steps_where_that_is_less_than_the_models_own(
    composed: Composed, model: str, baseline: str
) -> None:
    found = composed(f"model={model}", f"baseline={baseline}").baseline
    own = model in FLOWS + FEW
    assert ("sampler" in found.technique) is not own
    assert ("compile" in found.technique) is (baseline == "compiled")
    assert ("the model's own schedule" in found.label) is own
    forced = composed(f"model={model}", f"baseline={baseline}", "baseline.fitted=false").baseline
    assert forced.technique["sampler"] == {"name": "dpmpp_2m", "steps": 20, "spacing": "trailing"}


def test_a_model_that_builds_on_another_differs_only_where_its_file_says_so(
    composed: Composed,
) -> None:
    base, image = composed("model=sd21").model, composed("model=sd21-img2img").model
    changed = {"name", "pipeline", "task"}
    for item in dataclasses.fields(base):
        same = getattr(base, item.name) == getattr(image, item.name)
        assert same is (item.name not in changed), item.name


@pytest.mark.parametrize("name", KNOWN)
def test_the_catalogue_reads_a_model_as_hydra_composes_it(composed: Composed, name: str) -> None:
    model = json.loads(json.dumps(dataclasses.asdict(composed(f"model={name}").model)))
    entry = dict(catalogue.entry(name))
    assert {key: model[key] for key in entry if key != "scorer"} == {
        key: value for key, value in entry.items() if key != "scorer"
    }
    assert set(entry) == set(model)


@pytest.mark.parametrize("name", KNOWN)
def test_a_model_is_consistent(composed: Composed, name: str) -> None:
    model = composed(f"model={name}").model
    assert (model.task == "control") is ("ControlNet" in model.pipeline)
    assert (model.task == "image") is ("Img2Img" in model.pipeline)
    assert (model.task == "class") is (model.prompts == "classes")
    assert model.backbone == model.denoiser
    assert (model.weights == "mini") is (model.id == model.mini)
    if model.task != "control":
        assert model.controlnet is None
    elif model.weights == "hub":
        assert model.controlnet is not None


def test_a_goal_without_a_limit_of_loss_composes(composed: Composed) -> None:
    assert composed("goal.max_loss=null").goal.max_loss is None
