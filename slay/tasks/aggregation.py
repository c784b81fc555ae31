"""Aggregation: counts over the whole context."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn import functional as F

from slay.tasks.base import Task, ask, symbols

KINDS = 4


class Histogram(Task):
    """Text, SEP, then each symbol once, in order: how often did it occur in the text?

    The symbols' probabilities are drawn anew for every sequence.
    """

    name = "histogram"
    category = "aggregation"
    minimum = 16

    def vocabulary(self, seq_len: int) -> list[str]:
        return ["SEP", *symbols(KINDS), *map(str, range(seq_len))]

    def draw(self, generator: torch.Generator, batch: int, seq_len: int) -> tuple[Tensor, Tensor]:
        share = -torch.rand(batch, KINDS, generator=generator).log()  # normalised: uniform
        x = torch.multinomial(share, seq_len - 1 - KINDS, replacement=True, generator=generator)
        counts = F.one_hot(x, KINDS).sum(1)  # (B, C)
        names = torch.arange(1, 1 + KINDS).expand(batch, -1)
        return ask(F.pad(1 + x, (0, 1), value=0), names, 1 + KINDS + counts)

    def oracle(self, prefix: Sequence[int], position: int) -> int:
        text = list(prefix[: list(prefix).index(0)])
        return 1 + KINDS + text.count(prefix[position])
