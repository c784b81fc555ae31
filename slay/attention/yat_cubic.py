"""Exact cubic features: a closer approximation than the quadratic for small heads."""

from __future__ import annotations

from typing import Any

import torch

from slay.attention.linear import LinearAttention
from slay.errors import SlayError, not_negative, whole
from slay.features.feature_map import FeatureMap, OnSphere, Projected
from slay.features.polynomial import ShiftedCube


class CubicAttention(LinearAttention):
    """k(q, k) = (x + beta)^2 (1 + x), x the cosine of q and k; m = d (d + 1)^2 / 2.

    phi(u) = [monomials of (u, sqrt beta)] (x) (1, u). With beta = 0, x^2 (1 + x) is closest to
    the spherical Yat kernel in mean square: the linear factor replaces the shift of the quadratic
    kernel. With `project_dim` = d' each head is first mapped to d' dimensions by a learned matrix,
    initialised with orthonormal columns, and d' replaces d above.
    """

    kernel = r"(x+\beta)^2(1+x)"
    nonnegative = True
    paper = ""

    def __init__(
        self,
        embed_dim: int,
        n_heads: int,
        *,
        beta: float = 0.0,
        project_dim: int | None = None,
        **layer: Any,
    ):
        self.beta = not_negative("beta", beta)
        self.project_dim = None if project_dim is None else whole("project_dim", project_dim, 2)
        super().__init__(embed_dim, n_heads, **layer)

    def features(self) -> FeatureMap:
        d, smaller = self.head_dim, self.project_dim
        cube = OnSphere(ShiftedCube(self.beta))
        if smaller is None:
            return cube
        if smaller > d:
            raise SlayError(
                f"project_dim = {smaller}: must lie between 2 and the head dimension {d}"
            )
        shape = (self.n_kv_heads, d, smaller)
        return Projected(torch.linalg.qr(torch.randn(shape, generator=self.generator())).Q, cube)
