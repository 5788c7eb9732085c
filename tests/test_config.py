"""The composed configuration: schema, files and what is refused."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from engine.call import HIDDEN
from engine.config import CONF, keys, main, read, stale, unknown_key
from engine.errors import UsageError
from engine.requests import Shape
from engine.schema import Config, PathsConfig, Within
from engine.search import searcher
from engine.search.space import space
from engine.strategy import registry

Composed = Callable[..., Config]
OPTIONS = sorted(
    f"{'+' if path.parent.name in ('sweep', 'experiment', 'debug') else ''}"
    f"{path.parent.name}={path.stem}"
    for path in CONF.glob("*/*.yaml")
    if path.parent.name not in HIDDEN
)
SEARCHES = [path.stem for path in CONF.glob("search/*.yaml")]
# Without the program it says which key is missing, as it should.
MORE = {"baseline=file": ("baseline.program=mine.py",)}


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
        ("+technique.deepcach.interval=3", "did you mean deepcache?"),
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
