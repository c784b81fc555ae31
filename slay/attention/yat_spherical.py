"""The exact spherical Yat kernel: the target of every approximation here."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor

from slay.attention.exact import ExactAttention
from slay.attention.layer import DEFAULT_EPSILON
from slay.errors import SlayError
from slay.features.elementwise import unit


class SphericalYatAttention(ExactAttention):
    """k(q, k) = x^2 / (2 + eps - 2x), x the cosine of q and k (Luna et al. 2026).

    It is |q^ - k^|^-2 weighted by x^2 up to eps, lies in [0, 1/eps], and has no free scale.
    """

    kernel = r"x^2/(2+\varepsilon-2x)"
    nonnegative = True
    paper = "luna2026slay"

    def __init__(
        self, embed_dim: int, n_heads: int, *, epsilon: float = DEFAULT_EPSILON, **layer: Any
    ):
        super().__init__(embed_dim, n_heads, **layer)
        if not 0 < epsilon < math.inf:
            raise SlayError(f"epsilon = {epsilon}: must be positive")
        self.epsilon = epsilon

    def prepare(self, u: Tensor) -> Tensor:
        return unit(u)

    def pairs(self, q: Tensor, k: Tensor) -> Tensor:
        x = q @ k.mT
        rest = torch.rsub(x, 2.0 + self.epsilon, alpha=2.0)  # C - 2x, at least eps but for rounding
        return x.square() / rest.clamp(min=self.epsilon)
