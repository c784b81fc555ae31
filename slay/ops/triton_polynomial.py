"""Polynomials of x = q·k in Triton kernels: their products with the state, and gradients.

k(q, k) = c0 + c1 x + c2 x^2 + c3 x^3 needs no factor but u itself. Of a state's rows u_a u_j v
those with a in the second half of u and j in the first are left out, being those of (j, a). By
symmetry

    dk/du_j = c1 v + 2 c2 sum_a u_a (row a, j) + 3 c3 sum_ab u_a u_b (row a, b, j),

times g = do / z. Columns j come in blocks, and sums over the columns of a wide head in slices that
are read again, so that they need not stay in registers.
"""

from __future__ import annotations

import triton
import triton.language as tl

from slay.ops.triton_maps import cross_weight, dot, fine_dot, narrow, pair, tile, zeros
from slay.ops.triton_state import group, products, state_rows, state_sums


@triton.jit
def polynomial(x, M: tl.constexpr):
    """c0 + c1 x + c2 x^2 + c3 x^3."""
    k = M.c2 * x + M.c1
    if M.degree == 3:
        k = (M.c3 * x + M.c2) * x + M.c1
    return k * x + M.c0


@triton.jit
def polynomial_slope(x, M: tl.constexpr):
    """c1 + 2 c2 x + 3 c3 x^2."""
    k = 2.0 * M.c2
    if M.degree == 3:
        k += 3.0 * M.c3 * x
    return k * x + M.c1


@triton.jit
def columns(x, r, b, h, t, end, first, W: tl.constexpr, M: tl.constexpr):
    """Columns `first`... of u = r x: (T, W)."""
    return tile(x, b, h, t, end, M.D, W, first).to(tl.float32) * r[:, None]


@triton.jit
def letter(x, r, b, h, t, end, a):
    """Column a of u: (T, 1)."""
    p = x.data + b * x.batch + h * x.head + t.to(tl.int64) * x.token + a
    return (tl.load(p, mask=t < end, other=0.0).to(tl.float32) * r)[:, None]


@triton.jit
def letters(x, r, b, h, t, end, a, CUBIC: tl.constexpr, QUERY: tl.constexpr):
    """Column a of u, or u_i u_j of the a-th pair, on the side of queries for (j, i) too: (T, 1)."""
    if CUBIC:
        i, j = pair(a)
        p = letter(x, r, b, h, t, end, i) * letter(x, r, b, h, t, end, j)
        p *= tl.where((i != j) & QUERY, 2.0, 1.0)
    else:
        p = letter(x, r, b, h, t, end, a)
    return p


@triton.jit
def cosines(
    u, x, r, h, t, uk, xk, rk, hk, j, b, end, M: tl.constexpr
):  # fmt: skip
    """u·u_k of two blocks of tokens, t of head h and j of head hk: (T, TK).

    Half precision is not enough for small heads.
    """
    if M.degree == 3 or M.DP == 16:
        c = fine_dot(u, tl.trans(uk), M)
    elif M.slice >= M.DP:
        c = dot(u, tl.trans(narrow(uk, M)), M)
    else:
        c = zeros(t.shape[0], j.shape[0])
        for first in range(0, M.D, M.slice):
            part = columns(x, r, b, h, t, end, first, M.slice, M)
            other = columns(xk, rk, b, hk, j, end, first, M.slice, M)
            c += dot(part, tl.trans(narrow(other, M)), M)
    return c


@triton.jit
def quadratic_sums(
    x, r, b, h, t, end, X, first, W: tl.constexpr, M: tl.constexpr
):  # fmt: skip
    """Columns `first`... of u s2, where s2 are the sums of u uᵀ: (T, W)."""
    S: tl.constexpr = M.DP if M.slice >= M.DP else M.slice
    c = first + tl.arange(0, W)[None, :]
    total = zeros(t.shape[0], W)
    X += M.rows * M.E
    for d0 in range(0, M.D, S):
        d = d0 + tl.arange(0, S)[:, None]
        s2 = tl.load(X + d * M.D + c, mask=(d < M.D) & (c < M.D), other=0.0)
        total += fine_dot(columns(x, r, b, h, t, end, d0, S, M), s2, M)
    return total


