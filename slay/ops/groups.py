"""Grouped queries: with H query heads and K key heads, head h uses key head h K // H.

The G = H / K query heads that share keys are concatenated along tokens, so that a block of c tokens
is one matrix of G c rows against c keys, and no key is copied.
"""

from __future__ import annotations

import torch
from torch import Tensor


def fold(q: Tensor, groups: int) -> Tensor:
    """(B, K G, c, d) -> (B, K, G c, d)."""
    return q if groups == 1 else q.unflatten(1, (-1, groups)).flatten(2, 3)


def unfold(y: Tensor, groups: int) -> Tensor:
    """(B, K, G c, e) -> (B, K G, c, e)."""
    return y if groups == 1 else y.unflatten(2, (groups, -1)).flatten(1, 2)


def tril(scores: Tensor, groups: int) -> Tensor:
    """Zero the scores of keys after the query, in every group: (B, K, G c, c)."""
    if groups == 1:
        return scores.tril()
    if torch.compiler.is_compiling():  # comparisons keep the length dynamic
        j = torch.arange(scores.shape[-1], device=scores.device)
        return scores.masked_fill(j.repeat(groups).unsqueeze(-1) < j, 0.0)
    return scores.unflatten(-2, (groups, -1)).tril().flatten(-3, -2)


def tril_(scores: Tensor, groups: int) -> Tensor:
    """`tril` in place."""
    scores.unflatten(-2, (groups, -1)).tril_()
    return scores
