"""The exact spherical Yat kernel: the target of every approximation here."""

from __future__ import annotations

from itertools import accumulate
from typing import Any

import torch
from torch import Tensor

from slay.attention.exact import ExactAttention
from slay.attention.layer import Compute
from slay.epsilon import DEFAULT_EPSILON
from slay.errors import positive
from slay.features.elementwise import unit
from slay.ops.modes import without_autocast
from slay.ops.select import tensor_limit
from slay.ops.sequences import Memory, Sequences
from slay.ops.verification import unverified


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
        self.epsilon = positive("epsilon", epsilon)

    def prepare(self, u: Tensor) -> Tensor:
        return unit(u)

    def pairs(self, q: Tensor, k: Tensor) -> Tensor:
        x = q @ k.mT
        rest = torch.rsub(x, 2.0 + self.epsilon, alpha=2.0)  # C - 2x, at least eps up to rounding
        return x.square() / rest.clamp(min=self.epsilon)

    def kernels(self, q: Tensor, k: Tensor, v: Tensor) -> Compute | str:
        if self.training and self.dropout:
            return "kernels drop no attention weights"
        reason = tensor_limit(self.backend, q, v)
        if reason is None and self.backend == "auto":
            from slay.ops.triton.yat import pairs_of

            pairs = pairs_of(self.epsilon, int(q.shape[3]), int(v.shape[3]), q.dtype)
            reason = unverified(q.device, [pairs.key])
        return self._by_kernels if reason is None else reason

    def packs(self, sequences: Sequences) -> bool:
        return sequences.memory is None and not sequences.final

    def _by_kernels(
        self, q: Tensor, k: Tensor, v: Tensor, sequences: Sequences
    ) -> tuple[Tensor, Memory]:
        from slay.ops.triton.yat import exact_yat

        bounds = None
        if sequences.lengths is not None:
            bounds = [0, *accumulate(sequences.lengths)]

        def attend(q: Tensor, k: Tensor, v: Tensor, padding: Tensor | None) -> Tensor:
            masked: Any = {"key_padding_mask": padding, "bounds": bounds}
            return exact_yat(q, k, v, self.epsilon, causal=self.causal, **masked)

        with without_autocast(q.device):
            return self._over_all_keys(attend, q, k, v, sequences)
