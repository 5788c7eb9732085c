"""A tiny Stable Diffusion with random weights, and the way a program runs strategies on it."""

from __future__ import annotations

import copy
import json
import sys
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import partial
from importlib import import_module
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from engine.minis import networks
from engine.minis.train import assemble
from engine.strategy import PLACED, registry
from tests.strategies.tiny import denoiser, tiny_sdxl, wanted

# Imported by name: the libraries have no types.
transformers: Any = import_module("transformers")

PROMPT = "a red circle left of a blue square on a white background"
Genome = Mapping[str, Mapping[str, Any]]


@dataclass
class Ready:
    """A pipeline with strategies applied, and every denoiser call since it was made."""

    pipe: Any
    genome: Genome
    ctx: Any
    batches: list[int] = field(default_factory=list)

    def latents(self, prompt: str | list[str] | None = PROMPT, seed: int = 1, **extra: Any) -> Any:
        """One image as the programs make it: every reset, merged keywords, chained callbacks."""
        strategies = [(s, self.genome[n]) for n, s in registry().items() if n in self.genome]
        for strategy, _ in strategies:
            if reset := strategy.function("reset"):
                reset(self.pipe)
        keywords: dict[str, Any] = {"num_inference_steps": self.ctx.steps, "guidance_scale": 5.0}
        callbacks: list[Callable[..., dict[str, Any]]] = []
        tensors: list[str] = []
        written: set[str] = set()
        for strategy, genes in strategies:
            if call := strategy.function("call"):
                own = call(self.pipe, self.ctx, **genes)
                if callback := own.pop("callback_on_step_end", None):
                    callbacks.append(callback)
                tensors += own.pop("callback_on_step_end_tensor_inputs", [])
                assert not written & set(own), "two strategies write one keyword"
                written |= set(own)
                keywords |= own
        if callbacks:
            keywords["callback_on_step_end"] = chained(callbacks)
            keywords["callback_on_step_end_tensor_inputs"] = list(dict.fromkeys(tensors))
        keywords |= {"generator": torch.Generator().manual_seed(seed), "output_type": "latent"}
        if prompt is not None:
            keywords |= wanted(self.pipe, prompt)
        if "class_labels" in keywords:
            # This pipeline would make NumPy arrays of whatever it does not know.
            keywords["output_type"] = "pt"
        self.batches.clear()
        return self.pipe(**keywords | extra).images

    def reasons(self) -> dict[str, str | None]:
        """What ``active`` says of each strategy."""
        found = {}
        for name in self.genome:
            active = registry()[name].function("active")
            assert active is not None
            found[name] = active(self.pipe)
        return found


def chained(callbacks: list[Callable[..., dict[str, Any]]]) -> Callable[..., dict[str, Any]]:
    def run_all(pipe: Any, step: int, timestep: Any, tensors: dict[str, Any]) -> dict[str, Any]:
        for callback in callbacks:
            tensors = callback(pipe, step, timestep, tensors)
        return tensors

    return run_all


def measured(name: str, pipe: Any, genome: Genome, steps: int) -> Any:
    """What a strategy measures on a copy of the pipeline with the sampler of the genome."""
    calibrate = registry()[name].function("calibrate")
    assert calibrate is not None
    sampler = {n: genes for n, genes in genome.items() if registry()[n].slot == "scheduler"}
    made = accelerated(copy.deepcopy(pipe), sampler, steps)
    runs = [partial(made.latents, seed=seed) for seed in range(2)]
    # As JSON, in which a study keeps it.
    return json.loads(json.dumps(calibrate(made.pipe, made.ctx, runs)))


def accelerated(pipe: Any, genome: Genome, steps: int) -> Ready:
    """Apply the genome in the order of a program, missing genes at their default."""
    full: dict[str, Mapping[str, Any]] = {
        n: s.checked(genome[n]) for n, s in registry().items() if n in genome
    }
    for name, genes in full.items():
        for gene in registry()[name].genes.values():
            steps = int(genes[gene.name]) if gene.sets == "steps" else steps
    for name, genes in full.items():
        if written := registry()[name].function("calibrated"):
            full[name] = written(measured(name, pipe, genome, steps), **genes)
    ctx = SimpleNamespace(
        steps=steps, guidance_scale=5.0, height=64, width=64, batch=1, device="cpu", dtype="float32"
    )
    ready = Ready(pipe, full, ctx)

    def note(_: Any, args: Any, kwargs: Any) -> None:
        sample = args[0] if args else kwargs.get("sample", kwargs.get("hidden_states"))
        ready.batches.append(sample.shape[0])

    denoiser(pipe).register_forward_pre_hook(note, with_kwargs=True)
    applied = [(s, s.function("apply"), full[n]) for n, s in registry().items() if n in full]
    for strategy, apply, genes in applied:
        if apply and strategy.order < PLACED:
            apply(pipe, ctx, **genes)
    places = [(s.function("place"), genes) for s, _, genes in applied if s.function("place")]
    for place, genes in places:
        assert place is not None
        ready.pipe = place(pipe, ctx, **genes)
    if not places:
        ready.pipe = pipe.to(ctx.device)
    for strategy, apply, genes in applied:
        if apply and strategy.order >= PLACED:
            apply(ready.pipe, ctx, **genes)
    return ready


@pytest.fixture(scope="session")
def parts(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """Tokenizer, text encoder, VAE and U-Net, never patched."""
    torch.manual_seed(0)
    folder: Path = tmp_path_factory.mktemp("tokenizer")
    tokenizer = networks.build_tokenizer(folder)
    vae: Any = networks.build_vae()
    unet: Any = networks.build_unet()
    config: Any = networks.build_clip(tokenizer).config.text_config
    return {
        "tokenizer": tokenizer,
        "text_encoder": transformers.CLIPTextModel(config).eval(),
        "vae": vae.eval(),
        "unet": unet.eval(),
    }


@pytest.fixture
def fresh(parts: dict[str, Any]) -> Callable[[], Any]:
    """Makes a pipeline whose networks may be patched: they are copies."""

    def make() -> Any:
        own = {name: copy.deepcopy(parts[name]) for name in ("text_encoder", "vae", "unet")}
        return assemble(**(parts | own))

    return make


@pytest.fixture
def ready(fresh: Callable[[], Any]) -> Callable[..., Ready]:
    """Makes an accelerated pipeline: ``ready(genome, steps=6)``."""

    def make(genome: Genome, steps: int = 6, pipe: Any = None) -> Ready:
        return accelerated(pipe or fresh(), genome, steps)

    return make


@pytest.fixture(autouse=True)
def _one_thread() -> Iterator[None]:
    """The networks are so small that threads only disturb the neighbours."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(autouse=True)
def _cheap_compiler(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Everything of torch.compile but its code generation, which takes minutes: the traced graphs
    run operator by operator. What one test has compiled is no other test's."""
    compile: Callable[..., Any] = torch.compile

    def traced(function: Any, *, mode: str, dynamic: bool, fullgraph: bool, **_more: Any) -> Any:
        return compile(function, backend="eager", dynamic=dynamic, fullgraph=fullgraph)

    monkeypatch.setattr(torch, "compile", traced)
    yield
    if "torch._dynamo" in sys.modules:
        reset: Callable[[], None] = import_module("torch._dynamo").reset
        reset()


@pytest.fixture
def sdxl() -> Callable[[], Any]:
    """Makes a tiny SDXL pipeline: attention stands only below the top level."""
    return tiny_sdxl
