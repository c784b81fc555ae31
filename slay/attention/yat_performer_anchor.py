"""Anchor features for x^2 times positive random features for the rest: the study's own choice."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from slay.attention.layer import DEFAULT_EPSILON
from slay.attention.linearised import FeatureAttention
from slay.errors import SlayError
from slay.features.elementwise import unit
from slay.features.exponential import at_nodes, positive_random_features
from slay.features.forms import Dense, Product
from slay.features.polynomial import anchor_features
from slay.features.quadrature import laguerre


class AnchorAttention(FeatureAttention):
    """phi(u) = P^{-1/2} (a_i·u)^2 (x) sqrt(w_r / M) exp(sqrt(2 s_r) omega_ri·u - s_r).

    P = `poly_dim` unit anchors a_i, R = `num_quadrature_nodes` Gauss–Laguerre nodes (s_r, w_r),
    M = `num_prf_features` Gaussian omega_ri a node, drawn per head; m = P R M
    (Luna et al. 2026). The anchors' inner product has mean (1 + 2 x^2) / (d (d + 2)), so this
    estimates x^2 / (C - 2x) only up to that flat floor.
    """

    kernel = r"\tfrac1P\sum_i(a_i^\top\hat q)^2(a_i^\top\hat k)^2\cdot\sum_r w_r\,e^{2s_rx}"
    nonnegative = True
    paper = "luna2026slay"

    anchors: Tensor
    omega: Tensor
    offset: Tensor

    def __init__(
        self,
        embed_dim: int,
        n_heads: int,
        *,
        poly_dim: int = 32,
        num_prf_features: int = 16,
        num_quadrature_nodes: int = 2,
        epsilon: float = DEFAULT_EPSILON,
        **layer: Any,
    ):
        super().__init__(embed_dim, n_heads, **layer)
        for name, value in (("poly_dim", poly_dim), ("num_prf_features", num_prf_features)):
            if value < 1:
                raise SlayError(f"{name} = {value}: must be at least 1")
        s, w = laguerre(num_quadrature_nodes, epsilon)
        draw = self.generator()
        anchors = torch.randn(n_heads, poly_dim, self.head_dim, generator=draw)
        omega = torch.randn(
            n_heads, num_quadrature_nodes, num_prf_features, self.head_dim, generator=draw
        )
        omega, offset = at_nodes(omega, *(torch.tensor(t, dtype=torch.float32) for t in (s, w)))
        self.register_buffer("anchors", unit(anchors) / poly_dim**0.25)  # (H, P, d)
        self.register_buffer("omega", omega)  # (H, R M, d)
        self.register_buffer("offset", offset)  # (R M,)

    def feature_map(self, u: Tensor) -> Product:
        u = unit(u)
        anchors, omega, offset = (
            t.to(u.dtype) for t in (self.anchors, self.omega, self.offset)
        )
        return Product(
            Dense(anchor_features(u, anchors)),  # (B, H, L, P)
            Dense(positive_random_features(u, omega, offset)),  # (B, H, L, R M)
        )
