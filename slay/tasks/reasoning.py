"""Finding a pattern in the context and continuing it; keeping track of a state."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from slay.tasks.base import IGNORE, Task, ask, distinct, integers, nothing_asked, symbols

SYMBOLS = 16
POP = 0


class Induction(Task):
    """Different tokens, then some of them again in random order: what followed each the first time?

    The first part has floor(L / 2) + 1 tokens. Each trigger in the second part has exactly one
    earlier occurrence, and that one has a successor.
    """

    name = "induction"
    category = "reasoning"
    attention_critical = True
    minimum = 4

    def vocabulary(self, seq_len: int) -> list[str]:
        return symbols(seq_len, "x")

    def draw(self, generator: torch.Generator, batch: int, seq_len: int) -> tuple[Tensor, Tensor]:
        n = seq_len // 2 + 1
        first = distinct(generator, batch, n, seq_len)  # (B, n)
        where = distinct(generator, batch, seq_len - n, n - 1)  # (B, L - n), never the last
        return ask(first, first.gather(1, where), first.gather(1, where + 1))

    def oracle(self, prefix: Sequence[int], position: int) -> int:
        return prefix[list(prefix).index(prefix[position]) + 1]


class Stack(Task):
    """A value pushes itself, POP asks for the value on top and takes it off.

    The stack is never empty at a POP; otherwise both are equally likely.
    """

    name = "stack"
    category = "reasoning"
    minimum = 4

    def vocabulary(self, seq_len: int) -> list[str]:
        return ["POP", *symbols(SYMBOLS)]

    def draw(self, generator: torch.Generator, batch: int, seq_len: int) -> tuple[Tensor, Tensor]:
        inputs = integers(generator, 1, 1 + SYMBOLS, batch, seq_len)
        pops = torch.rand(batch, seq_len, generator=generator) < 0.5
        pops[:, 0], pops[:, 1] = False, pops[:, 1] | ~pops.any(-1)  # there is a question
        depth = torch.zeros(batch, dtype=torch.int64)
        stack = torch.zeros(batch, seq_len, dtype=torch.int64)
        targets = nothing_asked(inputs)
        row = torch.arange(batch)
        for i in range(seq_len):
            pop = pops[:, i] & (depth > 0)
            targets[:, i] = torch.where(pop, stack[row, depth - 1], IGNORE)
            inputs[:, i] = torch.where(pop, POP, inputs[:, i])
            stack[row, depth] = torch.where(pop, stack[row, depth], inputs[:, i])
            depth += torch.where(pop, -1, 1)
        return inputs, targets

    def oracle(self, prefix: Sequence[int], position: int) -> int:
        stack: list[int] = []
        for token in prefix[:position]:
            if token == POP:
                stack.pop()
            else:
                stack.append(token)
        return stack[-1]


class Pattern(Task):
    """Random symbols repeated with a random period p in [2, L / 4]: which comes next?

    Asked from the end of the second period on, where the period is determined.
    """

    name = "pattern"
    category = "reasoning"
    minimum = 8

    def vocabulary(self, seq_len: int) -> list[str]:
        return symbols(SYMBOLS)

    def draw(self, generator: torch.Generator, batch: int, seq_len: int) -> tuple[Tensor, Tensor]:
        period = integers(generator, 2, seq_len // 4 + 1, batch, 1)
        motif = integers(generator, 0, SYMBOLS, batch, seq_len // 4)
        at = torch.arange(seq_len + 1)
        x = motif.gather(1, at % period)  # (B, L + 1)
        return x[:, :-1], torch.where(at[1:] >= 2 * period, x[:, 1:], IGNORE)

    def oracle(self, prefix: Sequence[int], position: int) -> int:
        x = list(prefix[: position + 1])
        period = next(p for p in range(1, len(x)) if x[p:] == x[:-p])
        return x[-period]
