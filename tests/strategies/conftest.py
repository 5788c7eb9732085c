"""A tiny Stable Diffusion with random weights, and the way a program runs strategies on it."""

from __future__ import annotations

import copy
import sys
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from importlib import import_module
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from engine.minis import networks
from engine.minis.train import assemble
from engine.strategy import PLACED, registry

# Imported by name: the libraries have no types.
diffusers: Any = import_module("diffusers")
transformers: Any = import_module("transformers")

PROMPT = "a red circle left of a blue square on a white background"
TEXT = 32
"""Width of the tiny SDXL's text embeddings."""
Genome = Mapping[str, Mapping[str, Any]]


@dataclass
class Ready:
    """A pipeline with strategies applied, and every denoiser call since it was made."""

    pipe: Any
    genome: Genome
    ctx: Any
    batches: list[int] = field(default_factory=list)

    def latents(self, prompt: str | list[str] = PROMPT, seed: int = 1, **extra: Any) -> Any:
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
        self.batches.clear()
        return self.pipe(**{"prompt": prompt} | keywords | extra).images

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


def accelerated(pipe: Any, genome: Genome, steps: int) -> Ready:
    """Apply the genome in the order of a program, missing genes at their default."""
    full = {n: s.checked(genome[n]) for n, s in registry().items() if n in genome}
    for name, genes in full.items():
        for gene in registry()[name].genes.values():
            steps = int(genes[gene.name]) if gene.sets == "steps" else steps
    ctx = SimpleNamespace(
        steps=steps, guidance_scale=5.0, height=64, width=64, batch=1, device="cpu", dtype="float32"
    )
    ready = Ready(pipe, full, ctx)
    pipe.unet.register_forward_pre_hook(
        lambda _, args, kwargs: ready.batches.append((args or [kwargs["sample"]])[0].shape[0]),
        with_kwargs=True,
    )
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


def tiny_sdxl() -> Any:
    """Without text encoders; ``pipe.embeddings`` are keywords that stand for a prompt."""
    torch.manual_seed(0)
    unet = diffusers.UNet2DConditionModel(
        sample_size=16,
        block_out_channels=(32, 64),
        layers_per_block=2,
        down_block_types=("DownBlock2D", "CrossAttnDownBlock2D"),
        up_block_types=("CrossAttnUpBlock2D", "UpBlock2D"),
        transformer_layers_per_block=(1, 2),
        attention_head_dim=(2, 4),
        use_linear_projection=True,
        addition_embed_type="text_time",
        addition_time_embed_dim=8,
        projection_class_embeddings_input_dim=TEXT + 6 * 8,
        cross_attention_dim=TEXT,
        norm_num_groups=8,
    ).eval()
    vae = diffusers.AutoencoderKL(
        down_block_types=("DownEncoderBlock2D",) * 3,
        up_block_types=("UpDecoderBlock2D",) * 3,
        block_out_channels=(8, 8, 8),
        norm_num_groups=4,
        sample_size=64,
    ).eval()
    pipe = diffusers.StableDiffusionXLPipeline(
        vae=vae,
        text_encoder=None,
        text_encoder_2=None,
        tokenizer=None,
        tokenizer_2=None,
        unet=unet,
        scheduler=diffusers.EulerDiscreteScheduler(beta_schedule="scaled_linear"),
        add_watermarker=False,
    )
    pipe.set_progress_bar_config(disable=True)
    names = {"prompt_embeds": (1, 7, TEXT), "pooled_prompt_embeds": (1, TEXT)}
    pipe.embeddings = {
        prefix + name: torch.randn(shape)
        for name, shape in names.items()
        for prefix in ("", "negative_")
    } | {"height": 64, "width": 64}
    return pipe
