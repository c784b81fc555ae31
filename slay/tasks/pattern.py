"""Statistics of the context."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from itertools import pairwise

import torch
from torch import Tensor
from torch.nn import functional as F

from slay.tasks.base import IGNORE, Task, ask, column, integers, nothing_asked, symbols

QUERY = 0
CLASSES = 8


class Majority(Task):
    """L - 1 symbols, then QUERY: which symbol was the most frequent? There is never a tie.

    Ties are broken in the data: one other symbol is replaced by one of the leaders.
    """

    name = "majority"
    category = "pattern"
    minimum = 8

    def vocabulary(self, seq_len: int) -> list[str]:
        return ["QUERY", *symbols(CLASSES)]

    def draw(self, generator: torch.Generator, batch: int, seq_len: int) -> tuple[Tensor, Tensor]:
        x = integers(generator, 0, CLASSES, batch, seq_len - 1)  # (B, L - 1)
        counts = F.one_hot(x, CLASSES).sum(1)  # (B, C)
        favour = torch.rand(batch, CLASSES, generator=generator)
        winner = (counts + favour).argmax(-1, keepdim=True)  # (B, 1), a random leader
        other = torch.rand(x.shape, generator=generator).masked_fill(x == winner, -1.0)
        tied = counts.eq(counts.max(-1, keepdim=True).values).sum(-1, keepdim=True) > 1
        x = torch.where(tied, x.scatter(1, other.argmax(-1, keepdim=True), winner), x)
        return ask(1 + x, column(batch, QUERY), 1 + winner)

    def oracle(self, prefix: Sequence[int], position: int) -> int:
        return Counter(prefix[:position]).most_common(1)[0][0]


class Bigram(Task):
    """A Markov chain drawn anew for every sequence: what followed this symbol most often so far?

    Each symbol has a favourite successor, another symbol, taken seven times out of ten. Asked where
    one successor leads and was seen at least twice.
    """

    name = "bigram"
    category = "pattern"
    minimum = 16

    def vocabulary(self, seq_len: int) -> list[str]:
        return symbols(self._states(seq_len))

    def draw(self, generator: torch.Generator, batch: int, seq_len: int) -> tuple[Tensor, Tensor]:
        states = self._states(seq_len)
        favourite = torch.arange(states) + integers(generator, 1, states, batch, states)
        favourite %= states  # never itself
        inputs = integers(generator, 0, states, batch, seq_len)
        obeys = torch.rand(batch, seq_len, generator=generator) < 0.7
        counts = torch.zeros(batch, states, states, dtype=torch.int64)
        targets = nothing_asked(inputs)
        row = torch.arange(batch)
        for i in range(seq_len):
            if i:
                before = inputs[:, i - 1]
                inputs[:, i] = torch.where(obeys[:, i], favourite[row, before], inputs[:, i])
                counts[row, before, inputs[:, i]] += 1
            first, second = counts[row, inputs[:, i]].topk(2, dim=-1).values.unbind(-1)
            leader = counts[row, inputs[:, i]].argmax(-1)
            targets[:, i] = torch.where((first > second) & (first > 1), leader, IGNORE)
        return inputs, targets

    def oracle(self, prefix: Sequence[int], position: int) -> int:
        pairs = pairwise(prefix[: position + 1])
        return Counter(b for a, b in pairs if a == prefix[position]).most_common(1)[0][0]

    @staticmethod
    def _states(seq_len: int) -> int:
        return min(16, 4 + seq_len // 32)
