"""Inputs of a timed or checked attention call."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from slay.benchmarks.settings import Shape


class Inputs(NamedTuple):
    """q: (B, H, L, d), k: (B, K, L, d), v: (B, K, L, e), and the gradient of y: (B, H, L, e)."""

    q: Tensor
    k: Tensor
    v: Tensor
    g: Tensor

    @classmethod
    def drawn(cls, shape: Shape, length: int, dtype: torch.dtype, device: torch.device) -> Inputs:
        """Standard normal inputs, with K = H and e = d: the same for every call on a device."""
        size = (shape.batch_size, shape.n_heads, length, shape.head_dim)
        draw = torch.Generator(device).manual_seed(0)
        return cls(*(torch.randn(size, generator=draw, device=device).to(dtype) for _ in range(4)))

    def first(self, length: int) -> Inputs:
        """A contiguous copy of the first tokens."""
        return Inputs(*(t.contiguous() for t in self.cut(0, length)))

    def cut(self, start: int, stop: int) -> Inputs:
        """A view of the tokens from `start` to below `stop`."""
        return Inputs(*(t[:, :, start:stop] for t in self))

    @property
    def qkv(self) -> tuple[Tensor, Tensor, Tensor]:
        return self.q, self.k, self.v
