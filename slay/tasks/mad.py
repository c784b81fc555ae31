"""The six tasks of MAD, mechanistic architecture design (Poli et al. 2024, arXiv 2403.17844).

Corrected here: filler is drawn from the caller's generator, and every answer follows from the
prefix.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import groupby, permutations
from math import perm

import torch
from torch import Tensor

from slay.tasks.base import IGNORE, Task, ask, column, distinct, integers, places, symbols

KEYS = 8
VALUES = 8
NOISE = 8
WORDS = 16

# Every sequence of one to three different tokens out of 8, in the first columns, and its
# probability: all lengths are equally likely.
_MOTIFS = [motif for size in (1, 2, 3) for motif in permutations(range(KEYS), size)]
MOTIFS = torch.tensor([(*motif, *[IGNORE] * (3 - len(motif))) for motif in _MOTIFS])  # (400, 3)
MOTIF_CHANCE = torch.tensor([1 / (3 * perm(KEYS, len(motif))) for motif in _MOTIFS])


class InContextRecall(Task):
    """Pairs k v with a table drawn anew: a key that was there before asks for its value."""

    name = "mad_in_context_recall"
    category = "mad"
    attention_critical = True
    minimum, multiple = 16, 2

    def vocabulary(self, seq_len: int) -> list[str]:
        return [*symbols(KEYS, "k"), *symbols(VALUES)]

    def draw(self, generator: torch.Generator, batch: int, seq_len: int) -> tuple[Tensor, Tensor]:
        keys, values = _pairs(generator, batch, seq_len // 2)  # (B, L / 2) each
        inputs = torch.stack((keys, KEYS + values), dim=-1).flatten(1)
        targets = torch.full_like(inputs, IGNORE)
        targets[:, ::2] = torch.where(_seen(keys), KEYS + values, IGNORE)
        return inputs, targets

    def oracle(self, prefix: Sequence[int], position: int) -> int:
        return prefix[list(prefix).index(prefix[position]) + 1]


class NoisyRecall(Task):
    """In-context recall with noise of another kind between the pairs: a quarter of the tokens."""

    name = "mad_noisy_recall"
    category = "mad"
    attention_critical = True
    minimum, multiple = 16, 8

    def vocabulary(self, seq_len: int) -> list[str]:
        return [*symbols(KEYS, "k"), *symbols(VALUES), *symbols(NOISE, "~")]

    def draw(self, generator: torch.Generator, batch: int, seq_len: int) -> tuple[Tensor, Tensor]:
        pairs, noise = 3 * seq_len // 8, seq_len // 4
        keys, values = _pairs(generator, batch, pairs)
        slots = pairs + noise  # a slot is a pair or a token of noise
        is_pair = torch.zeros(batch, slots, dtype=torch.int64)
        is_pair.scatter_(1, places(generator, batch, pairs, slots), 1)
        start = torch.arange(slots) + is_pair.cumsum(-1) - is_pair  # of every slot
        where = start[is_pair == 1].view(batch, pairs)
        inputs = integers(generator, KEYS + VALUES, KEYS + VALUES + NOISE, batch, seq_len)
        inputs.scatter_(1, where, keys).scatter_(1, where + 1, KEYS + values)
        targets = torch.full_like(inputs, IGNORE)
        return inputs, targets.scatter_(1, where, torch.where(_seen(keys), KEYS + values, IGNORE))

    def oracle(self, prefix: Sequence[int], position: int) -> int:
        return prefix[list(prefix).index(prefix[position]) + 1]


class FuzzyRecall(Task):
    """In-context recall of keys and values of one to three tokens each, and L / 8 keys in all.

    A value is asked token by token, from the last token of its key on. A key can be a prefix or a
    part of another.
    """

    name = "mad_fuzzy_recall"
    category = "mad"
    attention_critical = True
    minimum = 16

    def vocabulary(self, seq_len: int) -> list[str]:
        return [*symbols(KEYS, "k"), *symbols(VALUES)]

    def draw(self, generator: torch.Generator, batch: int, seq_len: int) -> tuple[Tensor, Tensor]:
        # With C keys, one of the first C + 1 pairs is a repetition: there is a question.
        count, pairs = seq_len // 8, seq_len // 2 + 1  # C, and enough for L + 1 tokens
        chance = MOTIF_CHANCE.expand(batch, -1)
        keys = torch.multinomial(chance, count, generator=generator)  # (B, C), different
        values = torch.multinomial(chance, count, replacement=True, generator=generator)
        table = torch.cat((MOTIFS[keys], KEYS + MOTIFS[values]), dim=-1)  # (B, C, 6)
        which = integers(generator, 0, count, batch, pairs)
        text = table[torch.arange(batch)[:, None], which].flatten(1)  # with gaps, below 0
        asked = (text >= KEYS) & _seen(which).repeat_interleave(table.shape[-1], dim=1)
        where = (text < 0).int().argsort(dim=-1, stable=True)[:, : seq_len + 1]  # without
        text, asked = text.gather(1, where), asked.gather(1, where)
        return text[:, :-1], torch.where(asked[:, 1:], text[:, 1:], IGNORE)

    def oracle(self, prefix: Sequence[int], position: int) -> int:
        runs = [list(run) for _, run in groupby(prefix[: position + 1], lambda t: t >= KEYS)]
        said = len(runs.pop()) if len(runs) % 2 == 0 else 0
        return runs[runs.index(runs[-1]) + 1][said]


class Memorisation(Task):
    """k ?: which value has this key? The table is the same in all sequences, and never shown."""

    name = "mad_memorisation"
    category = "mad"
    minimum, multiple = 4, 2
    table = (9, 2, 14, 7, 0, 12, 5, 10, 3, 15, 8, 1, 13, 6, 11, 4)

    def vocabulary(self, seq_len: int) -> list[str]:
        return ["?", *symbols(WORDS, "k"), *symbols(WORDS)]

    def draw(self, generator: torch.Generator, batch: int, seq_len: int) -> tuple[Tensor, Tensor]:
        keys = integers(generator, 0, WORDS, batch, seq_len // 2)
        values = torch.tensor(self.table)[keys]
        inputs = torch.stack((1 + keys, torch.zeros_like(keys)), dim=-1).flatten(1)
        targets = torch.full_like(inputs, IGNORE)
        targets[:, 1::2] = 1 + WORDS + values
        return inputs, targets

    def oracle(self, prefix: Sequence[int], position: int) -> int:
        return 1 + WORDS + self.table[prefix[position - 1] - 1]


class SelectiveCopying(Task):
    """k = L / 4 symbols among BLANK tokens, then NEXT, k times: the symbols in their order.

    The answers are not among the inputs, so that each has to be found by its rank.
    """

    name = "mad_selective_copying"
    category = "mad"
    attention_critical = True
    minimum, multiple = 8, 4

    def vocabulary(self, seq_len: int) -> list[str]:
        return ["BLANK", "NEXT", *symbols(WORDS)]

    def draw(self, generator: torch.Generator, batch: int, seq_len: int) -> tuple[Tensor, Tensor]:
        k = seq_len // 4
        x = integers(generator, 2, 2 + WORDS, batch, k)  # (B, k)
        where = places(generator, batch, k, seq_len - k)
        context = torch.zeros(batch, seq_len - k, dtype=torch.int64).scatter(1, where, x)
        return ask(context, torch.ones_like(x), x)

    def oracle(self, prefix: Sequence[int], position: int) -> int:
        n = list(prefix).index(1)
        return [token for token in prefix[:n] if token][position - n]


class Reconstruction(Task):
    """x_0 ... x_(n-1), SEP, then the n places in random order, each asking what stood there.

    MAD's compression task decodes the whole sequence from one token's vector with an extra MLP;
    here, without one, the symbols are asked for place by place.
    """

    name = "mad_compression"
    category = "mad"
    attention_critical = True
    minimum = 8

    def vocabulary(self, seq_len: int) -> list[str]:
        return ["SEP", *symbols(WORDS), *symbols(seq_len // 2, "@")]

    def draw(self, generator: torch.Generator, batch: int, seq_len: int) -> tuple[Tensor, Tensor]:
        questions = (seq_len - 1) // 2
        n = seq_len - 1 - questions
        x = integers(generator, 1, 1 + WORDS, batch, n)  # (B, n)
        where = distinct(generator, batch, questions, n)
        return ask(torch.cat((x, column(batch, 0)), 1), 1 + WORDS + where, x.gather(1, where))

    def oracle(self, prefix: Sequence[int], position: int) -> int:
        return prefix[prefix[position] - 1 - WORDS]


def _pairs(generator: torch.Generator, batch: int, count: int) -> tuple[Tensor, Tensor]:
    """Keys, and their values in a table drawn anew per sequence: (B, count) each."""
    table = integers(generator, 0, VALUES, batch, KEYS)
    keys = integers(generator, 0, KEYS, batch, count)
    keys[:, -1] = keys[:, 0]  # there is a question
    return keys, table.gather(1, keys)


def _seen(keys: Tensor) -> Tensor:
    """Mask of keys that occurred before: (B, n)."""
    return (keys.unsqueeze(-1) == keys.unsqueeze(-2)).tril(-1).any(-1)
