"""The study's family: random features for the spherical Yat kernel.

1/y = ∫_0^∞ exp(-s y) ds makes x^2 / (C - 2x) a mixture of x^2 exp(2 s x), which a quadrature turns
into a finite sum (`slay.features.quadrature`). The members differ in their features for x^2.
"""

from __future__ import annotations

from abc import abstractmethod
from typing import Any

import torch

from slay.attention.linear import LinearAttention
from slay.epsilon import DEFAULT_EPSILON
from slay.errors import whole
from slay.features.exponential import Exponentials, at_nodes
from slay.features.feature_map import FeatureMap, OnSphere, OuterProduct
from slay.features.projections import gaussian
from slay.features.quadrature import laguerre


class MixtureAttention(LinearAttention):
    """F(u) = sqrt(w_r / M) exp(sqrt(2 s_r) omega_ri·u - s_r) on unit vectors u (Luna et al. 2026).

    R = `num_quadrature_nodes` Gauss–Laguerre nodes (s_r, w_r), M = `num_prf_features` Gaussian
    omega_ri per node, drawn per head, in orthogonal blocks if `orthogonal`. Unbiased for
    sum_r w_r exp(2 s_r x), which tends to 1 / (C - 2x), C = 2 + epsilon.
    """

    nonnegative = True
    paper = "luna2026slay"

    def __init__(
        self,
        embed_dim: int,
        n_heads: int,
        *,
        num_prf_features: int = 16,
        num_quadrature_nodes: int = 2,
        orthogonal: bool = False,
        epsilon: float = DEFAULT_EPSILON,
        **layer: Any,
    ):
        self.num_prf_features = whole("num_prf_features", num_prf_features, 1)
        self.orthogonal = orthogonal
        self.nodes, self.node_weights = laguerre(num_quadrature_nodes, epsilon)  # (R,)
        super().__init__(embed_dim, n_heads, **layer)

    def exponentials(self) -> Exponentials:
        """F, R M wide."""
        s, w = (torch.tensor(t, dtype=torch.float32) for t in (self.nodes, self.node_weights))
        shape = (self.n_kv_heads, len(s), self.num_prf_features, self.head_dim)
        directions = gaussian(shape, self.generator(), orthogonal=self.orthogonal)
        return Exponentials(*at_nodes(directions, s, w))


class TensorAttention(MixtureAttention):
    """phi(u) = p(u) (x) F(u), with P = `poly_dim` features p for x^2; m = P R M."""

    def __init__(self, embed_dim: int, n_heads: int, *, poly_dim: int = 32, **family: Any):
        self.poly_dim = whole("poly_dim", poly_dim, 1)
        super().__init__(embed_dim, n_heads, **family)

    @abstractmethod
    def squares(self, draw: torch.Generator) -> FeatureMap:
        """Make p, drawn head by head."""

    def features(self) -> OnSphere:
        return OnSphere(OuterProduct(self.squares(self.generator(1)), self.exponentials()))
