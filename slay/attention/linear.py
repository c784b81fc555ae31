"""Linear attention with the feature map elu(u) + 1."""

from __future__ import annotations

from torch import Tensor

from slay.attention.linearised import FeatureAttention
from slay.features.elementwise import elu_plus_one, elu_plus_one_over_top
from slay.features.forms import Dense
from slay.ops.triton.spec import FeatureSpec


class LinearAttention(FeatureAttention):
    """k(q, k) = phi(q)·phi(k), phi(u) = elu(u) + 1, m = d (Katharopoulos et al. 2020).

    Key coordinates are clamped to at least -60, so a query whose keys all lie below gets the
    running mean of their values.
    """

    kernel = r"\phi(q)^\top\phi(k),\ \phi(u)=\mathrm{elu}(u)+1"
    exact = True
    nonnegative = True
    paper = "katharopoulos2020transformers"

    def feature_map(self, u: Tensor, position: Tensor) -> Dense:
        return Dense(elu_plus_one(u))

    def query_map(self, u: Tensor, position: Tensor) -> Dense:
        return Dense(elu_plus_one_over_top(u))

    def feature_spec(self, q: Tensor, k: Tensor, i: Tensor, j: Tensor) -> FeatureSpec:
        return FeatureSpec(f="elu")
