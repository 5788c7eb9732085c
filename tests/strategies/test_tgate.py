"""T-GATE computes cross-attention up to the gate and not behind it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch

from engine.strategy import find
from engine.worker.probe import inapplicable
from tests.strategies.tiny import ARCHITECTURES, tiny_pixart


def computed(made: Any) -> list[int]:
    """Denoiser calls (from 0) in which some cross-attention processor really ran."""
    ran: list[int] = []

    class Counting:
        def __init__(self, inner: Any) -> None:
            self.inner = inner

        def __call__(
            self,
            attn: Any,
            hidden_states: Any,
            encoder_hidden_states: Any = None,
            attention_mask: Any = None,
        ) -> Any:
            if attn.is_cross_attention:
                ran.append(len(made.batches) - 1)
            return self.inner(attn, hidden_states, encoder_hidden_states, attention_mask)

    for module in made.pipe.unet.modules():
        if hasattr(module, "is_cross_attention"):
            module.set_processor(Counting(module.processor))
    return ran


@pytest.mark.parametrize(
    ("gate", "steps", "guided"), [(0.4, 10, 4), (0.2, 6, 1), (0.9, 6, 5), (0.58, 50, 29)]
)
def test_cross_attention_and_guidance_end_at_the_gate(
    ready: Callable[..., Any], gate: float, steps: int, guided: int
) -> None:
    made = ready({"tgate": {"gate": gate}}, steps=steps)
    ran = computed(made)
    made.latents()
    assert made.batches == [2] * guided + [1] * (steps - guided)
    assert sorted(set(ran)) == list(range(guided))


def test_pndm_has_one_callback_for_each_of_its_additional_calls(
    ready: Callable[..., Any],
) -> None:
    made = ready({"tgate": {"gate": 0.5}, "sampler": {"name": "pndm", "steps": 9}})
    made.latents()
    assert made.batches == [2] * 5 + [1] * 5


def test_a_reused_output_is_the_mean_of_both_halves(ready: Callable[..., Any]) -> None:
    made = ready({"tgate": {"gate": 0.5}}, steps=2)
    seen: dict[str, Any] = {}
    state = made.pipe._tgate_state
    attention = made.pipe.unet.down_blocks[0].attentions[0].transformer_blocks[0].attn2
    inner = attention.forward

    def watch(*args: Any, **kwargs: Any) -> Any:
        out = inner(*args, **kwargs)
        seen["after" if state.closed else "before"] = out
        return out

    attention.forward = watch
    made.latents()
    assert seen["before"].shape[0] == 2
    torch.testing.assert_close(seen["after"], seen["before"].mean(0, keepdim=True))


def test_several_prompts_keep_their_own_cross_attention(ready: Callable[..., Any]) -> None:
    prompts = ["a red circle on a white background", "a blue ring on a black background"]
    made = ready({"tgate": {}})
    alone = [made.latents(p, generator=torch.Generator().manual_seed(9)) for p in prompts]
    both = made.latents(prompts, generator=[torch.Generator().manual_seed(9) for _ in prompts])
    torch.testing.assert_close(both, torch.cat(alone), atol=1e-4, rtol=1e-4)
    assert made.batches == [4] * 2 + [2] * 4


def test_without_guidance_nothing_is_halved(ready: Callable[..., Any]) -> None:
    made = ready({"tgate": {}})
    made.latents(["a red circle on a white background"] * 2, guidance_scale=1.0)
    assert made.batches == [2] * 6
    assert made.reasons() == {"tgate": None}


def test_guidance_that_stopped_before_the_gate_is_not_halved_again(
    ready: Callable[..., Any],
) -> None:
    made = ready({"tgate": {"gate": 0.7}, "guidance": {"stop": 0.35}})
    ran = computed(made)
    made.latents(["a red circle on a white background"] * 2)
    assert made.batches == [4] * 2 + [2] * 4
    assert sorted(set(ran)) == list(range(4))
    assert set(made.reasons().values()) == {None}


def test_deep_layers_skipped_at_the_gate_use_their_last_full_pass(
    ready: Callable[..., Any],
) -> None:
    made = ready({"tgate": {"gate": 0.5}, "deepcache": {"interval": 2}}, steps=8)
    ran = computed(made)
    made.latents()
    assert sorted(set(ran)) == [0, 1, 2, 3]


def test_another_size_in_the_next_image_is_computed_afresh(ready: Callable[..., Any]) -> None:
    made = ready({"tgate": {}})
    made.latents(height=96, width=64)
    assert torch.equal(made.latents(), ready({"tgate": {}}).latents())


def test_processors_set_later_keep_the_gate(ready: Callable[..., Any]) -> None:
    from diffusers.models.attention_processor import AttnProcessor

    made = ready({"tgate": {}})
    expected = made.latents()
    made.pipe.unet.set_attn_processor(AttnProcessor())
    torch.testing.assert_close(made.latents(), expected, atol=1e-4, rtol=1e-4)
    assert made.reasons() == {"tgate": None}


def test_sdxl_drops_its_additional_embeddings_too(
    ready: Callable[..., Any], sdxl: Callable[[], Any]
) -> None:
    made = ready({"tgate": {"gate": 0.5}}, pipe=sdxl())
    made.latents(prompt=None, **made.pipe.embeddings)
    assert made.batches == [2] * 3 + [1] * 3
    assert made.reasons() == {"tgate": None}


def test_pixart_closes_its_gate_without_a_step_callback(ready: Callable[..., Any]) -> None:
    made = ready({"tgate": {"gate": 0.5}}, pipe=tiny_pixart())
    batches: list[int] = []
    made.pipe.transformer.pos_embed.register_forward_pre_hook(
        lambda _, args: batches.append(args[0].shape[0])
    )
    first = made.latents()
    assert batches == [2] * 3 + [1] * 3
    assert made.pipe._tgate_state.reused == 3 * len(made.pipe.transformer.transformer_blocks)
    assert made.reasons() == {"tgate": None}
    two = ["one", "another"]
    both = made.latents(two, generator=[torch.Generator().manual_seed(1) for _ in two])
    torch.testing.assert_close(both[:1], first, atol=1e-4, rtol=1e-4)
    assert batches[6:] == [4] * 3 + [2] * 3
    assert torch.equal(made.latents(), first)


def test_pixart_with_both_ends_guidance_once(ready: Callable[..., Any]) -> None:
    genome = {"tgate": {"gate": 0.7}, "guidance": {"start": 0.2, "stop": 0.5}}
    made = ready(genome, pipe=tiny_pixart())
    batches: list[int] = []
    made.pipe.transformer.pos_embed.register_forward_pre_hook(
        lambda _, args: batches.append(args[0].shape[0])
    )
    made.latents(["one", "another"])
    assert batches == [2, 4, 4, 2, 2, 2]
    assert set(made.reasons().values()) == {None}


@pytest.mark.parametrize("model", ["dit", "sd3", "flux"])
def test_transformers_without_cross_attention_are_refused(model: str) -> None:
    pipe = ARCHITECTURES[model]()
    assert inapplicable(find("tgate"), pipe, "transformer", "cpu") is not None


def test_a_single_step_leaves_nothing_behind_the_gate(ready: Callable[..., Any]) -> None:
    made = ready({"tgate": {}})
    made.latents(num_inference_steps=1)
    assert made.reasons()["tgate"] == "no denoiser call was left behind the gate"
