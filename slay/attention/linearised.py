"""Mechanisms whose kernel is the inner product of two feature vectors."""

from __future__ import annotations

from abc import abstractmethod

import torch
from torch import Tensor

from slay.attention.layer import Attention
from slay.features.forms import Features
from slay.ops.linear import linear_attention


class FeatureAttention(Attention):
    """A mechanism given by its feature map phi: k(q, k) = <phi(q), phi(k)>."""

    complexity = "L"
    exact = False
    chunk_size = 128

    @abstractmethod
    def feature_map(self, u: Tensor) -> Features:
        """phi of queries or keys u: (B, H, c, d)."""

    def attend(self, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        self.check_heads(q, k, v)
        y, _ = linear_attention(
            q, k, v, self.feature_map, causal=self.causal, chunk_size=self.chunk_size
        )
        return y

    def scores(self, q: Tensor, k: Tensor) -> Tensor:
        return self.feature_map(q).scores(self.feature_map(k))

    @property
    def num_features(self) -> int:
        """m, the length of phi."""
        device = next(self.buffers(), torch.empty(0)).device
        probe = torch.zeros(1, self.n_heads, 1, self.head_dim, device=device)
        return self.feature_map(probe).expand().shape[-1]

    def state_size(self, value_dim: int) -> int:
        return self.num_features * (value_dim + 1)
