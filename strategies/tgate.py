"""T-GATE: after a gate step cross-attention is reused and guidance is dropped.

What it does: cross-attention converges early in the denoising. Up to the gate every step runs
as usual. Afterwards each cross-attention returns its last output (the mean of the unconditional
and the conditional half), and classifier-free guidance ends, which halves the batch: by the
pipeline's own switch in a step callback, or around the denoiser where it has none (PixArt).

When it pays: guided models with cross-attention and 15 steps or more. Most of the gain is the
halved batch, so beside ``guidance`` only the earlier of the two has that effect.

Genes: ``gate`` is the fraction of the denoiser calls before the gate; 0.4 is 10 of 25 steps.

How it fails: with an early gate colours and objects that are settled late are lost. IP-Adapter
embeddings cannot be halved from a step callback, so that combination breaks off at the gate.
Transformers with joint attention (Stable Diffusion 3, FLUX) and class to image (DiT) have no
cross-attention and are refused.

Why not the package ``tgate`` 1.0.0: it brings its own copies of the pipelines' ``__call__``
(``pipe.tgate(...)``), so step callbacks and other pipelines are out; it pins DeepCache; and its
attention processors replace whatever attention backend was chosen. Here the ``forward`` of each
cross-attention module is wrapped, so that any processor keeps computing before the gate, and the
gate is a step callback. Outputs are kept by every call before the gate, not at the gate alone:
a feature cache may skip deep layers just there.

Paper: Zhang et al., Cross-Attention Makes Inference Cumbersome in Text-to-Image Diffusion Models,
arXiv 2404.02747. README of the package, GTX 1080 Ti: SDXL 53.2 to 31.6 s at FID 24.16 to 22.92;
with DeepCache 19.9 to 14.7 s.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from engine.strategy import KnownGood, Needs, gene, strategy

# Tensors that pipelines double for guidance, under the names of their step callback.
DOUBLED = (
    "prompt_embeds",
    "add_text_embeds",
    "add_time_ids",
    "pooled_prompt_embeds",
    "mask",
    "masked_image_latents",
    # The control image; one to start from is not doubled.
    "image",
)


@strategy(
    slot="cross_attention",
    order=50,
    exact=False,
    needs=Needs(
        modules=("BasicTransformerBlock",),
        guidance=True,
    ),
    known_good=(
        # First the one that leaves room for a guidance stop below it.
        KnownGood({"gate": 0.6}, "README of tgate: upper end of its range, 15 of 25"),
        KnownGood({"gate": 0.4}, "README of tgate: gate step 10 of 25, SDXL 53.2 to 31.6 s"),
    ),
)
@dataclass(frozen=True)
class TGate:
    """Genes of T-GATE."""

    gate: float = gene(
        0.4, "fraction of the denoiser calls before the gate", low=0.2, high=0.9, step=0.05
    )


class CrossAttentionMemory:
    """Last outputs of all cross-attentions of the image in work."""

    def __init__(self) -> None:
        self.clear()

    def clear(self) -> None:
        self.closed = False
        self.reused = 0
        self.outputs: dict[int, Any] = {}

    def wrap(self, key: int, compute: Any) -> Any:
        """A forward that computes before the gate and answers from memory behind it."""

        def forward(hidden_states: Any, *args: Any, **kwargs: Any) -> Any:
            kept = self.fitting(key, hidden_states) if self.closed else None
            if kept is None:
                kept = compute(hidden_states, *args, **kwargs)
            else:
                self.reused += 1
            self.outputs[key] = kept
            return kept

        return forward

    def fitting(self, key: int, hidden_states: Any) -> Any:
        """The kept output if there is one, as one half if the batch has been halved since."""
        kept = self.outputs.get(key)
        if kept is not None and kept.shape[0] == 2 * hidden_states.shape[0]:
            unconditional, conditional = kept.chunk(2)
            return (unconditional + conditional) / 2
        return kept


def drop_guidance(pipe: Any, tensors: dict[str, Any]) -> None:
    """End classifier-free guidance: the conditional half of each doubled tensor remains.

    Tensors that are not doubled stay: guidance is off already, or the pipeline runs its halves
    one after the other.
    """
    batch = tensors["latents"].shape[0]
    pipe._guidance_scale = 0.0
    for key in DOUBLED:
        if tensors.get(key) is not None:
            tensors[key] = second_half(tensors[key], batch)


def second_half(value: Any, batch: int) -> Any:
    """The last ``batch`` rows of what is doubled, also inside a list; anything else as it is."""
    if isinstance(value, list):
        return [second_half(item, batch) for item in value]
    doubled = hasattr(value, "shape") and value.shape[0] == 2 * batch
    return value[batch:] if doubled else value


class Gate:
    """Hooks around the denoiser of a pipeline without a switch for guidance.

    Behind the gate the second half of a guided batch, the one with the prompt, stands for both.
    """

    def __init__(self, pipe: Any, gate: float) -> None:
        self.pipe = pipe
        self.gate = gate
        self.clear()

    def clear(self) -> None:
        """Forget the last image."""
        self.calls = 0
        self.narrowed = False
        self.halves: dict[int, bool] = {}

    def close(self, module: Any, args: Any, kwargs: Any) -> Any:
        """Before the denoiser: whether the gate is closed, and then the conditional half only."""
        import torch

        sample: Any = args[0] if args else kwargs["hidden_states"]
        rows = sample.shape[0]
        # A guided batch has the same latents twice; once for each size, as it waits for the device.
        if rows not in self.halves:
            self.halves[rows] = rows % 2 == 0 and torch.equal(*sample.chunk(2))
        total = len(self.pipe.scheduler.timesteps)
        closed = self.calls >= max(1, int(self.gate * total + 1e-6))
        self.pipe._tgate_state.closed = closed
        self.calls += 1
        self.narrowed = closed and self.halves[rows]
        return (conditional(args, rows), conditional(kwargs, rows)) if self.narrowed else None

    def widen(self, module: Any, args: Any, output: Any) -> Any:
        """Behind the denoiser: its answer for both halves, as the pipeline expects it."""
        return for_both(output) if self.narrowed else None


def conditional(value: Any, rows: int) -> Any:
    """The second half of every tensor of that batch, also inside lists and dictionaries."""
    import torch

    if isinstance(value, torch.Tensor):
        whole = value.dim() == 0 or value.shape[0] != rows
        return value if whole else value[rows // 2 :]
    if isinstance(value, dict):
        return {key: conditional(item, rows) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return type(value)(conditional(item, rows) for item in value)
    return value


def for_both(output: Any) -> Any:
    """The answer for one half as that for both, in the form that the denoiser gave it."""
    import torch

    if isinstance(output, torch.Tensor):
        return torch.cat([output, output])
    if isinstance(output, dict):
        return type(output)(**{key: for_both(item) for key, item in output.items()})
    return tuple(map(for_both, output))


def has_switch(pipe: Any) -> bool:
    """Whether guidance can be ended for good from a step callback.

    The switch is looked for on the class: the property itself reads what only a call sets.
    """
    offered = getattr(pipe, "_callback_tensor_inputs", ())
    return hasattr(type(pipe), "do_classifier_free_guidance") and "latents" in offered


def apply(pipe: Any, ctx: Any, *, gate: float) -> None:
    denoiser = getattr(pipe, "unet", None) or pipe.transformer
    pipe._tgate_state = CrossAttentionMemory()
    for key, module in enumerate(denoiser.modules()):
        if getattr(module, "is_cross_attention", False):
            module.forward = pipe._tgate_state.wrap(key, module.forward)
    pipe._tgate_gate = None if has_switch(pipe) else Gate(pipe, gate)
    if pipe._tgate_gate is not None:
        denoiser.register_forward_pre_hook(pipe._tgate_gate.close, with_kwargs=True)
        denoiser.register_forward_hook(pipe._tgate_gate.widen)


def call(pipe: Any, ctx: Any, *, gate: float) -> dict[str, Any]:
    if pipe._tgate_gate is not None:
        return {}

    def close_gate(
        pipeline: Any, step_index: int, timestep: Any, tensors: dict[str, Any]
    ) -> dict[str, Any]:
        # Counted by the pipeline: PNDM calls the denoiser once more, img2img less often.
        total = getattr(pipeline, "num_timesteps", None) or ctx.steps
        if step_index + 1 == max(1, int(gate * total + 1e-6)):
            pipeline._tgate_state.closed = True
            drop_guidance(pipeline, tensors)
        return tensors

    offered = [key for key in DOUBLED if key in pipe._callback_tensor_inputs]
    return {
        "callback_on_step_end": close_gate,
        "callback_on_step_end_tensor_inputs": ["latents", *offered],
    }


def reset(pipe: Any) -> None:
    pipe._tgate_state.clear()
    if pipe._tgate_gate is not None:
        pipe._tgate_gate.clear()


def active(pipe: Any) -> str | None:
    """Whether the last image reused a cross-attention."""
    state = pipe._tgate_state
    if not state.outputs:
        return "this denoiser has no cross-attention"
    if state.reused == 0:
        return "no denoiser call was left behind the gate"
    return None


def unfit(pipe: Any) -> str | None:
    """Why there is nothing to keep, or None."""
    denoiser = getattr(pipe, "unet", None) or pipe.transformer
    if not any(getattr(module, "is_cross_attention", False) for module in denoiser.modules()):
        return f"{type(denoiser).__name__} has no cross-attention"
    return None
