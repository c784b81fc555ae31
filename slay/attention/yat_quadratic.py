"""Exact quadratic features: the best square for the kernel, without randomness."""

from __future__ import annotations

from typing import Any

from torch import Tensor

from slay.attention.linearised import FeatureAttention
from slay.epsilon import DEFAULT_EPSILON
from slay.errors import not_negative, positive
from slay.features.elementwise import unit
from slay.features.forms import Square
from slay.features.polynomial import shifted_square
from slay.ops.triton.spec import FeatureSpec
from slay.theory import quadratic_shift


class QuadraticAttention(FeatureAttention):
    """k(q, k) = (x + beta)^2, x the cosine of q and k; m = (d + 1) (d + 2) / 2.

    beta = c1 / (2 c2), where c0 + c1 x + c2 x^2 is the projection of x^2 / (2 + eps - 2x) on
    quadratics under the density of x on the sphere (`slay.theory`). beta = 0 gives x^2.
    """

    kernel = r"(x+\beta)^2"
    nonnegative = True
    paper = ""

    def __init__(
        self,
        embed_dim: int,
        n_heads: int,
        *,
        epsilon: float = DEFAULT_EPSILON,
        beta: float | None = None,
        **layer: Any,
    ):
        super().__init__(embed_dim, n_heads, **layer)
        best = quadratic_shift(self.head_dim, positive("epsilon", epsilon))
        self.beta = best if beta is None else not_negative("beta", beta)

    def feature_map(self, u: Tensor, position: Tensor) -> Square:
        return shifted_square(unit(u), self.beta)

    def feature_spec(self, q: Tensor, k: Tensor, i: Tensor, j: Tensor) -> FeatureSpec:
        c0, c1 = self.beta**2, 2.0 * self.beta
        return FeatureSpec(f="identity", unit=True, degree=2, coefficients=(c0, c1, 1.0, 0.0))
