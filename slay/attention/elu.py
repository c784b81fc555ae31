"""Linear attention with the feature map elu(u) + 1."""

from __future__ import annotations

from slay.attention.linear import LinearAttention
from slay.features.elu import EluPlusOne


class EluAttention(LinearAttention):
    """k(q, k) = phi(q)·phi(k), phi(u) = elu(u) + 1, m = d (Katharopoulos et al. 2020).

    Key coordinates are clamped to at least -60, so a query whose keys all lie below gets the
    running mean of their values.
    """

    kernel = r"\phi(q)^\top\phi(k),\ \phi(u)=\mathrm{elu}(u)+1"
    exact = True
    nonnegative = True
    paper = "katharopoulos2020transformers"

    def features(self) -> EluPlusOne:
        return EluPlusOne()
