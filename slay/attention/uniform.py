"""The null mechanism: the running mean of the values."""

from __future__ import annotations

from slay.attention.linear import LinearAttention
from slay.features.constant import Constant


class UniformAttention(LinearAttention):
    """k(q, k) = 1: ignores queries and keys. Tasks that it solves need no attention."""

    kernel = "1"
    exact = True
    nonnegative = True
    paper = ""

    def features(self) -> Constant:
        return Constant()
