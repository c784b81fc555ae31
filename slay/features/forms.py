"""Three forms of a feature map phi(u), told apart by what is cheap.

Inside a chunk of c tokens only scores <phi(q), phi(k)> are needed, and a product of maps gives
them without ever forming an m-vector. Across chunks the m-vectors themselves are summed.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import lru_cache
from typing import Protocol, Self

import torch
from torch import Tensor


class Features(Protocol):
    """phi of a block of tokens."""

    def scores(self, keys: Self) -> Tensor:
        """<phi(q_i), phi(k_j)>: (..., Lq, Lk)."""

    def expand(self) -> Tensor:
        """phi itself: (..., L, m)."""


@dataclass(frozen=True)
class Dense:
    """phi given outright."""

    phi: Tensor  # (..., L, m)

    def scores(self, keys: Self) -> Tensor:
        return self.phi @ keys.phi.mT

    def expand(self) -> Tensor:
        return self.phi


@dataclass(frozen=True)
class Product:
    """phi = a (x) b, so that <phi(q), phi(k)> = (a_q · a_k) (b_q · b_k)."""

    a: Tensor  # (..., L, A)
    b: Tensor  # (..., L, B)

    def scores(self, keys: Self) -> Tensor:
        return (self.a @ keys.a.mT) * (self.b @ keys.b.mT)

    def expand(self) -> Tensor:
        return (self.a.unsqueeze(-1) * self.b.unsqueeze(-2)).flatten(-2)  # (..., L, A B)


@dataclass(frozen=True)
class Square:
    """phi(u) = the symmetric degree-2 monomials of u, so that <phi(q), phi(k)> = (u_q · u_k)^2."""

    u: Tensor  # (..., L, n)

    def scores(self, keys: Self) -> Tensor:
        return (self.u @ keys.u.mT).square()

    def expand(self) -> Tensor:
        rows = self.u.mT.contiguous()  # (..., n, L): gathering whole rows is several times faster
        i, j, scale = monomials(rows.shape[-2], rows.device, rows.dtype)
        phi = rows.index_select(-2, i) * rows.index_select(-2, j) * scale
        return phi.mT  # (..., L, n (n + 1) / 2)


@lru_cache(maxsize=64)
def monomials(n: int, device: torch.device, dtype: torch.dtype) -> tuple[Tensor, Tensor, Tensor]:
    """Pairs i <= j of n coordinates, and the weight of u_i u_j: 1 on the diagonal, else sqrt 2."""
    i, j = torch.triu_indices(n, n, device=device)
    scale = torch.ones(len(i), dtype=dtype, device=device).masked_fill(i != j, math.sqrt(2.0))
    return i, j, scale.unsqueeze(-1)  # (m,), (m,), (m, 1)
