"""Nyström features for x^2 times random exponentials for the rest."""

from __future__ import annotations

from typing import Any

import torch

from slay.attention.mixture import TensorAttention
from slay.errors import positive
from slay.features.elementwise import unit
from slay.features.polynomial import NystromSquares, inverse_root


class NystromAttention(TensorAttention):
    """p(u) = (K_AA + lambda I)^{-1/2} K_Au for random unit anchors A, K = (·)^2.

    The projection of x^2 on P anchors (Williams & Seeger 2000), lambda = `ridge`. It has rank P,
    and scores can be negative.
    """

    kernel = r"\hat x^2_{\mathrm{Nystr\ddot om}}\cdot\sum_r w_r\,e^{2s_rx}"
    nonnegative = False

    def __init__(self, embed_dim: int, n_heads: int, *, ridge: float = 1e-4, **family: Any):
        self.ridge = positive("ridge", ridge)
        super().__init__(embed_dim, n_heads, **family)

    def squares(self, draw: torch.Generator) -> NystromSquares:
        shape = (self.n_kv_heads, self.poly_dim, self.head_dim)
        anchors = unit(torch.randn(shape, generator=draw))
        return NystromSquares(anchors, inverse_root(anchors, self.ridge))
