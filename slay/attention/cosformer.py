"""Linear attention that favours near tokens."""

from __future__ import annotations

from typing import Any

from slay.attention.linear import LinearAttention
from slay.errors import SlayError, whole
from slay.features.angle import PositionAngle
from slay.features.feature_map import OuterProduct
from slay.features.relu import Relu
from slay.ops.sequences import Sequences


class CosformerAttention(LinearAttention):
    """k(q_i, k_j) = relu(q_i)·relu(k_j) cos(pi/2 (i - j) / M) (Qin et al. 2022), m = 2 d.

    cos(a - b) = cos a cos b + sin a sin b splits the weight into per-token features. M = `max_len`
    is fixed, and no sequence may be longer, so that outputs do not change when a sequence is
    extended.
    """

    kernel = r"\mathrm{relu}(q)^\top\mathrm{relu}(k)\cos\tfrac{\pi(i-j)}{2M}"
    exact = True
    nonnegative = True
    paper = "qin2022cosformer"

    def __init__(self, embed_dim: int, n_heads: int, *, max_len: int = 8192, **layer: Any):
        self.max_len = whole("max_len", max_len, 1)
        super().__init__(embed_dim, n_heads, **layer)

    def features(self) -> OuterProduct:
        return OuterProduct(PositionAngle(self.max_len), Relu())

    def check_sequences(self, sequences: Sequences, lq: int, lk: int) -> None:
        longest = sequences.longest(lq, lk)
        if longest > self.max_len:
            raise SlayError(
                f"a sequence of {longest} tokens is longer than max_len = {self.max_len}; "
                "give a larger max_len"
            )
