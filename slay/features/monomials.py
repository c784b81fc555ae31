"""The symmetric degree-2 monomials of a vector, without gathers.

The unordered pairs of n coordinates, i = j included, are {i, i + s mod n} for shifts s = 0..n/2
(for even n the last shift gives each pair twice; its first half is kept). With w = [u, u] every
shift is a window of w, so that all monomials are one product of u with a strided view.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from slay.features.workspace import Workspace


def monomials(u: Tensor, work: Workspace | None = None) -> Tensor:
    """u_i u_j for every i <= j, times sqrt 2 where i < j: (..., L, n) -> (..., L, n (n + 1) / 2).

    <monomials(q), monomials(k)> = (q·k)^2. With `work` the result is stored there, and its gradient
    is `monomials_gradient`, not autograd's.
    """
    n = u.shape[-1]
    kept = n * (n + 1) // 2
    if work is None:
        phi = windows(u) * (math.sqrt(2.0) * u).unsqueeze(-2)  # (..., L, n // 2 + 1, n)
        return torch.cat((u.square(), phi.flatten(-2)[..., n:kept]), dim=-1)
    phi = work("monomials", (*u.shape[:-1], n // 2 + 1, n), u)
    scaled = torch.mul(u, math.sqrt(2.0), out=work("scaled", tuple(u.shape), u))
    torch.mul(windows(u, work), scaled.unsqueeze(-2), out=phi)
    phi[..., 0, :] *= math.sqrt(0.5)
    return phi.flatten(-2)[..., :kept]


def monomials_gradient(u: Tensor, g: Tensor, work: Workspace) -> Tensor:
    """du_i = 2 g_ii u_i + sqrt 2 sum_{j != i} g_ij u_j, shift by shift, one token per column.

    u: (..., L, n); g: (..., L, n (n + 1) / 2), the gradient of `monomials(u)`, fastest if
    contiguous along tokens.
    """
    n, g = u.shape[-1], g.mT
    shape = (*u.shape[:-2], n + n // 2, u.shape[-2])
    w = work("columns", shape, u)
    w[..., :n, :] = u.mT
    w[..., n:, :] = w[..., : n // 2, :]
    du = work("gradient", shape, u).zero_()
    for s in range(1, n // 2 + 1):
        pairs = g[..., s * n : (s + 1) * n, :]  # g_ij, j = i + s, for as many i as are kept
        kept = pairs.shape[-2]
        du[..., :kept, :].addcmul_(pairs, w[..., s : s + kept, :])
        du[..., s : s + kept, :].addcmul_(pairs, w[..., :kept, :])
    du[..., : n // 2, :] += du[..., n:, :]
    return (math.sqrt(2.0) * du[..., :n, :]).addcmul_(g[..., :n, :], w[..., :n, :], value=2.0).mT


def windows(u: Tensor, work: Workspace | None = None) -> Tensor:
    """u_{(i + s) mod n} at [..., s, i] for s = 0..n/2: (..., L, n) -> (..., L, n // 2 + 1, n)."""
    n = u.shape[-1]
    parts = (u, u[..., : n // 2])
    if work is None:
        w = torch.cat(parts, dim=-1)
    else:
        w = torch.cat(parts, dim=-1, out=work("windows", (*u.shape[:-1], n + n // 2), u))
    return w.unfold(-1, n, 1)
