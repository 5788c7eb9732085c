"""Quantization for GPUs: what can be seen without one, and how it is refused there."""

from __future__ import annotations

from collections.abc import Callable
from importlib import import_module
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from engine.errors import TrialError, UsageError
from engine.genome import canonical
from engine.strategy import find
from engine.worker.probe import inapplicable
from strategies import bitsandbytes, torchao
from tests.strategies.tiny import tiny_flux

# Imported by name: the libraries have no types.
diffusers: Any = import_module("diffusers")
transformers: Any = import_module("transformers")
HALF = SimpleNamespace(dtype="bfloat16", device="cuda")


@pytest.mark.parametrize("kind", ["nf4", "int8"])
def test_the_denoiser_is_loaded_in_that_format_whatever_it_is_called(kind: str) -> None:
    config = bitsandbytes.load(HALF, kind=kind, parts="denoiser")["quantization_config"]
    for name in ("unet", "transformer"):
        found = config._resolve_quant_config(is_diffusers=True, module_name=name)
        assert isinstance(found, diffusers.BitsAndBytesConfig)
        assert found.load_in_8bit is (kind == "int8")
        if kind == "nf4":
            assert found.bnb_4bit_quant_type == "nf4"
            assert found.bnb_4bit_compute_dtype == torch.bfloat16
    for name in ("text_encoder_2", "vae"):
        assert config._resolve_quant_config(is_diffusers=False, module_name=name) is None


def test_text_encoders_are_loaded_in_it_on_demand() -> None:
    config = bitsandbytes.load(HALF, kind="nf4", parts="all")["quantization_config"]
    for name in ("text_encoder", "text_encoder_2", "text_encoder_3"):
        found = config._resolve_quant_config(is_diffusers=False, module_name=name)
        assert isinstance(found, transformers.BitsAndBytesConfig)
    assert config._resolve_quant_config(is_diffusers=True, module_name="vae") is None


@pytest.mark.parametrize("name", ["bitsandbytes", "torchao"])
def test_without_a_gpu_it_is_left_out_with_the_reason(name: str) -> None:
    reason = inapplicable(find(name), tiny_flux(), "transformer", "cpu")
    assert reason == "it needs cuda, this runs on cpu"


@pytest.mark.parametrize(("name", "line"), [("torchao", "torchao"), ("dbcache", "cache-dit")])
def test_an_optional_library_is_named_with_the_line_that_installs_it(
    name: str, line: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    hide(monkeypatch, line)
    reason = inapplicable(find(name), tiny_flux(), "transformer", "cuda")
    assert reason == f"{line} is not installed: pip install '{line}'"


@pytest.mark.parametrize(("name", "line"), [("torchao", "torchao"), ("dbcache", "cache-dit")])
def test_a_program_with_it_is_refused_in_one_line(
    name: str, line: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Any
) -> None:
    from engine.program import generate
    from tests import tiny

    hide(monkeypatch, line)
    with pytest.raises(TrialError, match=f"{line} is not installed: pip install '{line}'"):
        generate(tiny.subject("flux", tmp_path), {name: {}}, "test")


def hide(monkeypatch: pytest.MonkeyPatch, library: str) -> None:
    """Let a library be absent, whether it is installed here or not."""
    import importlib.metadata

    known: Callable[[str], str] = importlib.metadata.version

    def version(name: str) -> str:
        if name == library:
            raise importlib.metadata.PackageNotFoundError(name)
        return known(name)

    monkeypatch.setattr("engine.needs.version", version)
    monkeypatch.setattr("engine.program.version", version)


@pytest.mark.parametrize(
    ("first", "second"),
    [("bitsandbytes", "qkv_fusion"), ("torchao", "placement"), ("torchao", "bitsandbytes")],
)
def test_what_cannot_stand_together_is_refused(first: str, second: str) -> None:
    with pytest.raises(UsageError, match="leave one of them out"):
        canonical({first: {}, second: {}})


@pytest.mark.parametrize(
    ("sizes", "kind", "taken"),
    [
        ((1024, 1024), "int8_dynamic", True),
        ((1024, 64), "int8_dynamic", False),
        ((1032, 1024), "fp8_dynamic", False),
        ((1040, 1024), "fp8_dynamic", True),
        ((1040, 1024), "int4_weights", False),
        ((1152, 1024), "int4_weights", True),
    ],
)
def test_layers_of_odd_sizes_stay_as_they_are(
    sizes: tuple[int, int], kind: str, taken: bool
) -> None:
    layer = torch.nn.Linear(*sizes, device="meta")
    assert torchao.can_be_quantized(layer, "", kind) is taken
    assert not torchao.can_be_quantized(torch.nn.LayerNorm(1024, device="meta"), "", kind)


@pytest.mark.parametrize("module", [bitsandbytes, torchao])
def test_a_plain_denoiser_counts_as_inactive(module: Any) -> None:
    assert str(module.active(tiny_flux())).startswith("no linear layer of the denoiser is")
