"""Separating what matters from what does not."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from slay.tasks.base import Task, integers, places, symbols, then

SYMBOLS = 16
NOISE = 8


class NoisyCopy(Task):
    """k = L / 4 symbols somewhere among noise of another kind; after SEP, the symbols alone."""

    name = "noisy_copy"
    category = "robustness"
    minimum, multiple = 8, 4

    def vocabulary(self, seq_len: int) -> list[str]:
        return ["SEP", *symbols(SYMBOLS), *symbols(NOISE, "~")]

    def draw(self, generator: torch.Generator, batch: int, seq_len: int) -> tuple[Tensor, Tensor]:
        k = seq_len // 4
        x = integers(generator, 1, 1 + SYMBOLS, batch, k)  # (B, k)
        noise = integers(generator, 1 + SYMBOLS, 1 + SYMBOLS + NOISE, batch, seq_len - k)
        return then(noise.scatter(1, places(generator, batch, k, seq_len - k), x), 0, x)

    def oracle(self, prefix: Sequence[int], position: int) -> int:
        n = list(prefix).index(0)
        return [token for token in prefix[:n] if token <= SYMBOLS][position - n]


class Compression(Task):
    """k = L / 4 runs of equal symbols, neighbours different; after SEP, one symbol per run."""

    name = "compression"
    category = "robustness"
    minimum, multiple = 8, 4

    def vocabulary(self, seq_len: int) -> list[str]:
        return ["SEP", *symbols(SYMBOLS)]

    def draw(self, generator: torch.Generator, batch: int, seq_len: int) -> tuple[Tensor, Tensor]:
        k = seq_len // 4
        steps = integers(generator, 1, SYMBOLS, batch, k)  # never 0: the symbol changes
        runs = 1 + steps.cumsum(-1) % SYMBOLS  # (B, k)
        n = seq_len - k
        starts = 1 + places(generator, batch, k - 1, n - 1)  # of all runs but the first
        run = torch.zeros(batch, n, dtype=torch.int64).scatter(1, starts, 1).cumsum(-1)
        return then(runs.gather(1, run), 0, runs)

    def oracle(self, prefix: Sequence[int], position: int) -> int:
        n = list(prefix).index(0)
        runs = [prefix[i] for i in range(n) if not i or prefix[i] != prefix[i - 1]]
        return runs[position - n]
