"""Anchor features for x^2 times random exponentials for the rest: the study's own choice."""

from __future__ import annotations

import torch
from torch import Tensor

from slay.attention.mixture import TensorAttention
from slay.features.elementwise import unit
from slay.features.polynomial import anchor_features
from slay.ops.triton.spec import FeatureSpec


class AnchorAttention(TensorAttention):
    """p(u) = P^{-1/2} (a_i·u)^2 for random unit anchors a_i.

    <p(q), p(k)> has mean (1 + 2 x^2) / (d (d + 2)), so this estimates x^2 / (C - 2x) only up to
    that flat floor.
    """

    kernel = r"\tfrac1P\sum_i(a_i^\top\hat q)^2(a_i^\top\hat k)^2\cdot\sum_r w_r\,e^{2s_rx}"

    anchors: Tensor  # (K, P, d), of norm P^{-1/4}

    def build(self, draw: torch.Generator) -> dict[str, Tensor]:
        anchors = torch.randn(self.n_kv_heads, self.poly_dim, self.head_dim, generator=draw)
        return {"anchors": unit(anchors) / self.poly_dim**0.25}

    def polynomial(self, u: Tensor) -> Tensor:
        return anchor_features(u, self.anchors.to(u.dtype))

    def feature_spec(self, q: Tensor, k: Tensor, i: Tensor, j: Tensor) -> FeatureSpec:
        return self.exponential_spec(p="square", p_weight=self.anchors)
