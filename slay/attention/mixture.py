"""The study's family: random features for the spherical Yat kernel.

1/y = ∫_0^∞ exp(-s y) ds makes x^2 / (C - 2x) a mixture of x^2 exp(2 s x), which a quadrature makes
finite (`slay.features.quadrature`). The members differ in what stands for x^2.
"""

from __future__ import annotations

from abc import abstractmethod
from numbers import Integral
from typing import Any

import torch
from torch import Tensor

from slay.attention.layer import DEFAULT_EPSILON
from slay.attention.linearised import FeatureAttention
from slay.errors import SlayError
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
    omega_ri a node, drawn per head, in orthogonal blocks if `orthogonal`. Unbiased for
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
        at_least_one("num_prf_features", num_prf_features)
        s, w = (
            torch.tensor(t, dtype=torch.float32) for t in laguerre(num_quadrature_nodes, epsilon)
        )
        self.nodes = s  # (R,)
        shape = (self.n_kv_heads, num_quadrature_nodes, num_prf_features, self.head_dim)
        directions = gaussian(shape, self.generator(), orthogonal=orthogonal)
        omega, offset = at_nodes(directions, s, w)
        self.register_buffer("omega", omega)
        self.register_buffer("offset", offset)
        numbers = torch.stack((offset, torch.zeros_like(offset)))
        self.register_buffer("numbers", numbers, persistent=False)

    def exponentials(self, u: Tensor) -> Tensor:
        """F of unit vectors: (B, K, n, d) -> (B, K, n, R M)."""
        return positive_random_features(u, self.omega.to(u.dtype), self.offset.to(u.dtype))

    def exponential_spec(self, **polynomial: Any) -> FeatureSpec:
        """F as kernels form it, with another factor if there is one."""
        return FeatureSpec(
            f="exp", unit=True, f_weight=self.omega, f_numbers=self.numbers, **polynomial
        )


class TensorAttention(MixtureAttention):
    """phi(u) = p(u) (x) F(u), where p: P = `poly_dim` features stands for x^2; m = P R M."""

    def __init__(self, embed_dim: int, n_heads: int, *, poly_dim: int = 32, **family: Any):
        super().__init__(embed_dim, n_heads, **family)
        at_least_one("poly_dim", poly_dim)
        self.poly_dim = poly_dim
        self.build(self.generator(1))

    @abstractmethod
    def build(self, draw: torch.Generator) -> None:
        """Draw what p needs, head by head."""

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


def at_least_one(name: str, value: Any) -> None:
    """Raise ValueError unless a count is one."""
    if isinstance(value, bool) or not isinstance(value, Integral) or value < 1:
        raise SlayError(f"{name} = {value}: must be a whole number, at least 1")
