"""Softmax attention through PyTorch's fused implementations: the baseline."""

from __future__ import annotations

from contextlib import nullcontext

import torch
from torch import Tensor
from torch.nn import functional as F
from torch.nn.attention import SDPBackend, sdpa_kernel

from slay.attention.exact import PairwiseAttention
from slay.ops.groups import fold, unfold
from slay.ops.modes import transformed
from slay.ops.normalise import accumulation_dtype


class StandardAttention(PairwiseAttention):
    """k(q, k) = exp(q·k / sqrt d) (Vaswani et al. 2017), by `scaled_dot_product_attention`."""

    kernel = r"\exp(q^\top k/\sqrt d)"
    nonnegative = True
    paper = "vaswani2017attention"

    def _attend_all(self, q: Tensor, k: Tensor, v: Tensor, padding: Tensor | None) -> Tensor:
        lq, lk = q.shape[2], k.shape[2]
        square = lq == lk
        mask = None  # (B or 1, 1, Lq or 1, Lk), True where a query may attend
        if padding is not None:
            mask = ~padding[:, None, None, :]
        if self.causal and lq > 1 and (mask is not None or not square):
            order = torch.ones(lq, lk, dtype=torch.bool, device=q.device).tril(lk - lq)
            mask = order if mask is None else mask & order
        # Of PyTorch's backends, only MATH supports all derivatives.
        with sdpa_kernel(SDPBackend.MATH) if transformed() else nullcontext():
            y = F.scaled_dot_product_attention(
                q,
                k,
                v,
                attn_mask=mask,
                dropout_p=self.dropout if self.training else 0.0,
                is_causal=self.causal and square and mask is None,
                enable_gqa=self.n_heads != self.n_kv_heads,
            )
        if mask is None:
            return y
        return y.masked_fill(~mask.any(-1, keepdim=True), 0.0)  # no visible key

    def scores(self, q: Tensor, k: Tensor) -> Tensor:
        groups = q.shape[1] // k.shape[1]
        q, k = (u.to(accumulation_dtype(u.dtype)) for u in (q, k))
        return unfold((fold(q, groups) @ k.mT / self.head_dim**0.5).exp(), groups)
