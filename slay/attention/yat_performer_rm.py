"""Random Maclaurin features for x^2 times random exponentials for the rest."""

from __future__ import annotations

import torch

from slay.attention.mixture import TensorAttention
from slay.features.polynomial import MaclaurinSquares


class MaclaurinAttention(TensorAttention):
    """p(u) = P^{-1/2} (r_i·u) (s_i·u) for vectors r_i, s_i of random signs (Kar & Karnick 2012).

    Unbiased for x^2; scores can be negative.
    """

    kernel = r"\hat x^2_{\mathrm{RM}}\cdot\sum_r w_r\,e^{2s_rx}"
    nonnegative = False

    def squares(self, draw: torch.Generator) -> MaclaurinSquares:
        shape = (2, self.n_kv_heads, self.poly_dim, self.head_dim)
        signs = torch.randint(2, shape, generator=draw) * 2.0 - 1.0
        return MaclaurinSquares(signs / self.poly_dim**0.25)
