"""Multi-query associative recall (Arora et al., Zoology, ICLR 2024)."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from slay.tasks.base import IGNORE, Task, distinct, integers, symbols

VALUES = 16
FILLERS = 16
POWER = 0.01  # of the power law from which distances to questions are drawn


class MultiQueryRecall(Task):
    """D = L / 8 pairs k v; then filler in which every key occurs once more and asks for its value.

    The distance g of a question from the pairs has density proportional to g^(0.01 - 1): most are
    near, some far. Filler tokens are drawn at random from their own vocabulary.
    """

    name = "mqar"
    category = "recall"
    attention_critical = True
    minimum, multiple = 16, 8

    def vocabulary(self, seq_len: int) -> list[str]:
        return [*symbols(VALUES), *symbols(FILLERS, "~"), *symbols(seq_len // 4, "k")]

    def draw(self, generator: torch.Generator, batch: int, seq_len: int) -> tuple[Tensor, Tensor]:
        pairs = seq_len // 8
        keys = VALUES + FILLERS + distinct(generator, batch, pairs, 2 * pairs)  # (B, D)
        values = integers(generator, 0, VALUES, batch, pairs)  # (B, D)
        space = seq_len - 2 * pairs
        # Without replacement, by Gumbel's trick: the largest of log p + noise.
        log_p = (POWER - 1.0) * torch.arange(1, space + 1).log()
        noise = -(-torch.rand(batch, space, generator=generator).log()).log()
        where = 2 * pairs + (log_p + noise).topk(pairs, dim=-1).indices  # (B, D)
        inputs = integers(generator, VALUES, VALUES + FILLERS, batch, seq_len)
        inputs[:, : 2 * pairs] = torch.stack((keys, values), dim=-1).flatten(1)
        targets = torch.full_like(inputs, IGNORE)
        return inputs.scatter_(1, where, keys), targets.scatter_(1, where, values)

    def oracle(self, prefix: Sequence[int], position: int) -> int:
        return prefix[list(prefix).index(prefix[position]) + 1]
