"""The study's fast variant: one set of random directions for both factors."""

from __future__ import annotations

import torch
from torch import Tensor

from slay.attention.mixture import MixtureAttention
from slay.features.elementwise import unit
from slay.features.forms import Dense
from slay.ops.triton.spec import FeatureSpec


class HadamardAttention(MixtureAttention):
    """phi(u) = (omega_i·u)^2 F_i(u), feature by feature, with the omega_i of F; m = R M.

    Sharing the directions is cheap, but gives a kernel other than x^2 / (C - 2x).
    """

    kernel = r"\sum_r\tfrac{w_r}M\sum_i(\omega_{ri}^\top\hat q)^2(\omega_{ri}^\top\hat k)^2" + (
        r"e^{\sqrt{2s_r}\,\omega_{ri}^\top(\hat q+\hat k)-2s_r}"
    )

    spread: Tensor  # (R M,): 2 s_r

    def draw(self) -> dict[str, Tensor]:
        drawn = super().draw()
        nodes = torch.tensor(self.nodes, dtype=torch.float32)
        spread = 2.0 * nodes.repeat_interleave(self.num_prf_features)
        drawn["numbers"][1] = 1.0 / spread
        return {**drawn, "spread": spread}

    def feature_map(self, u: Tensor, position: Tensor) -> Dense:
        scaled = unit(u) @ self.omega.to(u.dtype).mT  # (B, K, n, R M): sqrt(2 s_r) omega_ri·u
        exponential = (scaled + self.offset.to(u.dtype)).exp()
        return Dense(scaled.square() / self.spread.to(u.dtype) * exponential)

    def feature_spec(self, q: Tensor, k: Tensor, i: Tensor, j: Tensor) -> FeatureSpec:
        return FeatureSpec(f="hadamard", unit=True, f_weight=self.omega, f_numbers=self.numbers)
