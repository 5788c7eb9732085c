"""A trained U-Net as the guide of a transformer's first layers (representation alignment).

A transformer learns where things are from nothing, and slowly. Yu et al. 2024 (arXiv 2410.06940)
let its hidden tokens predict features of a network that sees the clean picture; here the features
are those of a miniature that was trained before, on the same noisy latents and captions. Nothing of
it is needed to draw.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import torch

    Tensors = dict[str, torch.Tensor]

WEIGHT = 0.5
"""Weight of the mean squared error of standardised features against that of v."""


class Alignment:
    """Linear heads that read a U-Net's features from a transformer's hidden tokens.

    ``guide(noisy, times, rows)`` runs the U-Net; ``times`` are those of ``kept``, the transformer's
    product of alphas, and are translated to the U-Net's own. The features are the U-Net's cross
    attention outputs at 8 x 8 on its way down and on its way up, the 64 places of the
    transformer's tokens.
    """

    def __init__(
        self,
        transformer: Any,
        unet: Any,
        guide: Callable[[torch.Tensor, torch.Tensor, Tensors], Any],
        kept: torch.Tensor,
        kept_by_unet: torch.Tensor,
    ) -> None:
        import torch

        sources = (unet.down_blocks[1].attentions[-1], unet.up_blocks[-2].attentions[-1])
        blocks = transformer.transformer_blocks
        readers = (blocks[len(blocks) // 2 - 1], blocks[-2])
        self._features: list[torch.Tensor] = [torch.empty(0)] * len(sources)
        self._hidden: list[torch.Tensor] = [torch.empty(0)] * len(readers)
        for index, (source, reader) in enumerate(zip(sources, readers, strict=True)):
            source.register_forward_hook(_keep(self._features, index))
            reader.register_forward_hook(_keep(self._hidden, index))
        self.heads = torch.nn.ModuleList(
            torch.nn.Linear(transformer.inner_dim, source.in_channels) for source in sources
        )
        self._guide = guide
        angles = torch.acos(kept.sqrt())
        theirs = torch.acos(kept_by_unet.sqrt())
        self._times = torch.searchsorted(theirs, angles).clamp(max=len(theirs) - 1)

    def loss(self, noisy: torch.Tensor, times: torch.Tensor, rows: Tensors) -> torch.Tensor:
        """How far the hidden tokens of the forward pass just made are from the guide's features
        on the same batch, times WEIGHT."""
        import torch

        with torch.no_grad():
            self._guide(noisy, self._times.to(times.device)[times], rows)
        total = torch.zeros((), device=noisy.device)
        for head, hidden, features in zip(self.heads, self._hidden, self._features, strict=True):
            wanted = features.float()
            spread, mean = torch.std_mean(wanted, dim=(0, 2, 3), keepdim=True)
            wanted = ((wanted - mean) / (spread + 1e-6)).flatten(2).transpose(1, 2)
            total = total + (head(hidden).float() - wanted).square().mean()
        return WEIGHT * total


def _keep(place: list[torch.Tensor], index: int) -> Callable[[Any, Any, Any], None]:
    """A hook that keeps a module's output, which some blocks wrap."""

    def keep(module: Any, given: Any, output: Any) -> None:
        place[index] = output if hasattr(output, "shape") else output[0]

    return keep
