"""The study's family: random features for the spherical Yat kernel.

1/y = ∫_0^∞ exp(-s y) ds makes x^2 / (C - 2x) a mixture of x^2 exp(2 s x), which a quadrature turns
into a finite sum (`slay.features.quadrature`). The members differ in their features for x^2.
"""

from __future__ import annotations

from abc import abstractmethod
from typing import Any

import torch
from torch import Tensor

from slay.attention.linearised import FeatureAttention
from slay.epsilon import DEFAULT_EPSILON
from slay.errors import whole
from slay.features.elementwise import unit
from slay.features.exponential import at_nodes, positive_random_features
from slay.features.forms import Dense, Features, Product
from slay.features.projections import gaussian
from slay.features.quadrature import laguerre
from slay.ops.groups import fold, unfold
from slay.ops.normalise import accumulation_dtype
from slay.ops.triton.spec import FeatureSpec


class MixtureAttention(FeatureAttention):
    """F(u) = sqrt(w_r / M) exp(sqrt(2 s_r) omega_ri·u - s_r) on unit vectors u (Luna et al. 2026).

    R = `num_quadrature_nodes` Gauss–Laguerre nodes (s_r, w_r), M = `num_prf_features` Gaussian
    omega_ri per node, drawn per head, in orthogonal blocks if `orthogonal`. Unbiased for
    sum_r w_r exp(2 s_r x), which tends to 1 / (C - 2x), C = 2 + epsilon.
    """

    nonnegative = True
    paper = "luna2026slay"

    omega: Tensor  # (K, R M, d), with sqrt(2 s_r) in it
    offset: Tensor  # (R M,): log(w_r / M) / 2 - s_r
    numbers: Tensor  # (2, R M), for `FeatureSpec`

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
        super().__init__(embed_dim, n_heads, **layer)
        self.num_prf_features = whole("num_prf_features", num_prf_features, 1)
        self.orthogonal = orthogonal
        self.nodes, self.node_weights = laguerre(num_quadrature_nodes, epsilon)  # (R,)
        self.register_drawn()

    def draw(self) -> dict[str, Tensor]:
        s, w = (torch.tensor(t, dtype=torch.float32) for t in (self.nodes, self.node_weights))
        shape = (self.n_kv_heads, len(s), self.num_prf_features, self.head_dim)
        directions = gaussian(shape, self.generator(), orthogonal=self.orthogonal)
        omega, offset = at_nodes(directions, s, w)
        numbers = torch.stack((offset, torch.zeros_like(offset)))
        return {"omega": omega, "offset": offset, "numbers": numbers}

    def exponentials(self, u: Tensor) -> Tensor:
        """F of unit vectors: (B, K, n, d) -> (B, K, n, R M)."""
        return positive_random_features(u, self.omega.to(u.dtype), self.offset.to(u.dtype))

    def exponential_spec(self, **polynomial: Any) -> FeatureSpec:
        """Kernel spec of F, optionally with a polynomial factor P."""
        return FeatureSpec(
            f="exp", unit=True, f_weight=self.omega, f_numbers=self.numbers, **polynomial
        )


class TensorAttention(MixtureAttention):
    """phi(u) = p(u) (x) F(u), with P = `poly_dim` features p for x^2; m = P R M."""

    def __init__(self, embed_dim: int, n_heads: int, *, poly_dim: int = 32, **family: Any):
        self.poly_dim = whole("poly_dim", poly_dim, 1)
        super().__init__(embed_dim, n_heads, **family)

    def draw(self) -> dict[str, Tensor]:
        return {**super().draw(), **self.build(self.generator(1))}

    @abstractmethod
    def build(self, draw: torch.Generator) -> dict[str, Tensor]:
        """Draw the tensors of p, head by head; returns them by name."""

    @abstractmethod
    def polynomial(self, u: Tensor) -> Tensor:
        """p of unit vectors: (B, K, n, d) -> (B, K, n, P)."""

    def feature_map(self, u: Tensor, position: Tensor) -> Features:
        u = unit(u)
        return Product(Dense(self.polynomial(u)), Dense(self.exponentials(u)))

    def feature_spec(self, q: Tensor, k: Tensor, i: Tensor, j: Tensor) -> FeatureSpec:
        groups, dtype = q.shape[1] // k.shape[1], accumulation_dtype(q.dtype)
        p_q = unfold(self.polynomial(unit(fold(q.to(dtype), groups))), groups)
        p_k = self.polynomial(unit(k.to(dtype)))
        return self.exponential_spec(p="given", given_p=(p_q, p_k))
