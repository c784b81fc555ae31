"""Reference implementation: attention from an explicit L x L matrix of scores."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

import torch
from torch import Tensor

from slay.ops.normalise import normalise


def naive_attention(
    scores: Tensor,
    v: Tensor,
    *,
    causal: bool,
    key_padding_mask: Tensor | None = None,
    cu_seqlens: Sequence[int] | None = None,
) -> Tensor:
    """y_i = sum_j k(i, j) v_j / sum_j k(i, j), over the visible j.

    scores: (B, H, Lq, Lk), unnormalised k(i, j); v: (B, K, Lk, e), K dividing H. Visible are j <= i
    when causal, that are not padding: (B, Lk), and in the same packed sequence. Returns
    (B, H, Lq, e). O(L^2) in time and memory: an oracle for tests, never a baseline.
    """
    lq, lk = scores.shape[-2:]
    visible = torch.ones(1, 1, lq, lk, dtype=torch.bool)
    if causal:
        visible = visible.tril()
    if key_padding_mask is not None:
        visible = visible & ~key_padding_mask[:, None, None, :]
    if cu_seqlens is not None:
        same = torch.block_diag(*(torch.ones(b - a, b - a) for a, b in pairwise(cu_seqlens)))
        visible = visible & same.bool()
    scores = scores.masked_fill(~visible, 0.0)
    v = v.repeat_interleave(scores.shape[1] // v.shape[1], dim=1)
    return normalise(scores @ v, scores.sum(-1, keepdim=True))
