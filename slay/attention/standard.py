"""Softmax attention through PyTorch's fused implementations: the competitor to beat."""

from __future__ import annotations

from torch import Tensor
from torch.nn import functional as F

from slay.attention.layer import Attention


class StandardAttention(Attention):
    """k(q, k) = exp(q·k / sqrt d) (Vaswani et al. 2017), by `scaled_dot_product_attention`."""

    kernel = r"\exp(q^\top k/\sqrt d)"
    complexity = "L^2"
    exact = True
    nonnegative = True
    paper = "vaswani2017attention"

    def attend(self, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        self.check_heads(q, k, v)
        return F.scaled_dot_product_attention(q, k, v, is_causal=self.causal)

    def scores(self, q: Tensor, k: Tensor) -> Tensor:
        return (q @ k.mT / self.head_dim**0.5).exp()
