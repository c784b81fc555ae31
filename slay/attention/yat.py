"""The original Yat kernel, without projection to the sphere."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from slay.attention.exact import ExactAttention
from slay.epsilon import DEFAULT_EPSILON
from slay.errors import positive


class YatAttention(ExactAttention):
    """k(q, k) = (q·k)^2 / (‖q - k‖^2 + eps) (Bouhsine 2026).

    ‖q - k‖^2 is a difference of larger numbers and is clamped from below at their rounding error.
    """

    kernel = r"(q^\top k)^2/(\|q-k\|^2+\varepsilon)"
    nonnegative = True
    paper = "bouhsine2026delulu"

    def __init__(
        self, embed_dim: int, n_heads: int, *, epsilon: float = DEFAULT_EPSILON, **layer: Any
    ):
        super().__init__(embed_dim, n_heads, **layer)
        self.epsilon = positive("epsilon", epsilon)

    def pairs(self, q: Tensor, k: Tensor) -> Tensor:
        dot = q @ k.mT
        norms = q.square().sum(-1, keepdim=True) + k.square().sum(-1).unsqueeze(-2)
        distance = torch.maximum(norms - 2.0 * dot, norms * torch.finfo(q.dtype).eps)
        return dot * (dot / (distance + self.epsilon))
