"""Associative memory: what was stored under a key."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from slay.tasks.base import Task, distinct, nothing_asked

VALUES = 16


class KeyValueRecall(Task):
    """k_1 v_1 ... k_P v_P, then Q of the keys in random order, each asking for its value.

    Keys are different within a sequence; values repeat. L = 2 P + Q with Q = L / 4. Values are the
    tokens below VALUES, keys the 2 P tokens after them.
    """

    name = "kv_recall"
    category = "memory"
    attention_critical = True
    lengths = "multiples of 8 from 8"

    def allows(self, seq_len: int) -> bool:
        return seq_len >= 8 and seq_len % 8 == 0

    def vocab_size(self, seq_len: int) -> int:
        return VALUES + 2 * self._pairs(seq_len)

    def draw(self, generator: torch.Generator, batch: int, seq_len: int) -> tuple[Tensor, Tensor]:
        pairs = self._pairs(seq_len)
        keys = VALUES + distinct(generator, batch, pairs, 2 * pairs)  # (B, P)
        values = torch.randint(VALUES, (batch, pairs), generator=generator)  # (B, P)
        asked = distinct(generator, batch, seq_len - 2 * pairs, pairs)  # (B, Q)
        stored = torch.stack((keys, values), dim=-1).flatten(1)  # (B, 2 P)
        inputs = torch.cat((stored, keys.gather(1, asked)), dim=1)
        targets = nothing_asked(inputs)
        targets[:, 2 * pairs :] = values.gather(1, asked)
        return inputs, targets

    def oracle(self, prefix: Sequence[int], position: int) -> int:
        return prefix[list(prefix).index(prefix[position]) + 1]

    @staticmethod
    def _pairs(seq_len: int) -> int:
        return 3 * seq_len // 8
