"""Routing: copying tokens to other positions."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from slay.tasks.base import Task, distinct, integers, symbols, then

SEP = 0
SYMBOLS = 16


class Copy(Task):
    """x_1 ... x_n SEP x_1 ... x_(n-1): from SEP on, each position asks for the next symbol of x."""

    name = "copy"
    category = "basic"
    attention_critical = True
    minimum, multiple = 4, 2

    def vocabulary(self, seq_len: int) -> list[str]:
        return ["SEP", *symbols(SYMBOLS)]

    def draw(self, generator: torch.Generator, batch: int, seq_len: int) -> tuple[Tensor, Tensor]:
        x = integers(generator, 1, 1 + SYMBOLS, batch, seq_len // 2)  # (B, n)
        return then(x, SEP, x)

    def oracle(self, prefix: Sequence[int], position: int) -> int:
        return prefix[position - list(prefix).index(SEP)]


class Reverse(Task):
    """x_1 ... x_n SEP x_n ... x_2: from SEP on, the next symbol of x backwards."""

    name = "reverse"
    category = "basic"
    minimum, multiple = 4, 2

    def vocabulary(self, seq_len: int) -> list[str]:
        return ["SEP", *symbols(SYMBOLS)]

    def draw(self, generator: torch.Generator, batch: int, seq_len: int) -> tuple[Tensor, Tensor]:
        x = integers(generator, 1, 1 + SYMBOLS, batch, seq_len // 2)  # (B, n)
        return then(x, SEP, x.flip(-1))

    def oracle(self, prefix: Sequence[int], position: int) -> int:
        n = list(prefix).index(SEP)
        return prefix[2 * n - 1 - position]


class Sort(Task):
    """n different numbers below 4 n in random order, SEP, then the same in ascending order.

    With few symbols, the next item of a long sorted list would mostly repeat the last one.
    """

    name = "sort"
    category = "basic"
    minimum, multiple = 4, 2

    def vocabulary(self, seq_len: int) -> list[str]:
        return ["SEP", *map(str, range(2 * seq_len))]

    def draw(self, generator: torch.Generator, batch: int, seq_len: int) -> tuple[Tensor, Tensor]:
        x = 1 + distinct(generator, batch, seq_len // 2, 2 * seq_len)  # (B, n)
        return then(x, SEP, x.sort(dim=-1).values)

    def oracle(self, prefix: Sequence[int], position: int) -> int:
        n = list(prefix).index(SEP)
        return sorted(prefix[:n])[position - n]
