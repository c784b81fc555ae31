"""The six tasks of MAD, mechanistic architecture design (Poli et al. 2024, arXiv 2403.17844).

Mended: filler is drawn from the caller's generator, and every answer follows from the prefix.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from slay.tasks.base import IGNORE, Task, ask, column, distinct, integers, places, symbols

KEYS = 8
VALUES = 8
NOISE = 8
WORDS = 16


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
    """In-context recall of keys that are two tokens long; the second one asks for the value.

    A key's second token alone says little: two keys in a sequence may share it.
    """

    name = "mad_fuzzy_recall"
    category = "mad"
    attention_critical = True
    minimum = 16

    def vocabulary(self, seq_len: int) -> list[str]:
        return [*symbols(KEYS, "k"), *symbols(VALUES), "PAD"]

    def draw(self, generator: torch.Generator, batch: int, seq_len: int) -> tuple[Tensor, Tensor]:
        triples, pad = divmod(seq_len, 3)
        # Few different keys, so that they come back: 4 of the 64 pairs of tokens.
        table = distinct(generator, batch, 4, KEYS * KEYS)  # (B, 4)
        meaning = integers(generator, 0, VALUES, batch, 4)
        which = integers(generator, 0, 4, batch, triples)
        which[:, -1] = which[:, 0]  # something is asked
        keys, values = table.gather(1, which), KEYS + meaning.gather(1, which)
        inputs = torch.stack((keys // KEYS, keys % KEYS, values), dim=-1).flatten(1)
        targets = torch.full_like(inputs, IGNORE)
        targets[:, 1::3] = torch.where(_seen(which), values, IGNORE)
        ends = torch.full((batch, pad), KEYS + VALUES)
        return torch.cat((ends, inputs), 1), torch.cat((torch.full_like(ends, IGNORE), targets), 1)

    def oracle(self, prefix: Sequence[int], position: int) -> int:
        text = [token for token in prefix[: position + 1] if token != KEYS + VALUES]
        key = text[-2:]
        return next(text[i + 2] for i in range(0, len(text), 3) if text[i : i + 2] == key)


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

    The answers are not shown, so that each has to be found by its rank.
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

    MAD's compression asks one token's vector for the whole sequence, through an MLP of its own;
    here, where there is none, what was read is asked for place by place.
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
    """Keys, and the values that a table drawn anew gives them: (B, count) each."""
    table = integers(generator, 0, VALUES, batch, KEYS)
    keys = integers(generator, 0, KEYS, batch, count)
    keys[:, -1] = keys[:, 0]  # something is asked
    return keys, table.gather(1, keys)


def _seen(keys: Tensor) -> Tensor:
    """Where a key occurred before: (B, n), booleans."""
    return (keys.unsqueeze(-1) == keys.unsqueeze(-2)).tril(-1).any(-1)
