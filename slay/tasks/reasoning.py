"""Finding a pattern in the context and continuing it."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from slay.tasks.base import Task, distinct, nothing_asked


class Induction(Task):
    """Different tokens, then some of them again in random order: what followed each the first time?

    The first part has floor(L / 2) + 1 tokens. Each trigger in the second part has exactly one
    earlier occurrence, and that one has a successor.
    """

    name = "induction"
    category = "reasoning"
    attention_critical = True
    lengths = "any number from 4"

    def allows(self, seq_len: int) -> bool:
        return seq_len >= 4

    def vocab_size(self, seq_len: int) -> int:
        return seq_len

    def draw(self, generator: torch.Generator, batch: int, seq_len: int) -> tuple[Tensor, Tensor]:
        n = seq_len // 2 + 1
        first = distinct(generator, batch, n, seq_len)  # (B, n)
        where = distinct(generator, batch, seq_len - n, n - 1)  # (B, L - n), never the last
        inputs = torch.cat((first, first.gather(1, where)), dim=1)
        targets = nothing_asked(inputs)
        targets[:, n:] = first.gather(1, where + 1)
        return inputs, targets

    def oracle(self, prefix: Sequence[int], position: int) -> int:
        return prefix[list(prefix).index(prefix[position]) + 1]
