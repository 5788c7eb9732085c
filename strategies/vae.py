"""The autoencoder decodes in pieces, for less memory.

What it does: images of a batch are decoded one after the other (slicing). With more than one tile
a side each image is decoded in overlapping tiles as well, whose seams are blended. The peak of
memory at large sizes is the decode, and it falls with the size of a piece.

When it pays: memory only, at large images or batches. Time grows a little with tiles: they overlap
by a quarter.

Genes: ``tiles`` is how many tiles stand along the longer side of the image that the program was
measured with; their size then stays, so a smaller image needs fewer. 1 means whole images, one
after the other: exact up to rounding, and nothing changes for a batch of one, which is reported.

How it fails: each tile has its own statistics of normalisation and sees nothing outside itself, so
colours may differ from tile to tile and pixels do change everywhere. Tiles whose side in latents
is no multiple of four would be laid out at another stride than they are decoded with, and the
image would get the wrong size; sizes are rounded up to such multiples. An image no larger than a
tile is decoded whole. Tiling reaches encoding too, where an initial image is given.

Published: diffusers' documentation, reduce memory usage: images of 4k pixels decoded in tiles in
8 GB; both are recommended together.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from engine.strategy import KnownGood, Needs, gene, strategy


@strategy(
    slot="vae",
    order=45,
    exact=False,
    # Overlapping tiles are a few more operations, so by operations it never wins.
    timed_only=True,
    for_memory=True,
    needs=Needs(parts=("vae",)),
    # Single images need a batch to act, so they seed no search.
    known_good=(
        KnownGood({"tiles": 2}, "diffusers documentation, reduce memory usage: tiled decoding"),
    ),
)
@dataclass(frozen=True)
class VaePieces:
    """Genes of decoding in pieces."""

    tiles: int = gene(2, "tiles along the longer side of an image", choices=(1, 2, 4))


class Pieces:
    """Counts the decoder's passes and the images that were decoded in tiles."""

    def __init__(self, tiles: int, side: int) -> None:
        self.tiles = tiles
        self.side = side
        self.clear()

    def clear(self) -> None:
        self.passes = 0
        self.tiled = 0

    def note(self, module: Any, inputs: Any) -> None:
        self.passes += 1

    def counted(self, decode: Any) -> Any:
        def tiled_decode(*args: Any, **kwargs: Any) -> Any:
            self.tiled += 1
            return decode(*args, **kwargs)

        return tiled_decode


def tile_side(latents: int, tiles: int) -> int:
    """Side of a tile in latents: a multiple of four of which three quarters, the stride of the
    library, cover the image in ``tiles`` strides."""
    stride = -(-latents // tiles)
    return 4 * -(-stride // 3)


def apply(pipe: Any, ctx: Any, *, tiles: int) -> None:
    autoencoder = pipe.vae
    if not hasattr(autoencoder, "tiled_decode") or not hasattr(autoencoder, "tile_latent_min_size"):
        raise ValueError(f"{type(autoencoder).__name__} does not decode images in tiles")
    scale = 2 ** (len(autoencoder.config.block_out_channels) - 1)
    side = tile_side(max(ctx.height, ctx.width) // scale, tiles)
    state = Pieces(tiles, side)
    autoencoder.enable_slicing()
    if tiles > 1:
        autoencoder.enable_tiling()
        autoencoder.tile_overlap_factor = 0.25
        autoencoder.tile_latent_min_size = side
        autoencoder.tile_sample_min_size = side * scale
        autoencoder.tiled_decode = state.counted(autoencoder.tiled_decode)
    autoencoder.decoder.register_forward_pre_hook(state.note)
    pipe._vae_state = state


def reset(pipe: Any) -> None:
    pipe._vae_state.clear()


def active(pipe: Any) -> str | None:
    """Whether the last decode came in pieces of the kind that was asked for."""
    state = pipe._vae_state
    if state.passes == 0:
        return "nothing was decoded"
    if state.tiles > 1 and state.tiled == 0:
        return f"the image has no more than the {state.side} x {state.side} latents of a tile"
    if state.passes == 1:
        return "a batch of one image is decoded whole: tiles=1 acts on larger batches only"
    return None
