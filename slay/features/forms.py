"""Representations of a feature map phi(u) that make different operations cheap.

Inside a chunk of c tokens only scores <phi(q), phi(k)> are needed, and a product of maps gives
them without ever forming an m-vector. Across chunks the m-vectors themselves are summed.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import ClassVar, Protocol, Self

import torch
from torch import Tensor

from slay.features.monomials import monomials, monomials_gradient
from slay.features.workspace import Workspace, product


class Features(Protocol):
    """phi of a block of tokens, represented by factors."""

    by_column: ClassVar[bool]
    """True if the vjp is faster on token-contiguous gradients."""

    def factors(self) -> list[Tensor]:
        """Tensors from which phi is computed, each (..., L, its width)."""

    def at(self, rows: Callable[[Tensor], Tensor]) -> Self:
        """phi of some of the tokens; `rows` selects them from a factor."""

    def scores(self, keys: Self, work: Workspace | None = None) -> Tensor:
        """<phi(q_i), phi(k_j)>: (..., Lq, Lk). With a workspace there is no autograd."""

    def expand(self, work: Workspace | None = None) -> Tensor:
        """phi itself: (..., L, m). With a workspace there is no autograd, only `vjp`."""

    def vjp(self, g: Tensor, work: Workspace) -> list[Tensor]:
        """Gradients of the factors from the gradient g of phi: (..., L, m)."""

    def pull_scores(
        self, keys: Self, g: Tensor, work: Workspace
    ) -> tuple[list[Tensor], list[Tensor]]:
        """Gradients of these factors and of the keys' factors from the gradient g of the scores."""


@dataclass(frozen=True)
class Dense:
    """phi as an explicit tensor."""

    phi: Tensor  # (..., L, m)
    by_column: ClassVar[bool] = False

    def factors(self) -> list[Tensor]:
        return [self.phi]

    def at(self, rows: Callable[[Tensor], Tensor]) -> Dense:
        return Dense(rows(self.phi))

    def scores(self, keys: Self, work: Workspace | None = None) -> Tensor:
        return product(self.phi, keys.phi.mT, work, "scores")

    def expand(self, work: Workspace | None = None) -> Tensor:
        return self.phi

    def vjp(self, g: Tensor, work: Workspace) -> list[Tensor]:
        return [g]

    def pull_scores(
        self, keys: Self, g: Tensor, work: Workspace
    ) -> tuple[list[Tensor], list[Tensor]]:
        return [g @ keys.phi], [g.mT @ self.phi]


@dataclass(frozen=True)
class Square:
    """The symmetric degree-2 monomials of u, so that <phi(q), phi(k)> = (u_q · u_k)^2."""

    u: Tensor  # (..., L, n)
    by_column: ClassVar[bool] = True

    def factors(self) -> list[Tensor]:
        return [self.u]

    def at(self, rows: Callable[[Tensor], Tensor]) -> Square:
        return Square(rows(self.u))

    def scores(self, keys: Self, work: Workspace | None = None) -> Tensor:
        x = product(self.u, keys.u.mT, work, "squares")
        return x.square() if work is None else x.square_()

    def expand(self, work: Workspace | None = None) -> Tensor:
        return monomials(self.u, work)  # (..., L, n (n + 1) / 2)

    def vjp(self, g: Tensor, work: Workspace) -> list[Tensor]:
        return [monomials_gradient(self.u, g, work)]

    def pull_scores(
        self, keys: Self, g: Tensor, work: Workspace
    ) -> tuple[list[Tensor], list[Tensor]]:
        x = product(self.u, keys.u.mT, work, "squares").mul_(g).mul_(2.0)
        return [x @ keys.u], [x.mT @ self.u]


@dataclass(frozen=True)
class Product:
    """phi = a (x) b, so that <phi(q), phi(k)> = <a_q, a_k> <b_q, b_k>."""

    a: Features  # A features
    b: Features  # B features
    by_column: ClassVar[bool] = False

    def factors(self) -> list[Tensor]:
        return [*self.a.factors(), *self.b.factors()]

    def at(self, rows: Callable[[Tensor], Tensor]) -> Product:
        return Product(self.a.at(rows), self.b.at(rows))

    def scores(self, keys: Self, work: Workspace | None = None) -> Tensor:
        if work is None:
            return self.a.scores(keys.a) * self.b.scores(keys.b)
        a = self.a.scores(keys.a, work.part("a"))
        return a.mul_(self.b.scores(keys.b, work.part("b")))

    def expand(self, work: Workspace | None = None) -> Tensor:
        a = self.a.expand().unsqueeze(-1)  # (..., L, A, 1)
        b = self.b.expand().unsqueeze(-2)  # (..., L, 1, B)
        if work is None:
            return (a * b).flatten(-2)  # (..., L, A B)
        shape = (*a.shape[:-1], b.shape[-1])
        return torch.mul(a, b, out=work("outer", shape, a)).flatten(-2)

    def vjp(self, g: Tensor, work: Workspace) -> list[Tensor]:
        a, b = self.a.expand(), self.b.expand()
        g = g.unflatten(-1, (a.shape[-1], b.shape[-1]))
        da = (b.unsqueeze(-2) @ g.mT).squeeze(-2)
        db = (a.unsqueeze(-2) @ g).squeeze(-2)
        return [*self.a.vjp(da, work), *self.b.vjp(db, work)]

    def pull_scores(
        self, keys: Self, g: Tensor, work: Workspace
    ) -> tuple[list[Tensor], list[Tensor]]:
        a, b = work.part("a"), work.part("b")
        by_b = torch.mul(g, self.a.scores(keys.a, a), out=work("by b", tuple(g.shape), g))
        by_a = torch.mul(g, self.b.scores(keys.b, b), out=work("by a", tuple(g.shape), g))
        (qa, ka), (qb, kb) = (
            self.a.pull_scores(keys.a, by_a, a),
            self.b.pull_scores(keys.b, by_b, b),
        )
        return [*qa, *qb], [*ka, *kb]
