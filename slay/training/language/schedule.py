"""Learning rate and batch size of each step."""

from __future__ import annotations

import math
from collections.abc import Iterator

from slay.errors import SlayError
from slay.training.language.settings import Settings


def learning_rate(step: int, settings: Settings) -> float:
    """Learning rate of step 1, 2, ...: linear warm-up, then cosine decay to zero."""
    warmup, total = settings.warmup_steps, settings.total_steps
    if step <= warmup:
        return settings.lr * step / warmup
    return settings.lr * 0.5 * (1 + math.cos(math.pi * (step - 1 - warmup) / (total - warmup)))


def batch_size(step: int, settings: Settings, unit: int) -> int:
    """Sequences in step 1, 2, ...: grows linearly from `batch_start`, in multiples of `unit`."""
    start = settings.batch_start or settings.batch_size
    if step > settings.batch_ramp_steps:
        return settings.batch_size
    size = start + (settings.batch_size - start) * (step - 1) / settings.batch_ramp_steps
    return max(unit, round(size / unit) * unit)


def batches(settings: Settings, unit: int, after: int) -> Iterator[tuple[int, int, int]]:
    """Yield (step, number of the first sequence, sequences) of every step after step `after`."""
    first = 0
    for step in range(1, settings.total_steps + 1):
        size = batch_size(step, settings, unit)
        if step > after:
            yield step, first, size
        first += size


def unit_of(settings: Settings, world: int) -> int:
    """Number of sequences that must divide a batch: one for each process and piece."""
    unit = world * settings.gradient_accumulation_steps
    if settings.batch_size % unit:
        raise SlayError(
            f"batch_size = {settings.batch_size}: must be a multiple of {unit} "
            f"({world} processes x gradient_accumulation_steps = "
            f"{settings.gradient_accumulation_steps})"
        )
    return unit
