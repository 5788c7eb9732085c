"""Compiled parts really run, give the same picture and are compiled once."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest
import torch

from engine.errors import UsageError
from engine.genome import canonical
from engine.worker import cost, probe
from strategies import compile as compiling
from tests.strategies.tiny import ARCHITECTURES

ROOT = Path(__file__).resolve().parents[2]
Ready = Callable[..., Any]


def graphs() -> int:
    return probe.compiled_graphs() or 0


CACHES: dict[str, dict[str, Any]] = {"deepcache": {}, "tgate": {}, "tome": {"max_downsample": 2}}


@pytest.mark.parametrize(
    ("scope", "others"),
    [
        ("whole", CACHES),
        ("regional", {"tgate": {}}),
        ("regional", CACHES),
        ("regional", {"guidance": {"stop": 0.5}, "split_guidance": {}}),
        pytest.param("whole", {"tgate": {}}, marks=pytest.mark.slow),
        pytest.param("whole", {"tome": {}}, marks=pytest.mark.slow),
        pytest.param("whole", {"deepcache": {}}, marks=pytest.mark.slow),
        pytest.param("whole", {"guidance": {"stop": 0.5}}, marks=pytest.mark.slow),
        pytest.param("whole", {"split_guidance": {}}, marks=pytest.mark.slow),
    ],
)
def test_compiled_parts_run_beside_others_and_only_the_first_image_compiles(
    ready: Ready, others: Mapping[str, Any], scope: str
) -> None:
    expected = ready(others, steps=4).latents()
    before = graphs()
    made = ready({**others, "compile": {"scope": scope}}, steps=4)
    torch.testing.assert_close(made.latents(), expected, atol=1e-4, rtol=1e-4)
    assert set(made.reasons().values()) == {None}
    first = graphs()
    assert first > before
    made.latents(seed=2)
    assert graphs() == first


def compiled_names(made: Any) -> set[str]:
    return {
        name
        for name, module in made.pipe.unet.named_modules()
        if hasattr(vars(module).get("forward"), "_torchdynamo_orig_callable")
    }


def test_the_whole_denoiser_is_one_part_that_hooks_do_not_enter(ready: Ready) -> None:
    made = ready({"compile": {"scope": "whole"}}, steps=2)
    assert compiled_names(made) == {""}
    made.latents()
    # The hook of the fixture counts calls, which would be a constant inside of compiled code.
    assert made.batches == [2, 2]
    assert graphs() >= 1


def test_regional_compiles_the_repeated_blocks(ready: Ready) -> None:
    made = ready({"compile": {"scope": "regional"}})
    names = compiled_names(made)
    assert names
    assert all(name.rpartition(".")[0].endswith("transformer_blocks") for name in names)


@pytest.mark.parametrize("model", ["pixart", "dit", "sd3", "flux"])
def test_regional_finds_the_blocks_of_every_transformer(model: str) -> None:
    network = ARCHITECTURES[model]().transformer
    blocks = [*network.transformer_blocks, *getattr(network, "single_transformer_blocks", ())]
    assert compiling.chosen_parts(network, "regional") == blocks


def test_wrapped_parts_stay_as_they_are_and_their_surroundings_are_compiled(ready: Ready) -> None:
    made = ready({"tgate": {}, "compile": {"scope": "regional"}})
    ends = {name.rpartition(".")[2] for name in compiled_names(made)}
    assert ends == {"attn1", "ff"}


def test_the_layers_that_deepcache_keeps_are_compiled(ready: Ready) -> None:
    made = ready({"deepcache": {}, "compile": {"scope": "whole"}})
    kept = made.pipe._deepcache_state.helper.function_dict
    compiled = {key[1] for key, f in kept.items() if hasattr(f, "_torchdynamo_orig_callable")}
    assert {"attentions", "resnet", "downsampler", "upsampler"} <= compiled
    assert "block" not in compiled
    # Blocks inside of a layer that is compiled as a whole are not compiled once more.
    assert compiled_names(made) == {"time_embedding"}


def test_another_batch_is_seen_as_a_recompilation(ready: Ready) -> None:
    made = ready({"compile": {}}, steps=2)
    made.latents()
    before = graphs()
    made.latents(["a red circle on a white background"] * 2)
    assert graphs() > before


def test_dynamic_code_serves_another_batch(ready: Ready) -> None:
    made = ready({"compile": {"dynamic": True}}, steps=2)
    made.latents()
    before = graphs()
    made.latents(["a red circle on a white background"] * 2)
    assert graphs() == before


def test_counting_looks_behind_compiled_code(ready: Ready) -> None:
    plain, made = ready({}, steps=2), ready({"compile": {"scope": "whole"}}, steps=2)
    made.latents()
    with cost.counting() as expected:
        plain.latents()
    with cost.counting() as counted:
        made.latents()
    assert counted.total() == expected.total()
    assert counted.total()


def test_a_denoiser_that_never_ran_is_not_active(ready: Ready) -> None:
    made = ready({"compile": {}})
    assert "ran as compiled code" in str(made.reasons()["compile"])


def test_where_every_layer_is_hooked_nothing_can_be_compiled(fresh: Callable[[], Any]) -> None:
    network = fresh().unet
    for module in network.modules():
        module.register_forward_pre_hook(lambda *_: None)
    for scope in ("whole", "regional"):
        with pytest.raises(ValueError, match="every part is hooked"):
            compiling.chosen_parts(network, scope)


def test_a_network_without_repeated_blocks_says_so() -> None:
    with pytest.raises(ValueError, match="no repeated blocks"):
        compiling.chosen_parts(torch.nn.Sequential(torch.nn.Linear(2, 2)), "regional")


def test_packed_weights_and_compilation_exclude_each_other() -> None:
    with pytest.raises(UsageError, match="compile"):
        canonical({"compile": {}, "dynamic_int8": {}})


INDUCTOR = """
import sys
from tests.test_program import CHECKPOINT, SUBJECT, loaded
from engine.program import generate
from strategies import compile as compiling
from tests.strategies.tiny import ARCHITECTURES

import numpy as np

def image(genome):
    program = loaded(generate(SUBJECT, genome, "test"))
    pipe = program["accelerate"](program["load_pipeline"]("cpu", str(CHECKPOINT)))
    drawn = program["generate"](pipe, "a red circle on a white background", seed=1)[0]
    return pipe, np.asarray(drawn).astype(int)

_, plain = image({})
pipe, compiled = image({"compile": {"scope": "regional"}})
assert compiling.active(pipe) is None
print(abs(plain - compiled).max())
"""


@pytest.mark.slow
def test_a_program_compiled_by_inductor_draws_the_same_picture(tmp_path: Path) -> None:
    environment = {
        **os.environ,
        "PYTHONPATH": str(ROOT),
        "OMP_NUM_THREADS": "1",
        "TORCHINDUCTOR_CACHE_DIR": str(tmp_path),
    }
    done = subprocess.run(
        [sys.executable, "-c", INDUCTOR],
        env=environment,
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-2000:]
    assert int(done.stdout.split()[-1]) <= 1
