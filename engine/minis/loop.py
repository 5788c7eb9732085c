"""A resumable training loop: cosine schedule, optional moving average, checkpoint, progress."""

from __future__ import annotations

import math
import os
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

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

    def rate_at(self, step: int) -> float:
        warm = min(1.0, (step + 1) / WARM_UP_STEPS)
        return self.rate * warm * 0.5 * (1 + math.cos(math.pi * step / self.steps))


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

    optimizer = torch.optim.AdamW(module.parameters(), lr=schedule.rate, weight_decay=0.01)
    mean = {n: p.detach().clone() for n, p in module.named_parameters()}
    first, spent = 0, 0.0
    if checkpoint.exists():
        state = torch.load(checkpoint, weights_only=True, map_location="cpu")
        module.load_state_dict(state["module"])
        optimizer.load_state_dict(state["optimizer"])
        device = next(module.parameters()).device
        mean = {name: value.to(device) for name, value in state["mean"].items()}
        first, spent = state["step"], state["seconds"]
    started = saved = time.monotonic()
    for step in range(first, schedule.steps):
        for group in optimizer.param_groups:
            group["lr"] = schedule.rate_at(step)
        loss = loss_at(step)
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(module.parameters(), 1.0)
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
            _save(module, optimizer, mean, step + 1, seconds, checkpoint)
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


def _save(
    module: torch.nn.Module,
    optimizer: torch.optim.Optimizer,
    mean: dict[str, torch.Tensor],
    step: int,
    seconds: float,
    checkpoint: Path,
) -> None:
    import torch

    checkpoint.parent.mkdir(parents=True, exist_ok=True)
    partial = checkpoint.with_suffix(".partial")
    torch.save(
        {
            "module": module.state_dict(),
            "optimizer": optimizer.state_dict(),
            "mean": mean,
            "step": step,
            "seconds": seconds,
        },
        partial,
    )
    os.replace(partial, checkpoint)


def seconds_spent(checkpoint: Path) -> float:
    """Training time recorded in a checkpoint, over all its resumed parts."""
    import torch

    return float(torch.load(checkpoint, weights_only=True, map_location="cpu")["seconds"])
