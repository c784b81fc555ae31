"""States as kernels lay them out (`Map`) and as everybody else does, S: (B, K, e + 1, m).

Both hold the same sums; for polynomials they are ordered and scaled differently, one being made of
monomials of (u, sqrt beta), the other of those of u.
"""

from __future__ import annotations

import math
from functools import lru_cache

import torch
from torch import Tensor

from slay.ops.triton_maps import Map

Places = tuple[Tensor, Tensor]  # for each number, where it stands in the other layout, and a factor


def to_kernels(state: Tensor, M: Map, *, packed: bool) -> Tensor:
    """(N, K, e + 1, m) -> (B K, sequences, `Map.state`); N sequences are the batch or packed."""
    rows, sums, _ = _places(M)
    S, s = state[:, :, :-1], state[:, :, -1]
    if rows is not None and sums is not None:
        S, s = _picked(S, rows), _picked(s, sums)
    flat = torch.cat((S.mT.flatten(2), s), dim=-1).float()  # (N, K, state)
    return (flat.transpose(0, 1) if packed else flat.flatten(0, 1).unsqueeze(1)).contiguous()


def from_kernels(X: Tensor, M: Map, n_kv_heads: int, *, packed: bool) -> Tensor:
    """(B K, sequences, `Map.state`) -> (N, K, e + 1, m)."""
    flat = X.transpose(0, 1) if packed else X.view(-1, n_kv_heads, M.state)  # (N, K, state)
    S = flat[..., : M.rows * M.E].unflatten(-1, (M.rows, M.E)).mT  # (N, K, e, rows)
    s = flat[..., M.rows * M.E :]
    _, _, back = _places(M)
    if back is not None:
        S, s = _picked(S, back), _picked(s, _back_to_sums(M, back))
    return torch.cat((S, s.unsqueeze(-2)), dim=-2)


def symmetric(X: Tensor, M: Map) -> Tensor:
    """The gradient of a state, the same for rows of equal products as kernels take it to be.

    What a state of everybody's layout gives back stands in one row of each product.
    """
    S, s = X.split((M.rows * M.E, M.sums), dim=-1)
    S = S.unflatten(-1, (M.rows, M.E))
    rows, sums = _terms(M)
    S = _shared(S.mT, *_shares(tuple(rows))).mT.flatten(-2)
    return torch.cat((S, _shared(s, *_shares(tuple(sums)))), dim=-1)


def _shared(t: Tensor, product: Tensor, share: Tensor) -> Tensor:
    """Every number's share of what numbers of the same product have in all."""
    product, share = product.to(t.device), share.to(t.device, t.dtype)
    total = t.new_zeros(*t.shape[:-1], int(product.max()) + 1).index_add_(-1, product, t)
    return total.index_select(-1, product) * share


@lru_cache(maxsize=32)
def _shares(terms: tuple[tuple[int, ...], ...]) -> tuple[Tensor, Tensor]:
    """Which product each term is, and its share in that: u_i u_j u_k stands for u_j u_i u_k too."""
    products: dict[tuple[int, ...], int] = {}
    index = [products.setdefault(tuple(sorted(term)), len(products)) for term in terms]
    weight = torch.tensor([2.0 if len(t) == 3 and t[0] != t[1] else 1.0 for t in terms])
    product = torch.tensor(index)
    total = torch.zeros(len(products)).index_add_(0, product, weight)
    return product, weight / total[product]


def _picked(t: Tensor, places: Places) -> Tensor:
    index, factor = (p.to(t.device) for p in places)
    return t.index_select(-1, index) * factor.to(t.dtype)


@lru_cache(maxsize=32)
def _places(M: Map) -> tuple[Places | None, Places | None, Places | None]:
    """For rows of S and for s the places in m, and for m the places in rows of S."""
    if not M.degree:
        return None, None, None
    rows, sums = _terms(M)
    root, n = M.root_beta, M.letters
    kept = n * (n + 1) // 2
    monomial = {frozenset((f % n, (f % n + f // n) % n)): f for f in range(kept)}
    width = 1 if M.degree == 2 else M.D + 1  # of the factor (1, u) beside the monomials

    def place(term: tuple[int, ...]) -> tuple[int, float]:
        """Where u_i u_j ... v stands among the m, and what it is divided by there."""
        rest = 1 + term[2] if len(term) == 3 else 0
        if len(term) < 2 and not root:
            return 0, 0.0  # is not kept there, and does not count
        i, j = (*term[:2], *[M.D] * (2 - len(term)))
        factor = (1.0 if i == j else math.sqrt(2.0)) * root ** max(0, 2 - len(term))
        return monomial[frozenset((i, j))] * width + rest, factor

    def places(terms: list[tuple[int, ...]]) -> Places:
        index, factor = zip(*map(place, terms), strict=True)
        inverse = [1.0 / f if f else 0.0 for f in factor]
        return torch.tensor(index), torch.tensor(inverse, dtype=torch.float64)

    where: dict[tuple[int, ...], int] = {}
    for row, term in enumerate(rows):
        where.setdefault(tuple(sorted(term)), row)
    index, factor = [0] * (kept * width), [0.0] * (kept * width)
    for both, f in monomial.items():
        i, j = (*both, *both)[:2]
        known = [a for a in (i, j) if a < M.D]
        scale = (1.0 if i == j else math.sqrt(2.0)) * root ** (2 - len(known))
        for rest in range(width):
            whole = tuple(sorted(known if rest == 0 else [*known, rest - 1]))
            index[f * width + rest], factor[f * width + rest] = where[whole], scale
    back = torch.tensor(index), torch.tensor(factor, dtype=torch.float64)
    return places(rows), places(sums), back


def _terms(M: Map) -> tuple[list[tuple[int, ...]], list[tuple[int, ...]]]:
    """The coordinates of u that each row of S and each number of s is a product of."""
    d = range(M.D)
    low: list[tuple[int, ...]] = [*((i,) for i in d), ()]
    cubic: list[tuple[int, ...]] = []
    if M.degree == 3:
        cubic = [(i, j, k) for i in d for j in range(i + 1) for k in d]
    whole = [(i, j) for i in range(M.half) for j in d]
    half = [(i, j) for i in range(M.half, M.D) for j in range(M.half, M.D)]
    return [*whole, *half, *low, *cubic], [*((i, j) for i in d for j in d), *low, *cubic]


@lru_cache(maxsize=32)
def _sum_places(M: Map) -> Tensor:
    """For each row of S, the number of s of the same product."""
    rows, sums = _terms(M)
    where = {term: place for place, term in enumerate(sums)}
    return torch.tensor([where[term] for term in rows])


def _back_to_sums(M: Map, back: Places) -> Places:
    index, factor = back
    return _sum_places(M)[index], factor
