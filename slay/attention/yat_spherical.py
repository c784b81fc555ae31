"""The exact spherical Yat kernel: the target of every approximation here."""

from __future__ import annotations

from itertools import accumulate
from typing import Any

import torch
from torch import Tensor

from slay.attention.exact import ExactAttention
from slay.attention.layer import Memory
from slay.epsilon import DEFAULT_EPSILON
from slay.errors import positive
from slay.features.elementwise import unit
from slay.ops.modes import without_autocast
from slay.ops.select import choose, tensor_limit
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

    def kernel_limit(self, q: Tensor, v: Tensor) -> str | None:
        if self.training and self.dropout:
            return "kernels drop no attention weights"
        limit = tensor_limit(self.backend, q, v)
        if limit is not None or self.backend != "auto":
            return limit
        from slay.ops.triton.yat import pairs_of

        pairs = pairs_of(self.epsilon, int(q.shape[3]), int(v.shape[3]), q.dtype)
        return unverified(q.device, [pairs.key])

    def _attend_all(self, q: Tensor, k: Tensor, v: Tensor, padding: Tensor | None) -> Tensor:
        if self.backend_used == "torch":
            return super()._attend_all(q, k, v, padding)
        from slay.ops.triton.yat import exact_yat

        with without_autocast(q.device):
            return exact_yat(q, k, v, self.epsilon, causal=self.causal, key_padding_mask=padding)

    def _attend_packed(
        self,
        q: Tensor,
        k: Tensor,
        v: Tensor,
        lengths: list[int],
        start: Tensor | None,
        memory: Memory | None,
        final: bool,
    ) -> tuple[Tensor, Memory]:
        self.backend_used = choose(self.backend, self.kernel_limit(q, v))
        if self.backend_used == "torch" or memory is not None or final:
            return super()._attend_packed(q, k, v, lengths, start, memory, final)
        from slay.ops.triton.yat import exact_yat

        bounds = [0, *accumulate(lengths)]
        with without_autocast(q.device):
            return exact_yat(q, k, v, self.epsilon, causal=self.causal, bounds=bounds), ()
