"""A resumable training loop: cosine schedule, optional moving average, checkpoint, progress."""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from engine.errors import UsageError
from engine.files import replacing

if TYPE_CHECKING:
    import torch

SAVE_EVERY_S = 120.0
WARM_UP_STEPS = 100


@dataclass(frozen=True)
class Schedule:
    """How long and how fast one stage trains; ``batch`` counts base scenes."""

    steps: int
    batch: int
    rate: float
    average: float = 0.0
    """Decay of the exponential moving average of the weights; 0 keeps the last weights."""
    matrices: float = 0.0
    """Muon's learning rate for the matrices in transformer blocks; 0 leaves them to AdamW."""

    def share_at(self, step: int) -> float:
        """The share of its full learning rate that an optimizer has at a step."""
        warm = min(1.0, (step + 1) / WARM_UP_STEPS)
        return warm * 0.5 * (1 + math.cos(math.pi * step / self.steps))


def train(
    module: torch.nn.Module,
    loss_at: Callable[[int], torch.Tensor],
    schedule: Schedule,
    checkpoint: Path,
    *,
    title: str,
    snapshot: Callable[[int], None] | None = None,
) -> None:
    """Train ``module`` in place and leave the (averaged) weights in it.

    ``loss_at(step)`` draws its own batch from the step number, so that a run resumed from
    ``checkpoint`` sees the data it would have seen. ``snapshot`` is called at every save.
    """
    import torch

    optimizers = _optimizers(module, schedule)
    full = [optimizer.param_groups[0]["lr"] for optimizer in optimizers]
    mean = {n: p.detach().clone() for n, p in module.named_parameters()}
    first, spent = 0, 0.0
    if checkpoint.exists():
        state = torch.load(checkpoint, weights_only=True, map_location="cpu")
        if "optimizers" not in state:
            raise UsageError(f"{checkpoint} is of an earlier version; delete it to start again")
        module.load_state_dict(state["module"])
        for optimizer, kept in zip(optimizers, state["optimizers"], strict=True):
            optimizer.load_state_dict(kept)
        device = next(module.parameters()).device
        mean = {name: value.to(device) for name, value in state["mean"].items()}
        first, spent = state["step"], state["seconds"]
    started = saved = time.monotonic()
    for step in range(first, schedule.steps):
        for optimizer, rate in zip(optimizers, full, strict=True):
            optimizer.param_groups[0]["lr"] = rate * schedule.share_at(step)
        loss = loss_at(step)
        module.zero_grad(set_to_none=True)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(module.parameters(), 1.0)
        for optimizer in optimizers:
            optimizer.step()
        if schedule.average:
            # A young average follows closely, else it would remember the initial weights.
            decay = min(schedule.average, (step + 1) / (step + 10))
            with torch.no_grad():
                for name, parameter in module.named_parameters():
                    mean[name].lerp_(parameter, 1 - decay)
        now = time.monotonic()
        last = step + 1 == schedule.steps
        if last or now - saved > SAVE_EVERY_S:
            saved = now
            seconds = spent + now - started
            _save(module, optimizers, mean, step + 1, seconds, checkpoint)
            left = (now - started) / (step + 1 - first) * (schedule.steps - step - 1)
            print(
                f"{title}: step {step + 1}/{schedule.steps}, loss {loss.item():.4f}, "
                f"{seconds / 60:.1f} min, {left / 60:.1f} min left",
                flush=True,
            )
            if snapshot is not None:
                snapshot(step + 1)
    if schedule.average:
        with torch.no_grad():
            for name, parameter in module.named_parameters():
                parameter.copy_(mean[name])


def _optimizers(module: torch.nn.Module, schedule: Schedule) -> list[torch.optim.Optimizer]:
    """AdamW for what trains, and Muon (Jordan et al. 2024) for the blocks' matrices if asked for.

    With updates as large as AdamW's (Liu et al. 2025, section 2.2), so that one order of rates
    serves both.
    """
    import torch

    trained = {name: value for name, value in module.named_parameters() if value.requires_grad}
    matrices = {
        name: value
        for name, value in trained.items()
        if schedule.matrices and "transformer_blocks." in name and name.endswith(".weight")
        if value.ndim == 2
    }
    others = [value for name, value in trained.items() if name not in matrices]
    chosen: list[torch.optim.Optimizer] = [
        torch.optim.AdamW(others, lr=schedule.rate, weight_decay=0.01)
    ]
    if matrices:
        chosen.append(
            torch.optim.Muon(
                list(matrices.values()),
                lr=schedule.matrices,
                weight_decay=0.0,
                adjust_lr_fn="match_rms_adamw",
            )
        )
    return chosen


def _save(
    module: torch.nn.Module,
    optimizers: list[torch.optim.Optimizer],
    mean: dict[str, torch.Tensor],
    step: int,
    seconds: float,
    checkpoint: Path,
) -> None:
    import torch

    state = {
        "module": module.state_dict(),
        "optimizers": [optimizer.state_dict() for optimizer in optimizers],
        "mean": mean,
        "step": step,
        "seconds": seconds,
    }
    with replacing(checkpoint) as partial:
        torch.save(state, partial)


def seconds_spent(checkpoint: Path) -> float:
    """Training time recorded in a checkpoint, over all its resumed parts."""
    import torch

    return float(torch.load(checkpoint, weights_only=True, map_location="cpu")["seconds"])
