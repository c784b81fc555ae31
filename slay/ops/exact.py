"""Exact kernel attention in blocks of rows: O(L^2) time, O(block x L) memory."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from slay.ops.naive import naive_attention
from slay.ops.normalise import accumulation_dtype, normalise


def exact_attention(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    kernel: Callable[[Tensor, Tensor], Tensor],
    *,
    causal: bool,
    block_size: int = 256,
) -> Tensor:
    """y_i = sum_j k(q_i, k_j) v_j / sum_j k(q_i, k_j), over j <= i when causal.

    q, k: (B, H, L, d); v: (B, H, L, e); kernel(q, k): (..., Lq, d), (..., Lk, d) -> (..., Lq, Lk).
    Returns (B, H, L, e) in v's dtype. A causal block looks no further than its last row, which
    halves the work.
    """
    dtype = accumulation_dtype(v.dtype)
    q, k, v_acc = q.to(dtype), k.to(dtype), v.to(dtype)
    length = q.shape[-2]
    if length <= block_size:
        return naive_attention(kernel(q, k), v_acc, causal=causal).to(v.dtype)
    blocks = []
    for start in range(0, length, block_size):
        stop = min(start + block_size, length)
        seen = stop if causal else length
        scores = kernel(q[..., start:stop, :], k[..., :seen, :])  # (B, H, c, seen)
        if causal:
            scores = scores.tril(diagonal=start)
        y = normalise(scores @ v_acc[..., :seen, :], scores.sum(-1, keepdim=True))
        blocks.append(y.to(v.dtype))
    return torch.cat(blocks, dim=-2)
