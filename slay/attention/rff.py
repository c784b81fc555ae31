"""Random Fourier features of a Gaussian kernel on the sphere."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor

from slay.attention.linearised import FeatureAttention
from slay.errors import SlayError, positive, whole
from slay.features.elementwise import unit
from slay.features.exponential import fourier_features
from slay.features.forms import Dense
from slay.features.projections import gaussian
from slay.ops.triton.spec import FeatureSpec


class FourierAttention(FeatureAttention):
    """phi(u) = M^{-1/2} [cos(omega_i·u^), sin(omega_i·u^)], omega_i ~ N(0, I / sigma^2).

    Unbiased for exp(-‖q^ - k^‖^2 / (2 sigma^2)) on unit vectors (Rahimi & Recht 2007; Peng et al.
    2021). `num_features` = 2 M, sigma = `bandwidth`. Scores can be negative.
    """

    kernel = r"e^{-\|\hat q-\hat k\|^2/2\sigma^2}"
    nonnegative = False
    paper = "peng2021random"

    omega: Tensor  # (K, M, d)
    numbers: Tensor  # (2, 2 M), for `FeatureSpec`

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
        super().__init__(embed_dim, n_heads, **layer)
        num_features = whole("num_features", num_features, 2)
        if num_features % 2:
            raise SlayError(f"num_features = {num_features}: must be even and at least 2")
        self.bandwidth = positive("bandwidth", bandwidth)
        self.directions, self.orthogonal = num_features // 2, orthogonal
        self.register_drawn()

    def draw(self) -> dict[str, Tensor]:
        m = self.directions
        shape = (self.n_kv_heads, m, self.head_dim)
        omega = gaussian(shape, self.generator(), orthogonal=self.orthogonal)
        numbers = torch.full((2, 2 * m), m**-0.5)
        numbers[0, :m], numbers[0, m:] = 0.0, -0.5 * math.pi  # of cosines, and sines
        return {"omega": omega / self.bandwidth, "numbers": numbers}

    def feature_map(self, u: Tensor, position: Tensor) -> Dense:
        return Dense(fourier_features(unit(u), self.omega.to(u.dtype)))

    def feature_spec(self, q: Tensor, k: Tensor, i: Tensor, j: Tensor) -> FeatureSpec:
        weight = torch.cat((self.omega, self.omega), dim=1)
        return FeatureSpec(f="cos", unit=True, f_weight=weight, f_numbers=self.numbers)
