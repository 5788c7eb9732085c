"""What the agent knows before it has measured anything.

Cards of the applicable techniques come from the strategies' own docstrings, genes and known-good
settings, so a new file in ``strategies/`` is known here without a line of its own. Facts about
library calls are those of the pinned versions, and a test looks each of them up.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version

from engine.search.space import Space
from engine.strategy import Strategy, Value

LABELS = ("What it does", "When it pays", "Genes", "How it fails")
"""Paragraphs of a docstring that a card takes, fullest first; papers are for people."""
SENTENCES = 2
"""Sentences of each paragraph in a middling card."""


def cards(space: Space, detail: int) -> str:
    """The cards of the space's techniques in their order of application.

    ``detail`` 2 has whole paragraphs, 1 what it does and when it pays in short, 0 only the first
    line, the genes and their bounds.
    """
    ordered = sorted(space.strategies.values(), key=lambda s: (s.order, s.name))
    return "\n\n".join(card(one, space, detail) for one in ordered)


def card(one: Strategy, space: Space, detail: int) -> str:
    """One technique: what it is, its genes with their bounds here, settings that are known."""
    lines = [f"### {one.name}", f"{one.summary} Slot {one.slot}."]
    if one.exact:
        lines[-1] += " Exact: the picture stays the same."
    found = paragraphs(one.module.__doc__ or "")
    for label in LABELS if detail > 1 else LABELS[:2] if detail else ():
        if label in found:
            words = found[label] if detail > 1 else _sentences(found[label], SENTENCES)
            lines.append(f"{label}: {words}")
    lines += [f"- {line}" for line in genes(one, space)]
    if one.conflicts:
        lines.append(f"Not together with: {', '.join(one.conflicts)}.")
    settings = [f"{_settings(known.genes)} ({known.source})" for known in one.known_good]
    if settings and detail:
        lines.append("Known settings: " + "; ".join(settings))
    return "\n".join(lines)


def genes(one: Strategy, space: Space) -> list[str]:
    """A line for each gene: its meaning, what is allowed here, its default."""
    lines = []
    for gene in one.genes.values():
        pinned = space.fixed.get(one.name, {})
        listed = (space.only or {}).get(one.name, {}).get(gene.name)
        if gene.name in pinned:
            allowed = f"held at {_shown(pinned[gene.name])}"
        elif listed is not None:
            allowed = "one of " + ", ".join(map(_shown, listed))
        else:
            allowed = gene.allowed
        doc = " ".join(gene.doc.split()).rstrip(".")
        lines.append(f"{gene.name}: {doc}; {allowed}; default {_shown(gene.default)}")
    return lines


def left_out(space: Space, names: Collection[str] | None = None) -> str:
    """A line for each technique that cannot be used here, with its reason."""
    return "\n".join(
        f"- {name}: {why}"
        for name, why in sorted(space.excluded.items())
        if names is None or name in names
    )


def paragraphs(docstring: str) -> dict[str, str]:
    """Label to text of the paragraphs that open with a label, double backquotes made single."""
    found: dict[str, str] = {}
    for block in re.split(r"\n\s*\n", docstring):
        text = " ".join(block.split()).replace("``", "`")
        label, colon, rest = text.partition(": ")
        if colon and label in LABELS:
            found[label] = rest
    return found


def _sentences(text: str, count: int) -> str:
    parts = re.split(r"(?<=[.;]) (?=[A-Z`])", text)
    return " ".join(parts[:count])


def _settings(values: Mapping[str, Value]) -> str:
    return " ".join(f"{name}={_shown(value)}" for name, value in values.items()) or "the defaults"


def _shown(value: Value) -> str:
    if isinstance(value, bool):
        return str(value).lower()
    return f"{value:g}" if isinstance(value, float) else str(value)


@dataclass(frozen=True)
class Fact:
    """How a library is used in the pinned versions.

    ``names`` are the objects that the words rest on, as ``module:attribute``, which a test
    imports; ``topics`` are the techniques that it is about, none for every program.
    """

    words: str
    names: tuple[str, ...]
    topics: tuple[str, ...] = ()


FACTS = (
    Fact(
        "`from_pretrained(..., dtype=torch.float16)`; `torch_dtype=` is deprecated and both "
        "together are refused. Always pass `use_safetensors=True`.",
        ("diffusers:DiffusionPipeline.from_pretrained",),
    ),
    Fact(
        "A scheduler is exchanged by `pipe.scheduler = DPMSolverMultistepScheduler.from_config("
        "pipe.scheduler.config, timestep_spacing='trailing')`. Classes: DDIMScheduler, "
        "DPMSolverMultistepScheduler, UniPCMultistepScheduler, EulerDiscreteScheduler, "
        "PNDMScheduler.",
        (
            "diffusers:DDIMScheduler",
            "diffusers:DPMSolverMultistepScheduler",
            "diffusers:UniPCMultistepScheduler",
            "diffusers:EulerDiscreteScheduler",
            "diffusers:PNDMScheduler",
        ),
        ("sampler",),
    ),
    Fact(
        "Flow models keep FlowMatchEulerDiscreteScheduler or take DPMSolverMultistepScheduler with "
        "`use_flow_sigmas=True, prediction_type='flow_prediction', flow_shift=...`.",
        (
            "diffusers:FlowMatchEulerDiscreteScheduler",
            "diffusers:DPMSolverMultistepScheduler",
        ),
        ("flow_sampler",),
    ),
    Fact(
        "Step callback: `callback_on_step_end(pipe, step, timestep, tensors) -> tensors` with "
        "`callback_on_step_end_tensor_inputs=[...]` of `pipe._callback_tensor_inputs`. Guidance is "
        "ended there by `pipe._guidance_scale = 0.0` and by halving what was doubled. PixArt and "
        "DiT pipelines have no such callback.",
        ("diffusers:StableDiffusionPipeline._callback_tensor_inputs",),
        ("guidance", "tgate"),
    ),
    Fact(
        "DeepCache 0.1.1: `from DeepCache import DeepCacheSDHelper; helper = "
        "DeepCacheSDHelper(pipe=pipe); helper.set_params(cache_interval=3, cache_branch_id=0); "
        "helper.enable()`. U-Nets only. It finds the step by the position of the timestep in "
        "`pipe.scheduler.timesteps`, so not with PNDM, which repeats one. The first step of an "
        "image is a full pass by itself; `reset_states()` while it is enabled loses the wrapped "
        "forwards (KeyError 'unet_forward').",
        (
            "DeepCache:DeepCacheSDHelper.set_params",
            "DeepCache:DeepCacheSDHelper.enable",
            "DeepCache:DeepCacheSDHelper.reset_states",
        ),
        ("deepcache",),
    ),
    Fact(
        "tomesd 0.1.3: `import tomesd; tomesd.apply_patch(pipe, ratio=0.5, max_downsample=1)`, "
        "once, on the pipeline. U-Nets only; SDXL has no attention at full resolution and needs "
        "`max_downsample=2`.",
        ("tomesd:apply_patch",),
        ("tome",),
    ),
    Fact(
        "T-GATE: functions of the program's own, as in a generated program: the forward of each "
        "cross-attention is wrapped, and a step callback closes the gate. The package `tgate` is "
        "no dependency.",
        (),
        ("tgate",),
    ),
    Fact(
        "Fused projections: `pipe.fuse_qkv_projections()`, or on the denoiser alone "
        "`pipe.transformer.fuse_qkv_projections()`.",
        ("diffusers:UNet2DConditionModel.fuse_qkv_projections",),
        ("qkv_fusion",),
    ),
    Fact(
        "Memory layout: `pipe.unet.to(memory_format=torch.channels_last)`.",
        ("torch:channels_last",),
        ("channels_last",),
    ),
    Fact(
        "Compilation: `pipe.unet = torch.compile(pipe.unet)` after the move to the device; for a "
        "transformer `pipe.transformer.compile_repeated_blocks()` compiles faster.",
        ("torch:compile", "diffusers:ModelMixin.compile_repeated_blocks"),
        ("compile",),
    ),
    Fact(
        "VAE: `pipe.vae.enable_tiling()` and `pipe.vae.enable_slicing()`; the pipeline's own "
        "`enable_vae_tiling` and `enable_vae_slicing` are gone.",
        ("diffusers:AutoencoderKL.enable_tiling", "diffusers:AutoencoderKL.enable_slicing"),
        ("vae",),
    ),
    Fact(
        "Small decoder: `pipe.vae = AutoencoderTiny.from_pretrained(...)`.",
        ("diffusers:AutoencoderTiny",),
        ("tiny_vae",),
    ),
    Fact(
        "Attention kernels: `pipe.transformer.set_attention_backend('native')`.",
        ("diffusers:ModelMixin.set_attention_backend",),
        ("attention", "fused_attention"),
    ),
    Fact(
        "Caches of diffusers are turned on by `pipe.transformer.enable_cache(config)`, one at a "
        "time, and need a pipeline that opens `cache_context`: FirstBlockCacheConfig(threshold=), "
        "PyramidAttentionBroadcastConfig(spatial_attention_block_skip_range=, "
        "current_timestep_callback=lambda: pipe.current_timestep), FasterCacheConfig(...), "
        "MagCacheConfig(threshold=, num_inference_steps=, mag_ratios=), "
        "TaylorSeerCacheConfig(cache_interval=, max_order=).",
        (
            "diffusers:FirstBlockCacheConfig",
            "diffusers:PyramidAttentionBroadcastConfig",
            "diffusers:FasterCacheConfig",
            "diffusers:MagCacheConfig",
            "diffusers:TaylorSeerCacheConfig",
        ),
        ("first_block_cache", "pab", "faster_cache", "magcache", "taylorseer"),
    ),
    Fact(
        "Offloading: `pipe.enable_model_cpu_offload()` in place of `pipe.to(device)`; it needs an "
        "accelerator.",
        ("diffusers:DiffusionPipeline.enable_model_cpu_offload",),
        ("placement",),
    ),
)
"""Looked up in diffusers 0.42.1, DeepCache 0.1.1 and tomesd 0.1.3."""
PINNED = ("torch", "diffusers", "transformers", "DeepCache", "tomesd")
"""Libraries whose versions a coder is told."""


def facts(topics: Iterable[str]) -> str:
    """The facts about every program and about those techniques, a line each."""
    wanted = set(topics)
    return "\n".join(
        f"- {fact.words}" for fact in FACTS if not fact.topics or wanted & set(fact.topics)
    )


def versions() -> str:
    """The installed libraries on one line, without local version labels."""
    found = []
    for name in PINNED:
        try:
            found.append(f"{name} {version(name).partition('+')[0]}")
        except PackageNotFoundError:
            continue
    return ", ".join(found)
