"""A single run: what of the composition applies to the model."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from engine.app import fitting
from engine.errors import UsageError
from engine.schema import Config
from engine.strategy import registry

Composed = Callable[..., Config]
EVERY: dict[str, str | None] = dict.fromkeys(registry())


def test_what_was_not_asked_for_and_cannot_apply_is_left_out(
    composed: Composed, capsys: pytest.CaptureFixture[str]
) -> None:
    reasons = EVERY | {"deepcache": "it needs a unet"}
    assert list(fitting(composed(), reasons, ["model=pixart-alpha"])) == ["sampler"]
    assert "left out: deepcache, it needs a unet" in capsys.readouterr().out


def test_what_was_asked_for_and_cannot_apply_is_refused_in_one_line(composed: Composed) -> None:
    config = composed("technique=[sampler,deepcache]")
    reasons = EVERY | {"deepcache": "it needs a unet"}
    with pytest.raises(UsageError, match=r"deepcache cannot apply .*it needs a unet; type tech"):
        fitting(config, reasons, ["technique=[sampler,deepcache]"])


def test_a_value_that_this_device_is_too_old_for_is_refused_in_one_line(composed: Composed) -> None:
    config = composed("technique=[torchao]", "technique.torchao.kind=fp8_dynamic")
    with pytest.raises(UsageError, match=r"torchao\.kind=fp8_dynamic cannot run .* 8\.9, .* has 8"):
        fitting(config, EVERY, ["technique=[torchao]"], 8.0)
    assert fitting(config, EVERY, ["technique=[torchao]"], 9.0) == config.technique


def test_a_model_to_which_nothing_of_the_default_applies_is_told_what_does(
    composed: Composed,
) -> None:
    reasons = EVERY | {"deepcache": "it needs a unet", "sampler": "it needs noise"}
    with pytest.raises(UsageError, match=r"some of these: .*flow_sampler"):
        fitting(composed(), reasons, ["model=flux"])
