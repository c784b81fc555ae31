"""Routing: tokens come in, and go out again at other places."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from slay.tasks.base import Task, nothing_asked

SEP = 0
SYMBOLS = 16


class Copy(Task):
    """x_1 ... x_n SEP x_1 ... x_(n-1): from SEP on, each position asks for the next symbol of x."""

    name = "copy"
    category = "basic"
    attention_critical = True
    lengths = "even numbers from 4"

    def allows(self, seq_len: int) -> bool:
        return seq_len >= 4 and seq_len % 2 == 0

    def vocab_size(self, seq_len: int) -> int:
        return 1 + SYMBOLS

    def draw(self, generator: torch.Generator, batch: int, seq_len: int) -> tuple[Tensor, Tensor]:
        n = seq_len // 2
        x = torch.randint(1, 1 + SYMBOLS, (batch, n), generator=generator)  # (B, n)
        inputs = torch.cat((x, torch.full((batch, 1), SEP), x[:, :-1]), dim=1)
        targets = nothing_asked(inputs)
        targets[:, n:] = x
        return inputs, targets

    def oracle(self, prefix: Sequence[int], position: int) -> int:
        return prefix[position - list(prefix).index(SEP)]
