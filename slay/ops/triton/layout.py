"""Conversion of states between the kernels' layout (`Tiling`) and the public S: (B, K, e + 1, m).

Both hold the same sums. The kernels' layout is padded, and for polynomials it has products of
coordinates of u where the public one has monomials of (u, sqrt beta). Gradients of states are sums
of the same kind, over queries. They leave out the weight with which an element is read: a
coefficient, times how often symmetry repeats its product.
"""

from __future__ import annotations

import math
from itertools import permutations
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional as F

from slay.ops.modes import remembered
from slay.ops.triton.tiling import Tiling

Term = tuple[int, ...]  # the coordinates whose product is summed


class State(NamedTuple):
    """S: (B K, n, rows, EP) and s: (B K, n, sums), for n sequences or chunks.

    float32, but S of chunks is bfloat16 in half precision.
    """

    S: Tensor
    s: Tensor


class Places(NamedTuple):
    """For each element, its index in the other layout, and a factor."""

    where: Tensor
    factor: Tensor

    def pick(self, t: Tensor) -> Tensor:
        """Gather the elements from t, times their factors: (..., n)."""
        where, factor = self.where.to(t.device), self.factor.to(t.device, t.dtype)
        return t.index_select(-1, where) * factor


def to_kernels(state: Tensor, M: Tiling, *, packed: bool) -> State:
    """Convert from (N, K, e + 1, m), with N sequences as the batch or packed into one row."""
    rows, sums, _, _ = _places(M)
    state = state.float()
    S = rows.pick(state[:, :, :-1]).mT  # (N, K, rows, e)
    S = F.pad(S, (0, M.EP - M.E))
    s = sums.pick(state[:, :, -1])
    parts = [t.transpose(0, 1) if packed else t.flatten(0, 1).unsqueeze(1) for t in (S, s)]
    return State(*(t.contiguous() for t in parts))


def from_kernels(state: State, M: Tiling, n_kv_heads: int, *, packed: bool) -> Tensor:
    """Convert to (N, K, e + 1, m)."""
    _, _, rows, sums = _places(M)
    S, s = (
        t.transpose(0, 1) if packed else t.squeeze(1).unflatten(0, (-1, n_kv_heads)) for t in state
    )
    S = rows.pick(S[..., : M.E].mT)
    return torch.cat((S, sums.pick(s).unsqueeze(-2)), dim=-2)


def gradient_to_sums(gradient: State, M: Tiling) -> State:
    """Convert the gradient of a state to sums that contribute the same when read."""
    if M.score != "polynomial":
        return gradient
    rows, sums = _row_terms(M), _sum_terms(M)
    return State(
        _shared(gradient.S.mT, rows, M.coefficients).mT.contiguous(),
        _shared(gradient.s, sums, M.coefficients),
    )


def sums_to_gradient(sums: State, M: Tiling) -> State:
    """Convert sums to the gradient of a state: multiply by the weights with which they are read."""
    if M.score != "polynomial":
        return sums
    rows, of_s = _reading(M)
    device = sums.S.device
    return State(sums.S * rows.to(device).unsqueeze(-1), sums.s * of_s.to(device))


def _row_terms(M: Tiling) -> tuple[Term | None, ...]:
    """Product summed in each row of a polynomial's S; None for padding."""
    square = [
        (a, J * M.W + c)
        for J in range(M.blocks)
        for a in range((J + 1) * M.W)
        for c in range(M.W)
    ]  # fmt: skip
    return _known([*square, *_cubic(M), *((i,) for i in range(M.BP)), ()], M)


def _sum_terms(M: Tiling) -> tuple[Term | None, ...]:
    """Product summed in each element of a polynomial's s; None for padding."""
    square = [(a, c) for a in range(M.BP) for c in range(M.BP)]
    return _known([*square, *((i,) for i in range(M.BP)), (), *_cubic(M)], M)


def _cubic(M: Tiling) -> list[Term]:
    if M.degree < 3:
        return []
    return [(i, j, c) for i in range(M.B) for j in range(i + 1) for c in range(M.W)]


def _known(terms: list[Term], M: Tiling) -> tuple[Term | None, ...]:
    return tuple(None if any(i >= M.B for i in term) else term for term in terms)


@remembered
def _reading(M: Tiling) -> tuple[Tensor, Tensor]:
    """Weights with which the rows of S and the elements of s are read."""
    c = M.coefficients
    rows = [_repeats(term, M) * c[len(term)] if term is not None else 0.0 for term in _row_terms(M)]
    sums = [
        (2.0 if len(term) == 3 and term[0] != term[1] else 1.0) * c[len(term)]
        if term is not None
        else 0.0
        for term in _sum_terms(M)
    ]
    return torch.tensor(rows), torch.tensor(sums)


