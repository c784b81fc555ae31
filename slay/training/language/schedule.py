"""Learning rate and batch size of each step."""

from __future__ import annotations

import math
from collections.abc import Iterator

from slay.errors import SlayError
from slay.training.language.config import OptimConfig


def learning_rate(step: int, optim: OptimConfig) -> float:
    """Learning rate of step 1, 2, ...: linear warm-up, then cosine decay to zero."""
    warmup, total = optim.warmup, optim.steps
    if step <= warmup:
        return optim.lr * step / warmup
    return optim.lr * 0.5 * (1 + math.cos(math.pi * (step - 1 - warmup) / (total - warmup)))


def batch_size(step: int, optim: OptimConfig, unit: int) -> int:
    """Sequences in step 1, 2, ...: grows linearly from `batch_start`, in multiples of `unit`."""
    start = optim.batch_start or optim.batch_size
    if step > optim.batch_ramp_steps:
        return optim.batch_size
    size = start + (optim.batch_size - start) * (step - 1) / optim.batch_ramp_steps
    return max(unit, round(size / unit) * unit)


def batches(optim: OptimConfig, unit: int, after: int) -> Iterator[tuple[int, int, int]]:
    """Yield (step, number of the first sequence, sequences) of every step after step `after`."""
    first = 0
    for step in range(1, optim.steps + 1):
        size = batch_size(step, optim, unit)
        if step > after:
            yield step, first, size
        first += size


def unit_of(optim: OptimConfig, world: int) -> int:
    """Number of sequences that must divide a batch: one for each process and piece."""
    unit = world * optim.gradient_accumulation_steps
    if optim.batch_size % unit:
        raise SlayError(
            f"batch_size = {optim.batch_size}: must be a multiple of {unit} "
            f"({world} processes x gradient_accumulation_steps = "
            f"{optim.gradient_accumulation_steps})"
        )
    return unit
