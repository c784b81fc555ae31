"""Mechanisms that evaluate their kernel at every pair of tokens."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from slay.attention.layer import Attention, nothing
from slay.errors import share
from slay.ops.exact import exact_attention
from slay.ops.groups import fold, unfold
from slay.ops.normalise import accumulation_dtype
from slay.ops.sequences import Memory, Sequences

AttendAll = Callable[[Tensor, Tensor, Tensor, Tensor | None], Tensor]


class PairwiseAttention(Attention):
    """Base class of mechanisms that attend to all keys so far and cache them between calls.

    `dropout`: probability that an attention weight is dropped in training (0).
    """

    complexity = "L^2"
    exact = True

    def __init__(self, embed_dim: int, n_heads: int, *, dropout: float = 0.0, **layer: Any):
        super().__init__(embed_dim, n_heads, **layer)
        self.dropout = share("dropout", dropout)

    def _by_torch(
        self, q: Tensor, k: Tensor, v: Tensor, sequences: Sequences
    ) -> tuple[Tensor, Memory]:
        return self._over_all_keys(self._attend_all, q, k, v, sequences)

    def _over_all_keys(
        self, attend: AttendAll, q: Tensor, k: Tensor, v: Tensor, sequences: Sequences
    ) -> tuple[Tensor, Memory]:
        """Attend to the keys of this call and of earlier ones."""
        padding = sequences.padding
        if sequences.memory is not None:
            past_k, past_v, past = sequences.memory
            assert past_k is not None
            assert past_v is not None
            if past is not None or padding is not None:
                past = _no_padding(past_k) if past is None else past
                padding = _no_padding(k) if padding is None else padding
                padding = torch.cat((past, padding), dim=1)
            k = torch.cat((past_k.to(k.dtype), k), dim=2)
            v = torch.cat((past_v.to(v.dtype), v), dim=2)
        there = q.shape[2] and k.shape[2]
        y = attend(q, k, v, padding) if there else nothing(q, v)
        if not sequences.final:
            return y, ()
        if sequences.memory is None:  # a state shares no memory with the caller's tensors
            k, v = k.clone(), v.clone()
            padding = None if padding is None else padding.clone()
        return y, (k, v, padding)

    @abstractmethod
    def _attend_all(self, q: Tensor, k: Tensor, v: Tensor, padding: Tensor | None) -> Tensor:
        """Attention of Lq queries over Lk keys, both at least 1; if causal, queries come last."""

    def operations(self, length: int, *, backward: bool = False) -> int:
        # Scores and their product with v, over half the pairs; five such products backward.
        forward = length**2 * (self.head_dim + self.value_dim)
        return forward * 7 // 2 if backward else forward

    def stack(self, memories: list[Memory]) -> Memory:
        longest = max(k.shape[2] for k, _, _ in memories if k is not None)
        ks, vs, paddings = [], [], []
        for k, v, padding in memories:
            assert k is not None
            assert v is not None
            missing = longest - k.shape[2]
            padding = _no_padding(k) if padding is None else padding
            ks.append(F.pad(k, (0, 0, 0, missing)))
            vs.append(F.pad(v, (0, 0, 0, missing)))
            paddings.append(F.pad(padding, (0, missing), value=True))
        return torch.cat(ks), torch.cat(vs), torch.cat(paddings)


class ExactAttention(PairwiseAttention):
    """Base class of mechanisms given by a per-token map `prepare` and a pairwise kernel `pairs`."""

    def prepare(self, u: Tensor) -> Tensor:
        """Map applied once per token: (B, H, L, d) -> (B, H, L, d')."""
        return u

    @abstractmethod
    def pairs(self, q: Tensor, k: Tensor) -> Tensor:
        """k(q_i, k_j) of prepared tokens: (B, K, Lq, d'), (B, K, Lk, d') -> (B, K, Lq, Lk)."""

    def _attend_all(self, q: Tensor, k: Tensor, v: Tensor, padding: Tensor | None) -> Tensor:
        return exact_attention(
            q,
            k,
            v,
            self.prepare,
            self.pairs,
            causal=self.causal,
            key_padding_mask=padding,
            dropout=self.dropout if self.training else 0.0,
        )

    def scores(self, q: Tensor, k: Tensor) -> Tensor:
        groups = q.shape[1] // k.shape[1]
        q, k = (u.to(accumulation_dtype(u.dtype)) for u in (q, k))
        return unfold(self.pairs(fold(self.prepare(q), groups), self.prepare(k)), groups)


def _no_padding(k: Tensor) -> Tensor:
    return torch.zeros(k.shape[0], k.shape[2], dtype=torch.bool, device=k.device)