def _repeats(term: Term, M: Tiling) -> float:
    """2 for a row that also represents its symmetric counterpart, else 1."""
    if len(term) == 2:
        return 2.0 if term[0] // M.W != term[1] // M.W else 1.0
    return 2.0 if len(term) == 3 and term[0] != term[1] else 1.0


def _shared(t: Tensor, terms: tuple[Term | None, ...], coefficients: tuple[float, ...]) -> Tensor:
    """Each element's share of the sum over all elements with the same product: (..., n)."""
    product, share = (x.to(t.device) for x in _shares(terms, coefficients))
    total = t.new_zeros(*t.shape[:-1], int(product.max()) + 1).index_add_(-1, product, t)
    return total.index_select(-1, product) * share.to(t.dtype)


@remembered
def _shares(
    terms: tuple[Term | None, ...], coefficients: tuple[float, ...]
) -> tuple[Tensor, Tensor]:
    """Index of each element's product, and 1 / (orders of its coordinates x coefficient)."""
    products: dict[Term | None, int] = {}
    index, share = [], []
    for term in terms:
        known = None if term is None else tuple(sorted(term))
        index.append(products.setdefault(known, len(products)))
        orders = 1 if known is None else len(set(permutations(known)))
        c = 0.0 if known is None else coefficients[len(known)]
        share.append(1.0 / (orders * c) if c else 0.0)
    return torch.tensor(index), torch.tensor(share)


@remembered
def _places(M: Tiling) -> tuple[Places, Places, Places, Places]:
    """Places of the rows of S and elements of s among the m features, and the inverse of both."""
    if M.score == "polynomial":
        return _polynomial_places(M)
    A = M.A if M.score == "product" else 1
    width = M.W if M.score == "product" else M.BP
    padded = [(a, c) for a in range(M.AP if M.score == "product" else 1) for c in range(width)]
    there = [a < A and c < M.B for a, c in padded]
    index = [a * M.B + c if ok else 0 for (a, c), ok in zip(padded, there, strict=True)]
    places = [torch.tensor(index), torch.tensor(there, dtype=torch.float32)]
    of_rows = Places(*(t[: M.rows] for t in places))
    back = torch.tensor([a * width + c for a in range(A) for c in range(M.B)])
    ones = Places(back, torch.ones(len(back)))
    return of_rows, Places(*places), ones, ones


def _polynomial_places(M: Tiling) -> tuple[Places, Places, Places, Places]:
    """`_places` for polynomials.

    The m features are monomials of (u, sqrt beta), times sqrt 2 if the two letters differ, times
    (1, u) for cubics, ordered as in `slay.features.monomials`.
    """
    root, n = M.root_beta, M.letters
    kept = n * (n + 1) // 2
    width = 1 if M.degree == 2 else M.B + 1
    monomials = [tuple(sorted((f % n, (f % n + f // n) % n))) for f in range(kept)]
    where = {both: f for f, both in enumerate(monomials)}

    def place(term: Term | None) -> tuple[int, float]:
        """Index of a product among the m features, and the inverse of its factor there."""
        if term is None or (len(term) < 2 and not root):
            return 0, 0.0  # padding, or a term with coefficient 0, which is not stored there
        i, j = sorted((*term[:2], *[M.B] * (2 - len(term))))
        factor = (1.0 if i == j else math.sqrt(2.0)) * root ** max(0, 2 - len(term))
        return where[i, j] * width + (1 + term[2] if len(term) == 3 else 0), 1.0 / factor

    def places(terms: tuple[Term | None, ...]) -> Places:
        index, factor = zip(*map(place, terms), strict=True)
        return Places(torch.tensor(index), torch.tensor(factor, dtype=torch.float64))

    def back(terms: tuple[Term | None, ...]) -> Places:
        first: dict[Term, int] = {}
        for number, term in enumerate(terms):
            if term is not None:
                first.setdefault(tuple(sorted(term)), number)
        index, factor = [], []
        for i, j in monomials:
            known = tuple(a for a in (i, j) if a < M.B)
            scale = (1.0 if i == j else math.sqrt(2.0)) * root ** (2 - len(known))
            for rest in range(width):
                index.append(first[tuple(sorted((*known, *([rest - 1] if rest else []))))])
                factor.append(scale)
        return Places(torch.tensor(index), torch.tensor(factor, dtype=torch.float64))

    rows, sums = _row_terms(M), _sum_terms(M)
    return places(rows), places(sums), back(rows), back(sums)
