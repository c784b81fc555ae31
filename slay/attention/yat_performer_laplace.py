"""Random exponentials without a polynomial factor."""

from __future__ import annotations

from torch import Tensor

from slay.attention.mixture import MixtureAttention
from slay.features.elementwise import unit
from slay.features.forms import Dense
from slay.ops.triton.spec import FeatureSpec


class LaplaceAttention(MixtureAttention):
    """phi(u) = F(u): estimates 1 / (C - 2x), the kernel without its x^2; m = R M."""

    kernel = r"\sum_r w_r\,e^{2s_rx}\approx1/(2+\varepsilon-2x)"

    def feature_map(self, u: Tensor, position: Tensor) -> Dense:
        return Dense(self.exponentials(unit(u)))

    def feature_spec(self, q: Tensor, k: Tensor, i: Tensor, j: Tensor) -> FeatureSpec:
        return self.exponential_spec()
