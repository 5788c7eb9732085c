"""The record of what suits which pipeline, against the probes that it stands for."""

from __future__ import annotations

from typing import Any

import pytest

from engine import capabilities, catalogue
from engine.strategy import Needs, registry


def test_the_record_knows_every_class_and_every_strategy_of_the_project() -> None:
    recorded = capabilities.recorded()
    published = capabilities.published()
    assert {"sd15", "sd15-img2img", "flux", "dit", "sdxl-controlnet"} <= set(published)
    assert set(recorded) == {*capabilities.classes(), *published}
    assert {catalogue.entry(n)["pipeline"] for n in catalogue.names()} - {None} <= set(recorded)
    own = {n: s for n, s in registry().items() if s.module.__name__.startswith("strategies.")}
    able = {name for name, strategy in own.items() if not capabilities.mute(strategy)}
    for kind, answers in recorded.items():
        wanted = set() if kind in published else able
        assert wanted <= set(answers) <= set(own), f"{kind}: run {capabilities.COMMAND}"


def test_a_published_model_has_only_what_it_answers_otherwise_than_its_miniature() -> None:
    recorded = capabilities.recorded()
    for model in capabilities.published():
        usual = recorded[catalogue.entry(model)["pipeline"]]
        for name, said in recorded[model].items():
            assert said != usual[name], (model, name)
    assert recorded["sdxl"]["tiny_vae"] == {"weights": "madebyollin/taesdxl"}
    assert recorded["pixart-sigma"]["tiny_vae"] == {"weights": "madebyollin/taesdxl"}
    assert recorded["sd3"]["tiny_vae"] == {"weights": "madebyollin/taesd3"}


def test_what_could_not_be_asked_keeps_its_answer_and_what_is_gone_goes() -> None:
    before: capabilities.Record = {
        "P": {"tome": {"needs": "x"}, "deepcache": None, "gone": None},
        "Q": {"tome": None},
    }
    now = capabilities.merged({"P": {"deepcache": {"unfit": "y"}}}, before)
    assert now == {"P": {"tome": {"needs": "x"}, "deepcache": {"unfit": "y"}}}
    assert capabilities.differences(now, before) == [
        "P, deepcache: unfit: y (recorded: suits)",
        "P, gone: nothing (recorded: suits)",
        "Q, tome: nothing (recorded: suits)",
    ]
    assert capabilities.differences(now, now) == []


def test_the_command_takes_check_or_nothing(capsys: pytest.CaptureFixture[str]) -> None:
    assert capabilities.main(["--chek"]) == 2
    assert "takes --check or nothing" in capsys.readouterr().err


def test_a_strategy_answers_with_its_need_its_own_word_or_its_weights() -> None:
    from dataclasses import replace
    from types import SimpleNamespace

    from engine.minis.pipelines import build_pipeline

    pipe = build_pipeline("dit-mini")
    known = registry()
    assert capabilities.answer(known["precision"], pipe) is None
    needs = capabilities.answer(known["deepcache"], pipe)
    assert needs == {"needs": "it needs a unet, this model has a transformer"}
    refused: Any = SimpleNamespace(unfit=lambda pipe: "not this one")
    assert capabilities.answer(replace(known["precision"], module=refused), pipe) == {
        "unfit": "not this one"
    }
    brings: Any = SimpleNamespace(unfit=lambda pipe: None, further_weights=lambda pipe: "a/b")
    assert capabilities.answer(replace(known["precision"], module=brings), pipe) == {
        "weights": "a/b"
    }


def test_a_strategy_that_lacks_its_library_cannot_be_asked_for_its_own_word() -> None:
    from dataclasses import replace
    from types import SimpleNamespace

    lacking = replace(registry()["precision"], needs=Needs(libraries=("no-such-library",)))
    # Its declared needs can be read all the same.
    assert not capabilities.mute(lacking)
    speaking: Any = SimpleNamespace(unfit=lambda pipe: None)
    assert capabilities.mute(replace(lacking, module=speaking))
    assert not capabilities.mute(replace(registry()["precision"], module=speaking))


@pytest.mark.slow
def test_the_record_is_what_the_probes_say_of_every_miniature() -> None:
    recorded = capabilities.recorded()
    now = capabilities.merged(capabilities.probed(), recorded)
    assert capabilities.differences(now, recorded) == []
