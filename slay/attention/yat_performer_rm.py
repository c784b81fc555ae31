"""Random Maclaurin features for x^2 times random exponentials for the rest."""

from __future__ import annotations

import torch
from torch import Tensor

from slay.attention.mixture import TensorAttention
from slay.features.polynomial import maclaurin_features
from slay.ops.triton.spec import FeatureSpec


class MaclaurinAttention(TensorAttention):
    """p(u) = P^{-1/2} (r_i·u) (s_i·u) for vectors r_i, s_i of random signs (Kar & Karnick 2012).

    Unbiased for x^2; scores can be negative.
    """

    kernel = r"\hat x^2_{\mathrm{RM}}\cdot\sum_r w_r\,e^{2s_rx}"
    nonnegative = False

    signs: Tensor  # (2, K, P, d), times P^{-1/4}

    def build(self, draw: torch.Generator) -> dict[str, Tensor]:
        shape = (2, self.n_kv_heads, self.poly_dim, self.head_dim)
        signs = torch.randint(2, shape, generator=draw) * 2.0 - 1.0
        return {"signs": signs / self.poly_dim**0.25}

    def polynomial(self, u: Tensor) -> Tensor:
        return maclaurin_features(u, *self.signs.to(u.dtype))

    def feature_spec(self, q: Tensor, k: Tensor, i: Tensor, j: Tensor) -> FeatureSpec:
        r, s = self.signs
        return self.exponential_spec(p="product", p_weight=r, p_second=s)
