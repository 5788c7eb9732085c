"""T-GATE: after a gate step cross-attention is reused and guidance is dropped.

What it does: cross-attention converges early in the denoising. Up to the gate every step runs
as usual. Afterwards each cross-attention returns its last output (the mean of the unconditional
and the conditional half), and classifier-free guidance ends, which halves the batch.

When it pays: guided models with cross-attention and 15 steps or more. Most of the gain is the
halved batch, so beside ``guidance`` only the earlier of the two has that effect.

Genes: ``gate`` is the fraction of the denoiser calls before the gate; 0.4 is 10 of 25 steps.

How it fails: with an early gate colours and objects that are settled late are lost. IP-Adapter
embeddings cannot be halved from a step callback, so that combination breaks off at the gate.

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
)


@strategy(
    slot="cross_attention",
    order=50,
    exact=False,
    needs=Needs(
        backbone=("unet",),
        modules=("BasicTransformerBlock",),
        inputs=("callback_on_step_end", "callback_on_step_end_tensor_inputs"),
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
        if key in tensors and tensors[key] is not None and tensors[key].shape[0] == 2 * batch:
            tensors[key] = tensors[key][batch:]


def apply(pipe: Any, ctx: Any, *, gate: float) -> None:
    pipe._tgate_state = CrossAttentionMemory()
    for key, module in enumerate(pipe.unet.modules()):
        if getattr(module, "is_cross_attention", False):
            module.forward = pipe._tgate_state.wrap(key, module.forward)


def call(pipe: Any, ctx: Any, *, gate: float) -> dict[str, Any]:
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


def active(pipe: Any) -> str | None:
    """Whether the last image reused a cross-attention."""
    state = pipe._tgate_state
    if not state.outputs:
        return "this U-Net has no cross-attention"
    if state.reused == 0:
        return "no denoiser call was left behind the gate"
    return None
