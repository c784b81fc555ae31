"""Anchor features for x^2 times random exponentials for the rest: the study's own choice."""

from __future__ import annotations

import torch

from slay.attention.mixture import TensorAttention
from slay.features.elementwise import unit
from slay.features.polynomial import SquaredProjections


class AnchorAttention(TensorAttention):
    """p(u) = P^{-1/2} (a_i·u)^2 for random unit anchors a_i.

    <p(q), p(k)> has mean (1 + 2 x^2) / (d (d + 2)), so this estimates x^2 / (C - 2x) only up to
    that flat floor.
    """

    kernel = r"\tfrac1P\sum_i(a_i^\top\hat q)^2(a_i^\top\hat k)^2\cdot\sum_r w_r\,e^{2s_rx}"

    def squares(self, draw: torch.Generator) -> SquaredProjections:
        anchors = torch.randn(self.n_kv_heads, self.poly_dim, self.head_dim, generator=draw)
        return SquaredProjections(unit(anchors) / self.poly_dim**0.25)
