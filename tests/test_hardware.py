"""What the machine is and which stated profiles it contradicts."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable

import pytest

from engine import hardware
from engine.errors import UsageError
from engine.hardware import Machine, inspect, permitted, require
from engine.schema import Config

Composed = Callable[..., Config]
LAPTOP = Machine(
    processor="Example CPU",
    cores=2,
    memory_gib=16.0,
    device="cpu",
    device_name="Example CPU",
    device_memory_gib=None,
    system="Linux",
    python="3.11.7",
    versions={},
    fast_dtypes=("float32",),
    threads=2,
)
H100 = dataclasses.replace(
    LAPTOP, device="cuda", device_name="NVIDIA H100 80GB HBM3", device_memory_gib=79.1
)


def test_inspection_finds_this_machine() -> None:
    machine = inspect("cpu")
    assert machine.device == "cpu"
    assert machine.device_name == machine.processor
    assert machine.cores >= 1
    assert machine.memory_gib > 0
    assert "float32" in machine.fast_dtypes
    assert machine.versions["hydra-core"] == "1.3.8"
    assert inspect("cpu").profile() == machine.profile()


def test_cuda_without_a_device_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    import torch

    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(UsageError, match="hw=cpu"):
        inspect("cuda")
    assert inspect("auto").device == "cpu"


def test_profile_tells_kinds_of_machines_apart() -> None:
    assert LAPTOP.profile() == "cpu-example-cpu-2c"
    assert H100.profile() == "cuda-nvidia-h100-80gb-hbm3"
    assert dataclasses.replace(LAPTOP, cores=8).profile() != LAPTOP.profile()
    assert dataclasses.replace(LAPTOP, system="other", threads=1).profile() == LAPTOP.profile()


@pytest.mark.parametrize(
    ("option", "machine"),
    [("auto", LAPTOP), ("auto", H100), ("cpu", LAPTOP), ("cuda", H100), ("h100", H100)],
)
def test_a_profile_that_fits_is_accepted(composed: Composed, option: str, machine: Machine) -> None:
    require(composed(f"hw={option}").hw, machine)


@pytest.mark.parametrize(
    ("option", "machine", "found"),
    [
        ("cuda", LAPTOP, "found Example CPU"),
        ("h100", LAPTOP, "needs a CUDA device"),
        ("a100", H100, "found NVIDIA H100 80GB HBM3 with 79.1 GiB"),
        ("h200", H100, "found NVIDIA H100"),
        ("rtx4090", H100, "RTX 4090"),
    ],
)
def test_a_profile_that_contradicts_the_machine_is_refused_with_what_was_found(
    composed: Composed, option: str, machine: Machine, found: str
) -> None:
    with pytest.raises(UsageError, match=found):
        require(composed(f"hw={option}").hw, machine)


def test_stated_memory_is_a_lower_limit_that_can_be_waived(composed: Composed) -> None:
    small = dataclasses.replace(H100, device_memory_gib=40.0)
    with pytest.raises(UsageError, match=r"hw\.allow_mismatch=true"):
        require(composed("hw=h100").hw, small)
    require(composed("hw=h100", "hw.allow_mismatch=true").hw, small)


def test_a_stated_compute_capability_is_a_lower_limit(composed: Composed) -> None:
    hw = composed("hw=h100").hw
    require(hw, dataclasses.replace(H100, capability=9.0))
    with pytest.raises(
        UsageError, match=r"states compute capability 9; found .*8\.9; type hw=auto"
    ):
        require(hw, dataclasses.replace(H100, capability=8.9))


def test_a_missing_cuda_device_cannot_be_waived(composed: Composed) -> None:
    with pytest.raises(UsageError, match="hw=cpu"):
        require(composed("hw=h100", "hw.allow_mismatch=true").hw, LAPTOP)


def test_half_precision_can_be_forbidden_on_a_machine_that_is_fast_in_it(
    composed: Composed,
) -> None:
    able = dataclasses.replace(LAPTOP, fast_dtypes=("float32", "bfloat16"))
    assert permitted(composed("hw=cpu").hw, able) == able
    forbidden = composed("hw=cpu", "hw.half_precision=false").hw
    assert permitted(forbidden, able).fast_dtypes == ("float32",)


def test_other_work_that_holds_up_some_products_changes_no_answer(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    held_up = iter([0.9] * 4)

    def product_seconds(device: str, dtype: str) -> float:
        return {"float32": 0.001, "bfloat16": 0.1, "float16": 0.0009}[dtype] + next(held_up, 0.0)

    monkeypatch.setattr(hardware, "product_seconds", product_seconds)
    assert hardware.fast_dtypes("cpu") == ["float32", "float16"]
