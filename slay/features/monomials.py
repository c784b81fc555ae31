"""The symmetric degree-2 monomials of a vector, without gathers.

The unordered pairs of n coordinates, i = j included, are {i, i + s mod n} for shifts s = 0..n/2
(for even n the last shift gives each pair twice; its first half is kept). With w = [u, u] every
shift is a window of w, so that all monomials are one product of u with a strided view.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor
from torch.nn import functional as F

from slay.features.workspace import Workspace


def monomials(u: Tensor, work: Workspace | None = None) -> Tensor:
    """u_i u_j for every i <= j, times sqrt 2 where i < j: (..., L, n) -> (..., L, n (n + 1) / 2).

    <monomials(q), monomials(k)> = (q·k)^2. With `work` the result lies there, and only
    `monomials_gradient` leads back.
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
    """du_i = sum_s c_s (g[s, i] u_{i+s} + g[s, i-s] u_{i-s}), c_0 = 1, else sqrt 2.

    u: (..., L, n); g: (..., L, n (n + 1) / 2), the gradient of `monomials(u)`.
    """
    n = u.shape[-1]
    shifts = n // 2 + 1
    if g.shape[-1] < shifts * n:
        g = F.pad(g, (0, shifts * n - g.shape[-1]))
    g = g.unflatten(-1, (shifts, n))
    twice = work("twice", (*g.shape[:-1], 2 * n), u)
    torch.mul(g, windows(u, work), out=twice[..., :n])
    own = twice[..., :n].sum(-2)  # (..., L, n)
    torch.mul(g, u.unsqueeze(-2), out=twice[..., :n])  # g[s, i] u_i at i and at i + n
    twice[..., n:] = twice[..., :n]
    skew = twice.as_strided(  # g[s, i - s] u_{i - s} at [..., s, i]
        g.shape, (*twice.stride()[:-2], 2 * n - 1, 1), twice.storage_offset() + n
    )
    # As if every weight were sqrt 2; shift 0 has 1 and meets u_i twice.
    both = math.sqrt(2.0) * (own + skew.sum(-2))
    return both + (2.0 - 2.0 * math.sqrt(2.0)) * g[..., 0, :] * u


def windows(u: Tensor, work: Workspace | None = None) -> Tensor:
    """u_{(i + s) mod n} at [..., s, i] for s = 0..n/2: (..., L, n) -> (..., L, n // 2 + 1, n)."""
    n = u.shape[-1]
    parts = (u, u[..., : n // 2])
    if work is None:
        w = torch.cat(parts, dim=-1)
    else:
        w = torch.cat(parts, dim=-1, out=work("windows", (*u.shape[:-1], n + n // 2), u))
    return w.unfold(-1, n, 1)
