"""The null mechanism: the running mean of the values."""

from __future__ import annotations

from torch import Tensor

from slay.attention.linearised import FeatureAttention
from slay.features.forms import Dense


class UniformAttention(FeatureAttention):
    """k(q, k) = 1: ignores queries and keys. Tasks that it solves need no attention."""

    kernel = "1"
    exact = True
    nonnegative = True
    paper = ""

    def feature_map(self, u: Tensor, position: Tensor) -> Dense:
        return Dense(u.new_ones(*u.shape[:-1], 1))
