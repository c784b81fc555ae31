"""Arithmetic: counting, parity, modular sums and addition."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from slay.tasks.base import IGNORE, Task, integers, symbols, then

MODULUS = 7
KINDS = 8


class Counting(Task):
    """A symbol, then text in which it occurs at a random rate; QUERY: how often so far?

    An eighth of the positions are queries. The rate is drawn anew for every sequence, so that all
    counts are about equally likely.
    """

    name = "counting"
    category = "arithmetic"
    minimum = 16

    def vocabulary(self, seq_len: int) -> list[str]:
        return ["QUERY", *symbols(KINDS), *map(str, range(seq_len))]

    def draw(self, generator: torch.Generator, batch: int, seq_len: int) -> tuple[Tensor, Tensor]:
        marked = integers(generator, 1, 1 + KINDS, batch, 1)
        other = integers(generator, 1, KINDS, batch, seq_len)
        other += other >= marked  # any symbol but the marked one
        rate = torch.rand(batch, 1, generator=generator)
        inputs = torch.where(torch.rand(batch, seq_len, generator=generator) < rate, marked, other)
        inputs[:, :1] = marked
        # Queries stand anywhere in the second half, and at the end.
        half = seq_len // 2
        where = half + torch.rand(batch, seq_len - half, generator=generator).argsort(-1)
        where = where[:, : max(1, seq_len // 8)]
        inputs.scatter_(1, where, 0)
        inputs[:, -1] = 0
        count = (inputs == marked).cumsum(-1) - 1  # the first token only names the symbol
        return inputs, torch.where(inputs == 0, 1 + KINDS + count, IGNORE)

    def oracle(self, prefix: Sequence[int], position: int) -> int:
        return 1 + KINDS + list(prefix[1 : position + 1]).count(prefix[0])


class Parity(Task):
    """Bits; at each position after the first, the parity of all bits so far.

    The answer is a bit, so that guessing is right half of the time.
    """

    name = "parity"
    category = "arithmetic"
    minimum = 4

    def vocabulary(self, seq_len: int) -> list[str]:
        return ["0", "1"]

    def draw(self, generator: torch.Generator, batch: int, seq_len: int) -> tuple[Tensor, Tensor]:
        inputs = integers(generator, 0, 2, batch, seq_len)
        targets = inputs.cumsum(-1) % 2
        targets[:, 0] = IGNORE
        return inputs, targets

    def oracle(self, prefix: Sequence[int], position: int) -> int:
        return sum(prefix[: position + 1]) % 2


class Modular(Task):
    """Digits below 7; at each position after the first, their sum so far modulo 7."""

    name = "modular"
    category = "arithmetic"
    minimum = 4

    def vocabulary(self, seq_len: int) -> list[str]:
        return list(map(str, range(MODULUS)))

    def draw(self, generator: torch.Generator, batch: int, seq_len: int) -> tuple[Tensor, Tensor]:
        inputs = integers(generator, 0, MODULUS, batch, seq_len)
        targets = inputs.cumsum(-1) % MODULUS
        targets[:, 0] = IGNORE
        return inputs, targets

    def oracle(self, prefix: Sequence[int], position: int) -> int:
        return sum(prefix[: position + 1]) % MODULUS


class Addition(Task):
    """a + b = c with n = floor((L - 2) / 3) digits per summand, then c, all with the units first.

    The first tokens are PAD if L does not fit exactly.
    """

    name = "addition"
    category = "arithmetic"
    minimum = 8

    def vocabulary(self, seq_len: int) -> list[str]:
        return [*map(str, range(10)), "+", "=", "PAD"]

    def draw(self, generator: torch.Generator, batch: int, seq_len: int) -> tuple[Tensor, Tensor]:
        n = (seq_len - 2) // 3
        a, b = integers(generator, 0, 10, 2, batch, n)
        total = torch.zeros(batch, n + 1, dtype=torch.int64)
        for i in range(n):
            total[:, i] += a[:, i] + b[:, i]
            total[:, i + 1] = total[:, i] // 10
            total[:, i] %= 10
        pad = torch.full((batch, seq_len - 3 * n - 2), 12)
        plus = torch.full((batch, 1), 10)
        return then(torch.cat((pad, a, plus, b), dim=1), 11, total)

    def oracle(self, prefix: Sequence[int], position: int) -> int:
        text = [token for token in prefix[: position + 1] if token != 12]
        plus, equals = text.index(10), text.index(11)
        a, b = (
            sum(digit * 10**place for place, digit in enumerate(digits))
            for digits in (text[:plus], text[plus + 1 : equals])
        )
        return (a + b) // 10 ** (len(text) - 1 - equals) % 10
