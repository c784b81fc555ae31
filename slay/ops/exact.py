"""Exact kernel attention in blocks of rows: O(L^2) time, O(block x L) memory."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor
from torch.nn import functional as F
from torch.utils.checkpoint import checkpoint

from slay.ops.groups import fold, tril, unfold
from slay.ops.modes import transformed, without_autocast
from slay.ops.normalise import accumulation_dtype, normalise, saturating_cast


def exact_attention(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    prepare: Callable[[Tensor], Tensor],
    kernel: Callable[[Tensor, Tensor], Tensor],
    *,
    causal: bool,
    key_padding_mask: Tensor | None = None,
    dropout: float = 0.0,
    block_size: int = 64,
) -> Tensor:
    """y_i = sum_j k(q_i, k_j) v_j / sum_j k(q_i, k_j), over j <= i when causal.

    q: (B, H, Lq, d); k: (B, K, Lk, d) and v: (B, K, Lk, e), K dividing H. When causal, the queries
    are the last Lq of Lk tokens. kernel(q, k): (B, K, n, d'), (B, K, Lk, d') -> (B, K, n, Lk) of
    prepared tokens. `key_padding_mask`: (B, Lk), True for padding. Returns (B, H, Lq, e) in v's
    dtype.

    A causal block only computes keys up to its last row, which halves the work; blocks of 64 rows
    keep the scores in cache. In training, scores are recomputed in the backward pass.
    """
    dtype = accumulation_dtype(v.dtype)
    groups = q.shape[1] // k.shape[1]

    def weigh(scores: Tensor, v1: Tensor) -> Tensor:
        if not dropout:
            return scores @ v1  # (B, K, G c, e + 1)
        values, ones = v1[..., :-1], v1[..., -1:]
        return torch.cat((F.dropout(scores, dropout) @ values, scores @ ones), dim=-1)

    def block(q: Tensor, k: Tensor, v1: Tensor, before: int) -> Tensor:
        """Output of a block of rows; when causal, all of them see the first `before` keys."""
        scores = kernel(fold(q, groups), k)  # (B, K, G c, seen)
        if not causal:
            o = weigh(scores, v1)
        else:  # the diagonal block, and all keys before it
            o = weigh(tril(scores[..., before:], groups), v1[:, :, before:])
            if before:
                o = o + weigh(scores[..., :before], v1[:, :, :before])
        return unfold(saturating_cast(normalise(o[..., :-1], o[..., -1:]), v.dtype), groups)

    compiling = torch.compiler.is_compiling()
    kept = torch.is_grad_enabled() and not compiling and not transformed()
    lq, lk = q.shape[2], k.shape[2]
    with without_autocast(q.device):
        q, k = prepare(q.to(dtype)), prepare(k.to(dtype))
        v1 = F.pad(v.to(dtype), (0, 1), value=1.0)  # [v, 1]: (B, K, Lk, e + 1)
        if key_padding_mask is not None:
            v1 = v1.masked_fill(key_padding_mask[:, None, :, None], 0.0)
        if compiling:  # one graph for all lengths
            return block(q, k, v1, lk - lq)
        blocks = []
        for lo, rows in zip(range(0, lq, block_size), q.split(block_size, dim=2), strict=True):
            before = lk - lq + lo
            seen = before + rows.shape[2] if causal else lk
            arguments = (rows, k[:, :, :seen], v1[:, :, :seen], before)
            if kept and lq > block_size:
                random = dropout > 0
                y = checkpoint(block, *arguments, use_reentrant=False, preserve_rng_state=random)
            else:
                y = block(*arguments)
            blocks.append(y)
    return torch.cat(blocks, dim=2) if len(blocks) > 1 else blocks[0]
