"""Random exponentials without a polynomial factor."""

from __future__ import annotations

from slay.attention.mixture import MixtureAttention
from slay.features.feature_map import OnSphere


class LaplaceAttention(MixtureAttention):
    """phi(u) = F(u): estimates 1 / (C - 2x), the kernel without its x^2; m = R M."""

    kernel = r"\sum_r w_r\,e^{2s_rx}\approx1/(2+\varepsilon-2x)"

    def features(self) -> OnSphere:
        return OnSphere(self.exponentials())
