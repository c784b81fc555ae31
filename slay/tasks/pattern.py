"""Statistics of the context."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn import functional as F

from slay.tasks.base import Task, nothing_asked

QUERY = 0
CLASSES = 8


class Majority(Task):
    """L - 1 symbols, then QUERY: which symbol was the most frequent? There is never a tie.

    Ties are broken in the data: one symbol that lost turns into one of the leaders.
    """

    name = "majority"
    category = "pattern"
    attention_critical = False
    lengths = "any number from 8"

    def allows(self, seq_len: int) -> bool:
        return seq_len >= 8

    def vocab_size(self, seq_len: int) -> int:
        return 1 + CLASSES

    def draw(self, generator: torch.Generator, batch: int, seq_len: int) -> tuple[Tensor, Tensor]:
        x = torch.randint(CLASSES, (batch, seq_len - 1), generator=generator)  # (B, L - 1)
        counts = F.one_hot(x, CLASSES).sum(1)  # (B, C)
        favour = torch.rand(batch, CLASSES, generator=generator)
        winner = (counts + favour).argmax(-1, keepdim=True)  # (B, 1), a random leader
        other = torch.rand(x.shape, generator=generator).masked_fill(x == winner, -1.0)
        tied = counts.eq(counts.max(-1, keepdim=True).values).sum(-1, keepdim=True) > 1
        x = torch.where(tied, x.scatter(1, other.argmax(-1, keepdim=True), winner), x)
        inputs = torch.cat((1 + x, torch.full((batch, 1), QUERY)), dim=1)
        targets = nothing_asked(inputs)
        targets[:, -1:] = 1 + winner
        return inputs, targets

    def oracle(self, prefix: Sequence[int], position: int) -> int:
        return Counter(prefix[:position]).most_common(1)[0][0]
