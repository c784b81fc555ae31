"""Buffers for the widest arrays, reused from chunk to chunk.

An array of a few megabytes that is allocated for every chunk costs more in page faults than in
arithmetic.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor


class Workspace:
    """Uninitialised arrays by name; requesting a name again reuses its memory."""

    def __init__(self) -> None:
        self._held: dict[tuple[str, torch.dtype], Tensor] = {}
        self._parts: dict[str, Workspace] = {}

    def part(self, name: str) -> Workspace:
        """A nested workspace with its own names."""
        return self._parts.setdefault(name, Workspace())

    def __call__(self, name: str, shape: tuple[int, ...], like: Tensor) -> Tensor:
        """An array of that shape, with the dtype and device of `like`."""
        size = math.prod(shape)
        held = self._held.get((name, like.dtype))
        if held is None or held.numel() < size:
            held = self._held[name, like.dtype] = like.new_empty(size)
        return held[:size].view(shape)


def product(a: Tensor, b: Tensor, work: Workspace | None, name: str) -> Tensor:
    """The matrix product a b, in a workspace if there is one: (..., n, j), (..., j, m)."""
    if work is None:
        return a @ b
    return torch.matmul(a, b, out=work(name, (*a.shape[:-1], b.shape[-1]), a))
