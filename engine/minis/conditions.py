"""What the text encoders say of captions: the conditions that miniatures are trained on.

A table has a row for every caption; row 0 is that of an empty one.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from engine.minis import networks, scenes
from engine.minis.stages import Place, chunks, tokenize

if TYPE_CHECKING:
    import torch

    from engine.minis.tasks import Shared

    Tensors = dict[str, torch.Tensor]


def clip_table(shared: Shared, captions: list[str], place: Place) -> Tensors:
    """What the CLIP says of "" and of each caption: ``last`` and ``hidden`` (the last state and
    that before the last layer, N x 16 x 128), ``pooled`` and ``projected`` (N x 128)."""
    import torch

    found: dict[str, list[Any]] = {"last": [], "hidden": [], "pooled": [], "projected": []}
    for part in ([""], *chunks(captions, 256)):
        with torch.no_grad():
            ids = tokenize(shared.tokenizer, part).to(place.device)
            out = shared.text.text_model(ids, output_hidden_states=True)
            found["last"].append(out.last_hidden_state)
            found["hidden"].append(out.hidden_states[-2])
            found["pooled"].append(out.pooler_output)
            found["projected"].append(shared.text.text_projection(out.pooler_output))
    return {name: torch.cat(values) for name, values in found.items()}


def sdxl_table(shared: Shared, captions: list[str], place: Place) -> Tensors:
    """The CLIP's ``words`` (N x 16 x 128) and ``pooled`` projection (N x 128) for SDXL."""
    clip = clip_table(shared, captions, place)
    table = {"words": clip["hidden"], "pooled": clip["projected"]}
    for rows in table.values():
        rows[0] = 0  # the pipeline takes zeros for a missing negative prompt
    return table


def sdxl_words(rows: Tensors) -> dict[str, Any]:
    """Keywords of SDXL's networks: both text encoders are the same CLIP, so its words come
    twice."""
    import torch

    size = float(scenes.SIZE)
    ids = torch.tensor([size, size, 0.0, 0.0, size, size], device=rows["words"].device)
    return {
        "encoder_hidden_states": torch.cat([rows["words"]] * 2, dim=-1),
        "added_cond_kwargs": {
            "text_embeds": rows["pooled"],
            "time_ids": ids.expand(len(rows["words"]), -1),
        },
    }


def t5_table(tokenizer: Any, captions: list[str], place: Place) -> Tensors:
    """Token ids and mask (N x 16 each) of "" and of each caption."""
    texts = ["", *captions]
    out = tokenizer(
        texts,
        padding="max_length",
        max_length=networks.TOKENS,
        return_tensors="pt",
        truncation=True,
    )
    return {"ids": out.input_ids.to(place.device), "mask": out.attention_mask.to(place.device)}
