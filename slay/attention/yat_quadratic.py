"""Exact quadratic features: the best square for the kernel, without randomness."""

from __future__ import annotations

from typing import Any

from slay.attention.linear import LinearAttention
from slay.epsilon import DEFAULT_EPSILON
from slay.errors import not_negative, positive
from slay.features.feature_map import OnSphere
from slay.features.polynomial import ShiftedSquare
from slay.theory import quadratic_shift


class QuadraticAttention(LinearAttention):
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
        self.epsilon = positive("epsilon", epsilon)
        self.beta = None if beta is None else not_negative("beta", beta)
        super().__init__(embed_dim, n_heads, **layer)

    def features(self) -> OnSphere:
        if self.beta is None:
            self.beta = quadratic_shift(self.head_dim, self.epsilon)
        return OnSphere(ShiftedSquare(self.beta))
