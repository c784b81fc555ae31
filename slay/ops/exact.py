"""Exact kernel attention in blocks of rows: O(L^2) time, O(block x L) memory."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor
from torch.nn import functional as F

from slay.ops.normalise import accumulation_dtype, normalise


def exact_attention(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    kernel: Callable[[Tensor, Tensor], Tensor],
    *,
    causal: bool,
    block_size: int = 64,
) -> Tensor:
    """y_i = sum_j k(q_i, k_j) v_j / sum_j k(q_i, k_j), over j <= i when causal.

    q, k: (B, H, L, d); v: (B, H, L, e); kernel(q, k): (..., Lq, d), (..., Lk, d) -> (..., Lq, Lk).
    Returns (B, H, L, e) in v's dtype. A causal block looks no further than
    its last row, which halves the work; a block of 64 rows keeps the scores in cache.
    """
    dtype = accumulation_dtype(v.dtype)
    q, k = q.to(dtype), k.to(dtype)
    v1 = F.pad(v.to(dtype), (0, 1), value=1.0)  # [v, 1]: (B, H, L, e + 1)
    length = q.shape[-2]
    blocks = []
    for start in range(0, length, block_size):
        seen = min(start + block_size, length) if causal else length
        scores = kernel(q[..., start : start + block_size, :], k[..., :seen, :])  # (B, H, c, seen)
        if causal:  # the block on the diagonal, and what lies wholly before it
            o = scores[..., start:].tril() @ v1[..., start:seen, :]  # (B, H, c, e + 1)
            if start:
                o = o + scores[..., :start] @ v1[..., :start, :]
        else:
            o = scores @ v1
        blocks.append(normalise(o[..., :-1], o[..., -1:]).to(v.dtype))
    return torch.cat(blocks, dim=-2)
