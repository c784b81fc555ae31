"""Random Fourier features of a Gaussian kernel on the sphere."""

from __future__ import annotations

from typing import Any

from slay.attention.linear import LinearAttention
from slay.errors import SlayError, positive, whole
from slay.features.exponential import FourierFeatures
from slay.features.feature_map import OnSphere
from slay.features.projections import gaussian


class FourierAttention(LinearAttention):
    """phi(u) = M^{-1/2} [cos(omega_i·u^), sin(omega_i·u^)], omega_i ~ N(0, I / sigma^2).

    Unbiased for exp(-‖q^ - k^‖^2 / (2 sigma^2)) on unit vectors (Rahimi & Recht 2007; Peng et al.
    2021). `num_features` = 2 M, sigma = `bandwidth`. Scores can be negative.
    """

    kernel = r"e^{-\|\hat q-\hat k\|^2/2\sigma^2}"
    nonnegative = False
    paper = "peng2021random"

    def __init__(
        self,
        embed_dim: int,
        n_heads: int,
        *,
        num_features: int = 64,
        bandwidth: float = 1.0,
        orthogonal: bool = False,
        **layer: Any,
    ):
        num_features = whole("num_features", num_features, 2)
        if num_features % 2:
            raise SlayError(f"num_features = {num_features}: must be even and at least 2")
        self.bandwidth = positive("bandwidth", bandwidth)
        self.directions, self.orthogonal = num_features // 2, orthogonal
        super().__init__(embed_dim, n_heads, **layer)

    def features(self) -> OnSphere:
        shape = (self.n_kv_heads, self.directions, self.head_dim)
        omega = gaussian(shape, self.generator(), orthogonal=self.orthogonal)
        return OnSphere(FourierFeatures(omega / self.bandwidth))
