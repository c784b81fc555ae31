"""Mechanisms that evaluate their kernel at every pair of tokens."""

from __future__ import annotations

from abc import abstractmethod

from torch import Tensor

from slay.attention.layer import Attention
from slay.ops.exact import exact_attention


class ExactAttention(Attention):
    """A mechanism given by `prepare`, a map of each token, and `pairs`, a kernel of two such."""

    complexity = "L^2"
    exact = True

    def prepare(self, u: Tensor) -> Tensor:
        """What is computed once a token: (B, H, L, d) -> (B, H, L, d)."""
        return u

    @abstractmethod
    def pairs(self, q: Tensor, k: Tensor) -> Tensor:
        """k(q_i, k_j) of prepared tokens: (B, H, Lq, d), (B, H, Lk, d) -> (B, H, Lq, Lk)."""

    def attend(self, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        self.check_heads(q, k, v)
        return exact_attention(self.prepare(q), self.prepare(k), v, self.pairs, causal=self.causal)

    def scores(self, q: Tensor, k: Tensor) -> Tensor:
        return self.pairs(self.prepare(q), self.prepare(k))
