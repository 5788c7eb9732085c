"""The figures of full-size models: what is tried, what is kept, how it is written down."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from engine import session
from engine.evaluate import Evaluator
from engine.genome import canonical
from engine.schema import Config
from engine.strategy import registry
from engine.worker.process import matrix_rate
from tests.benchmarks.full_size import Bench, Book, settings, table

Composed = Callable[..., Config]


def test_settings_keep_the_models_steps_and_take_fast_dtypes_only() -> None:
    samplers = list(settings(registry()["sampler"], 28, ["float32"]))
    assert {genome["sampler"]["steps"] for genome in samplers} == {28}
    assert len({str(genome) for genome in samplers}) == len(samplers) > 1
    assert not list(settings(registry()["precision"], 28, ["float32"]))
    assert list(settings(registry()["precision"], 28, ["float32", "bfloat16"]))


def test_figures_are_measured_once_and_written_down(composed: Composed, tmp_path: Path) -> None:
    config = composed("+debug=tiny", "measure.acceptance_prompts=2", "baseline=plain")
    machine = session.machine_of(config)
    genome = canonical({"sampler": {"name": "dpmpp_2m", "steps": 5}})
    refused = canonical({"fused_attention": {}})
    book = Book(tmp_path / "figures.jsonl")
    with Evaluator(config, machine, tmp_path) as evaluator:
        bench = Bench(evaluator, book, matrix_rate("cpu", ("float32",)))
        row = bench.measure(genome)
        failed = bench.measure(refused)
        assert bench.measure(genome) == row, "read from the file"
    assert len(book.path.read_text(encoding="utf-8").splitlines()) == 2
    assert row["speedup"] > 2
    assert 0 < row["share_of_rate"] < 1
    assert row["memory_gib"] > 0
    assert "reason" in failed
    head = {
        "model": "sd-mini",
        "machine": {"device_name": "a processor", "versions": {"torch": "2", "diffusers": "0"}},
        "dtype": "float32",
        "rate": 1e11,
        "command": "python -m tests.benchmarks.full_size sd-mini",
    }
    text = table([failed, row], head)
    assert "| sampler name=dpmpp_2m steps=5" in text
    assert f": {failed['reason']}" in text
