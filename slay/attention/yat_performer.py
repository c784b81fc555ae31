"""The study's fast variant: one set of random directions for both factors."""

from __future__ import annotations

import torch

from slay.attention.mixture import MixtureAttention
from slay.features.exponential import SquaredExponentials
from slay.features.feature_map import OnSphere


class HadamardAttention(MixtureAttention):
    """phi(u) = (omega_i·u)^2 F_i(u), feature by feature, with the omega_i of F; m = R M.

    Sharing the directions is cheap, but gives a kernel other than x^2 / (C - 2x).
    """

    kernel = r"\sum_r\tfrac{w_r}M\sum_i(\omega_{ri}^\top\hat q)^2(\omega_{ri}^\top\hat k)^2" + (
        r"e^{\sqrt{2s_r}\,\omega_{ri}^\top(\hat q+\hat k)-2s_r}"
    )

    def features(self) -> OnSphere:
        F = self.exponentials()
        nodes = torch.tensor(self.nodes, dtype=torch.float32)
        spread = 2.0 * nodes.repeat_interleave(self.num_prf_features)  # (R M,): 2 s_r
        return OnSphere(SquaredExponentials(F.omega, F.offset, spread))