@triton.jit
def polynomial_products(
    u, x, r, b, h, t, end, X, M: tl.constexpr, QUERY: tl.constexpr
):  # fmt: skip
    """The rows of S of a polynomial times its features: (T, EP)."""
    c1: tl.constexpr = M.c1 if QUERY else 1.0
    c2: tl.constexpr = M.c2 if QUERY else 1.0
    W: tl.constexpr = M.columns
    o = zeros(t.shape[0], M.EP)
    if M.DP == W:
        F = u * cross_weight(M, QUERY)
        o += c2 * products(u, F, X, 0, M.D, 0, M.half, M, M.DP, M.DP, False, QUERY)
        o += c1 * dot(u, state_rows(X, M.linear_row, M.D, M.DP, M), M)
    else:
        for first in range(0, M.D, W):
            F = columns(x, r, b, h, t, end, first, W, M)
            linear = state_rows(X, M.linear_row + first, M.D - first, W, M)
            o += c1 * dot(F, linear, M)
            F *= tl.where((first >= M.half) & QUERY, 2.0, 1.0)
            o += c2 * products(u, F, X, first, M.D, 0, M.half, M, M.DP, W, False, QUERY)
    if M.half < M.D:
        BW: tl.constexpr = M.D - M.half
        row: tl.constexpr = M.half * M.D - M.half * BW
        half = columns(x, r, b, h, t, end, M.half, BW, M)
        o += c2 * products(u, half, X, row, BW, M.half, M.D, M, M.DP, BW, False, QUERY)
    o += (M.c0 if QUERY else 1.0) * state_rows(X, M.linear_row + M.D, 1, 1, M)
    if M.degree == 3:
        o += (M.c3 if QUERY else 1.0) * products(
            u, u, X, M.cubic_row, M.D, 0, M.pairs, M, M.DP, M.DP, True, QUERY
        )  # fmt: skip
    return o


@triton.jit
def across_polynomial(u, x, r, b, h, t, end, X, M: tl.constexpr):
    """What the state adds to o and z for a polynomial: (T, EP), (T,)."""
    s1 = state_sums(X, M.D * M.D, 1, M.D, 1, M.DP, M)
    s0 = tl.load(X + M.rows * M.E + M.D * M.D + M.D)
    s = M.c1 * s1 + M.c2 * quadratic_sums(x, r, b, h, t, end, X, 0, M.DP, M)
    z = tl.sum(u * s, 1) + M.c0 * s0
    if M.degree == 3:
        s = u * 0.0
        for a in range(M.pairs):
            s3 = state_sums(X, M.cubic_sums + a * M.D, 1, M.D, 1, M.DP, M)
            s += group(u, a, M.DP, True, True) * s3
        z += M.c3 * tl.sum(u * s, 1)
    return polynomial_products(u, x, r, b, h, t, end, X, M, True), z


@triton.jit
def square_rows(X, a, first, M: tl.constexpr, QUERY: tl.constexpr):
    """The rows u_a u_j for a block of j, and what each counts in the gradient: (W, EP), (1, W).

    A row that stands for (j, a) too counts once, if it is doubled already, on the side of keys.
    """
    j, e = first + tl.arange(0, M.columns), tl.arange(0, M.EP)
    row = a * M.D + j
    twice = j >= 0
    if M.half < M.D:
        later = M.half * M.D + (a - M.half) * (M.D - M.half) + j - M.half
        row = tl.where(a < M.half, row, tl.where(j < M.half, j * M.D + a, later))
        if not QUERY:
            twice = (a < M.half) == (j < M.half)
    mask = (j < M.D)[:, None] & (e < M.E)[None, :]
    S = tl.load(X + row[:, None] * M.E + e[None, :], mask=mask, other=0.0)
    return S, tl.where(twice, 2.0, 1.0)[None, :]


@triton.jit
def across_polynomial_back(
    x, r, b, h, t, end, g, dz, X, first, M: tl.constexpr, QUERY: tl.constexpr
):  # fmt: skip
    """Columns `first`... of du from the state: (T, W)."""
    W: tl.constexpr = M.columns
    c1: tl.constexpr = M.c1 if QUERY else 1.0
    c2: tl.constexpr = M.c2 if QUERY else 1.0
    c3: tl.constexpr = M.c3 if QUERY else 1.0
    g = narrow(g, M)
    du = 2.0 * dz[:, None] * quadratic_sums(x, r, b, h, t, end, X, first, W, M)
    for a in range(M.D):
        S, weight = square_rows(X, a, first, M, QUERY)
        G = dot(g, tl.trans(narrow(S, M)), M)  # (T, W)
        du += letter(x, r, b, h, t, end, a) * weight * G
    linear = state_rows(X, M.linear_row + first, M.D - first, W, M)
    s1 = state_sums(X, M.D * M.D + first, 1, M.D - first, 1, W, M)
    du = c2 * du + c1 * (dot(g, tl.trans(narrow(linear, M)), M) + dz[:, None] * s1)
    if M.degree == 3:
        for a in range(M.pairs):
            S = state_rows(X, M.cubic_row + a * M.D + first, M.D - first, W, M)
            s = state_sums(X, M.cubic_sums + a * M.D + first, 1, M.D - first, 1, W, M)
            G = dot(g, tl.trans(narrow(S, M)), M) + dz[:, None] * s
            du += 3.0 * c3 * letters(x, r, b, h, t, end, a, True, QUERY) * G
    return du
