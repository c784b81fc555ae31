"""Associative memory: what was stored under a key, a mark or a place."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from slay.tasks.base import Task, ask, column, distinct, integers, places, symbols, then

VALUES = 16


class KeyValueRecall(Task):
    """k_1 v_1 ... k_P v_P, then Q of the keys in random order, each asking for its value.

    Keys are different within a sequence; values repeat. L = 2 P + Q with Q = L / 4.
    """

    name = "kv_recall"
    category = "memory"
    attention_critical = True
    minimum, multiple = 8, 8

    def vocabulary(self, seq_len: int) -> list[str]:
        return [*symbols(VALUES), *symbols(2 * self._pairs(seq_len), "k")]

    def draw(self, generator: torch.Generator, batch: int, seq_len: int) -> tuple[Tensor, Tensor]:
        pairs = self._pairs(seq_len)
        keys = VALUES + distinct(generator, batch, pairs, 2 * pairs)  # (B, P)
        values = integers(generator, 0, VALUES, batch, pairs)  # (B, P)
        asked = distinct(generator, batch, seq_len - 2 * pairs, pairs)  # (B, Q)
        stored = torch.stack((keys, values), dim=-1).flatten(1)  # (B, 2 P)
        return ask(stored, keys.gather(1, asked), values.gather(1, asked))

    def oracle(self, prefix: Sequence[int], position: int) -> int:
        return prefix[list(prefix).index(prefix[position]) + 1]

    @staticmethod
    def _pairs(seq_len: int) -> int:
        return 3 * seq_len // 8


class Retrieval(Task):
    """Noise with one NEEDLE in it; then QUERY, L / 4 times: which token followed the needle?"""

    name = "retrieval"
    category = "memory"
    attention_critical = True
    minimum, multiple = 8, 4

    def vocabulary(self, seq_len: int) -> list[str]:
        return ["NEEDLE", "QUERY", *symbols(VALUES)]

    def draw(self, generator: torch.Generator, batch: int, seq_len: int) -> tuple[Tensor, Tensor]:
        queries = seq_len // 4
        noise = integers(generator, 2, 2 + VALUES, batch, seq_len - queries)  # (B, n)
        where = integers(generator, 0, noise.shape[1] - 1, batch, 1)
        answer = noise.gather(1, where + 1)
        return ask(
            noise.scatter(1, where, 0),
            torch.ones(batch, queries, dtype=torch.int64),
            answer.expand(-1, queries),
        )

    def oracle(self, prefix: Sequence[int], position: int) -> int:
        return prefix[list(prefix).index(0) + 1]


class FirstToken(Task):
    """x_0 ... x_(n-1), then L / 4 places, each asking which token stood there; place 0 comes first.

    The first question gives the task its name; the others keep a fixed place from always being the
    answer.
    """

    name = "first_token"
    category = "memory"
    attention_critical = True
    minimum, multiple = 8, 4

    def vocabulary(self, seq_len: int) -> list[str]:
        return [*symbols(VALUES), *symbols(seq_len - seq_len // 4, "@")]

    def draw(self, generator: torch.Generator, batch: int, seq_len: int) -> tuple[Tensor, Tensor]:
        n = seq_len - seq_len // 4
        x = integers(generator, 0, VALUES, batch, n)  # (B, n)
        others = 1 + distinct(generator, batch, seq_len - n - 1, n - 1)
        where = torch.cat((column(batch, 0), others), dim=1)  # (B, L / 4)
        return ask(x, VALUES + where, x.gather(1, where))

    def oracle(self, prefix: Sequence[int], position: int) -> int:
        return prefix[prefix[position] - VALUES]


class SelectiveCopy(Task):
    """Noise in which k = L / 8 tokens follow a MARK; after SEP, the marked tokens in their order.

    Two marks are never next to each other, so that each marks a symbol.
    """

    name = "selective_copy"
    category = "memory"
    attention_critical = True
    minimum, multiple = 16, 8

    def vocabulary(self, seq_len: int) -> list[str]:
        return ["SEP", "MARK", *symbols(VALUES)]

    def draw(self, generator: torch.Generator, batch: int, seq_len: int) -> tuple[Tensor, Tensor]:
        k = seq_len // 8
        n = seq_len - k
        # Marks at least two apart: places among n - k, then shifted by one for each mark before.
        where = places(generator, batch, k, n - k) + torch.arange(k)  # (B, k)
        noise = integers(generator, 2, 2 + VALUES, batch, n)  # (B, n)
        return then(noise.scatter(1, where, 1), 0, noise.gather(1, where + 1))

    def oracle(self, prefix: Sequence[int], position: int) -> int:
        n = list(prefix).index(0)
        marked = [prefix[i + 1] for i in range(n) if prefix[i] == 1]
        return marked[position - n]
