"""Long-range dependencies: distant tokens, and chains of several steps."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from slay.tasks.base import Task, ask, distinct, integers, symbols, then

SYMBOLS = 16


class LongCopy(Task):
    """x_1 ... x_n, noise of L / 2 tokens of another kind, SEP, then x again; n = L / 4."""

    name = "long_copy"
    category = "long_range"
    attention_critical = True
    minimum, multiple = 8, 4

    def vocabulary(self, seq_len: int) -> list[str]:
        return ["SEP", *symbols(SYMBOLS), *symbols(SYMBOLS, "~")]

    def draw(self, generator: torch.Generator, batch: int, seq_len: int) -> tuple[Tensor, Tensor]:
        n = seq_len // 4
        x = integers(generator, 1, 1 + SYMBOLS, batch, n)  # (B, n)
        noise = integers(generator, 1 + SYMBOLS, 1 + 2 * SYMBOLS, batch, 2 * n)
        return then(torch.cat((x, noise), dim=1), 0, x)

    def oracle(self, prefix: Sequence[int], position: int) -> int:
        return prefix[position - list(prefix).index(0)]


class DistantMatch(Task):
    """Different tokens; then L / 4 questions: did this token occur, and what followed it?

    A quarter of the questions are about tokens that did not occur, and the answer is NONE.
    """

    name = "distant_match"
    category = "long_range"
    attention_critical = True
    minimum, multiple = 16, 4

    def vocabulary(self, seq_len: int) -> list[str]:
        return ["NONE", *symbols(2 * self._context(seq_len), "x")]

    def draw(self, generator: torch.Generator, batch: int, seq_len: int) -> tuple[Tensor, Tensor]:
        n = self._context(seq_len)
        tokens = 1 + distinct(generator, batch, 2 * n, 2 * n)
        context, absent = tokens[:, :n], tokens[:, n:]  # (B, n) each
        where = distinct(generator, batch, seq_len - n, n - 1)  # (B, L - n), never the last
        there = torch.rand(where.shape, generator=generator) < 0.75
        questions = torch.where(there, context.gather(1, where), absent.gather(1, where))
        return ask(context, questions, torch.where(there, context.gather(1, where + 1), 0))

    def oracle(self, prefix: Sequence[int], position: int) -> int:
        first = list(prefix).index(prefix[position])
        return prefix[first + 1] if first < position else 0

    @staticmethod
    def _context(seq_len: int) -> int:
        return seq_len - seq_len // 4


class MultiHop(Task):
    """Pairs "a b" of a ring in which a points to b; then: where do one and two steps lead?

    A node asks for its successor, a node with a prime for its successor's successor. Half of the
    L / 4 questions are of each kind. Two steps take three layers: one links each node to the one
    that points to it, two follow the pointers. Two layers learn the one-step questions and guess
    the others.
    """

    name = "multihop"
    category = "long_range"
    attention_critical = True
    minimum, multiple = 8, 8

    def vocabulary(self, seq_len: int) -> list[str]:
        nodes = symbols(2 * self._pairs(seq_len), "n")
        return [token for node in nodes for token in (node, f"{node}'")]

    def draw(self, generator: torch.Generator, batch: int, seq_len: int) -> tuple[Tensor, Tensor]:
        pairs = self._pairs(seq_len)
        ring = 2 * distinct(generator, batch, pairs, 2 * pairs)  # (B, P)
        once, twice = ring.roll(-1, dims=1), ring.roll(-2, dims=1)
        order = distinct(generator, batch, pairs, pairs)
        context = torch.stack((ring.gather(1, order), once.gather(1, order)), dim=-1)  # (B, P, 2)
        questions = seq_len - 2 * pairs
        where = distinct(generator, batch, questions, pairs)  # (B, Q)
        far = distinct(generator, batch, questions, questions) % 2  # half of them 1
        answers = torch.where(far == 1, twice.gather(1, where), once.gather(1, where))
        return ask(context.flatten(1), ring.gather(1, where) + far, answers)

    def oracle(self, prefix: Sequence[int], position: int) -> int:
        successors = dict(reversed(list(zip(prefix[:position:2], prefix[1::2], strict=False))))
        node, far = prefix[position] // 2 * 2, prefix[position] % 2
        return successors[successors[node]] if far else successors[node]

    @staticmethod
    def _pairs(seq_len: int) -> int:
        return 3 * seq_len // 8
