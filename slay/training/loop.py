"""Training of small models on fresh synthetic data."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from slay.pipeline.record import Number
from slay.tasks.base import IGNORE
from slay.training.adamw import AdamW

Batch = tuple[Tensor, Tensor]  # inputs and targets, (B, L) each
SOLVED = 0.999


@dataclass(frozen=True)
class Outcome:
    """Result of a training: the optimiser steps taken, whether it diverged, and its curve."""

    steps: int
    diverged: bool
    curve: list[dict[str, Number]]


def train(
    model: nn.Module,
    draw: Callable[[], Batch],
    validation: Batch,
    *,
    steps: int,
    lr: float,
    warmup: int,
    evaluate_every: int = 25,
    progress: Callable[[str], None] = lambda line: None,
) -> Outcome:
    """Train with AdamW on cross-entropy.

    Linear warm-up, cosine decay to zero, gradients clipped to norm 1. Stops when the validation
    accuracy is at least 0.999 twice in a row, or the loss or the gradient is not finite.
    """
    optimiser = AdamW(model.parameters())
    curve: list[dict[str, Number]] = []
    solved = 0
    for step in range(1, steps + 1):
        inputs, targets = draw()
        loss = F.cross_entropy(model(inputs).flatten(0, 1), targets.flatten(), ignore_index=IGNORE)
        loss.backward()
        norm = nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        if not math.isfinite(loss.item()) or not math.isfinite(norm.item()):
            return Outcome(step, True, curve)
        optimiser.step(lr * learning_rate(step - 1, warmup, steps))
        if step % evaluate_every == 0 or step == steps:
            hit = accuracy(model, *validation)
            curve.append({"step": step, "loss": loss.item(), "accuracy": hit})
            progress(f"step {step}/{steps}  loss {loss.item():.3f}  accuracy {hit:.3f}")
            solved = solved + 1 if hit >= SOLVED else 0
            if solved == 2:
                return Outcome(step, False, curve)
    return Outcome(steps, False, curve)


def learning_rate(step: int, warmup: int, steps: int) -> float:
    """Fraction of the peak learning rate at a step: linear warm-up, then cosine decay."""
    if step < warmup:
        return (step + 1) / warmup
    return 0.5 * (1.0 + math.cos(math.pi * min(1.0, (step - warmup) / max(1, steps - warmup))))


@torch.no_grad()
def accuracy(model: nn.Module, inputs: Tensor, targets: Tensor, batch: int = 256) -> float:
    """Share of the positions with targets other than -100 that the model predicts correctly."""
    hits = asked = 0
    for x, y in zip(inputs.split(batch), targets.split(batch), strict=True):
        mask = y != IGNORE
        hits += int((model(x).argmax(-1) == y)[mask].sum())
        asked += int(mask.sum())
    return hits / asked
