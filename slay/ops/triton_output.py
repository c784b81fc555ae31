"""Triton kernel for the outputs of linear attention: what the state gives, and the chunk itself.

y = (sum_a p_a (F S_a) + A v) / (sum_a p_a (F s_a) + A 1), where A = tril((P_q P_kᵀ) ∘ (F_q F_kᵀ))
over the keys of the same chunk, or a polynomial of u_q u_kᵀ. The product with p_a comes after that
with S_a, so that phi is never formed.
"""

from __future__ import annotations

import triton
import triton.language as tl

from slay.ops.triton_maps import (
    a_of,
    b_of,
    cross_weight,
    dot,
    fine_dot,
    narrow,
    polynomial,
    put,
    tile,
    zeros,
)
from slay.ops.triton_state import divisor, group, keys_there, normalised, span, state_of


@triton.jit
def state_rows(X, row, B, BB: tl.constexpr, M: tl.constexpr):
    """Rows `row`... of S, B of them: (BB, EP)."""
    c, e = tl.arange(0, BB), tl.arange(0, M.EP)
    p = X + (row + c)[:, None] * M.E + e[None, :]
    return tl.load(p, mask=(c < B)[:, None] & (e < M.E)[None, :], other=0.0)


@triton.jit
def state_sums(X, first, A, B, AP: tl.constexpr, BB: tl.constexpr, M: tl.constexpr):
    """A x B numbers of s from `first`: (AP, BB)."""
    a, c = tl.arange(0, AP), tl.arange(0, BB)
    p = X + M.rows * M.E + first + a[:, None] * B + c[None, :]
    return tl.load(p, mask=(a < A)[:, None] & (c < B)[None, :], other=0.0)


@triton.jit
def products(
    P, F, X, row, BW, first, last,
    M: tl.constexpr, WP: tl.constexpr, BB: tl.constexpr, CUBIC: tl.constexpr, QUERY: tl.constexpr,
):  # fmt: skip
    """sum_a p_a (F S_a) over groups first, ..., last - 1: (T, EP)."""
    F = narrow(F, M)
    o = zeros(P.shape[0], M.EP)
    for a in range(first, last):
        S = state_rows(X, row + a * BW, BW, BB, M)
        o += group(P, a, WP, CUBIC, QUERY) * dot(F, S, M)
    return o


@triton.jit
def polynomial_products(u, half, X, M: tl.constexpr, QUERY: tl.constexpr):
    """The rows of S of a polynomial times its features; `half`: the second half of u: (T, EP)."""
    F = u * cross_weight(M, QUERY)
    o = products(u, F, X, 0, M.D, 0, M.half, M, M.DP, M.DP, False, QUERY)
    if M.half < M.D:
        BW: tl.constexpr = M.D - M.half
        row: tl.constexpr = M.half * M.D - M.half * BW
        o += products(u, half, X, row, BW, M.half, M.D, M, M.DP, BW, False, QUERY)
    linear = state_rows(X, M.linear_row, M.D, M.DP, M)
    one = state_rows(X, M.linear_row + M.D, 1, 1, M)
    o = (M.c2 if QUERY else 1.0) * o + (M.c1 if QUERY else 1.0) * dot(u, linear, M)
    o += (M.c0 if QUERY else 1.0) * one
    if M.degree == 3:
        o += (M.c3 if QUERY else 1.0) * products(
            u, u, X, M.cubic_row, M.D, 0, M.pairs, M, M.DP, M.DP, True, QUERY
        )  # fmt: skip
    return o


@triton.jit
def second_half(x, r, b, h, t, end, M: tl.constexpr):
    """The second half of u, where a polynomial's state makes use of it: (T, DP / 2)."""
    W: tl.constexpr = M.D - M.half if M.half < M.D else M.DP
    return tile(x, b, h, t, end, M.D, W, M.half % M.D).to(tl.float32) * r[:, None]


@triton.jit
def both_factors(side, u, b, h, kv, t, end, first, M: tl.constexpr, QUERY: tl.constexpr):
    """P and a block of F of tokens u; u itself for what a map does not have."""
    P, F = u, u
    if M.degree == 0:
        F, _ = b_of(u, side.b, b, h, kv, t, end, first, M, QUERY)
        if M.a != "none":
            P, _, _ = a_of(u, side.a, b, h, kv, t, end, M)
    return P, F


@triton.jit
def across(P, F, X, first, M: tl.constexpr):
    """What the state adds to o and z for features, a block of b from `first`: (T, EP), (T,)."""
    if M.a == "none":
        o = dot(F, state_rows(X, first, M.B - first, M.BB, M), M)
        z = tl.sum(F * state_sums(X, first, 1, M.B - first, 1, M.BB, M), 1)
    else:
        o = products(P, F, X, 0, M.B, 0, M.A, M, M.AP, M.BB, False, True)
        s = state_sums(X, 0, M.A, M.B, M.AP, M.BB, M)
        z = tl.sum(P * fine_dot(F, tl.trans(s), M), 1)
    return o, z


@triton.jit
def across_polynomial(u, half, X, M: tl.constexpr):
    """What the state adds to o and z for a polynomial: (T, EP), (T,)."""
    s2 = state_sums(X, 0, M.D, M.D, M.DP, M.DP, M)
    s1 = state_sums(X, M.D * M.D, 1, M.D, 1, M.DP, M)
    s0 = tl.load(X + M.rows * M.E + M.D * M.D + M.D)
    z = tl.sum(u * (M.c2 * fine_dot(u, s2, M) + M.c1 * s1), 1) + M.c0 * s0
    if M.degree == 3:
        s = u * 0.0
        for a in range(M.pairs):
            s3 = state_sums(X, M.cubic_sums + a * M.D, 1, M.D, 1, M.DP, M)
            s += group(u, a, M.DP, True, True) * s3
        z += M.c3 * tl.sum(u * s, 1)
    return polynomial_products(u, half, X, M, True), z


@triton.jit
def cosines(u, uk, M: tl.constexpr):
    """x = u·u_k of two blocks of tokens: (T, TK); half precision is not enough for small heads."""
    if M.degree == 3 or M.DP == 16:
        x = fine_dot(u, tl.trans(uk), M)
    else:
        x = dot(u, tl.trans(narrow(uk, M)), M)
    return x


@triton.jit
def scores(P, F, Pk, Fk, M: tl.constexpr):
    """k(q_i, k_j) of two blocks of tokens: (T, TK)."""
    if M.degree:
        x = polynomial(cosines(F, Fk, M), M)
    else:
        x = dot(F, tl.trans(narrow(Fk, M)), M)
        if M.a != "none":
            x *= dot(P, tl.trans(narrow(Pk, M)), M)
    return x


@triton.jit
def inside(
    o, z, P, F, keys, b, kv, t, first, lo, hi, end, L,
    M: tl.constexpr, TK: tl.constexpr, MASK: tl.constexpr,
):  # fmt: skip
    """o and z with the keys lo, ..., hi - 1 of the same chunk; `MASK`: some come too late."""
    for t0 in range(lo, hi, TK):
        j = t0 + tl.arange(0, TK)
        u, _ = normalised(keys.u, b, kv, j, end, M)
        Pk, Fk = both_factors(keys, u, b, kv, kv, j, end, first, M, False)
        there = keys_there(keys.padding, b, j, end, L)[None, :]
        if MASK:
            there &= j[None, :] <= t[:, None]
        A = tl.where(there, scores(P, F, Pk, Fk, M), 0.0)
        z += tl.sum(A, 1)
        o += dot(A, tile(keys.w, b, kv, j, end, M.E, M.EP), M)
    return o, z


@triton.jit
def outputs(
    queries, keys, X, y, z_out, L, C, states, H, K,
    M: tl.constexpr, CAUSAL: tl.constexpr, T: tl.constexpr, TK: tl.constexpr,
):  # fmt: skip
    """y and z of a block of queries; grid (blocks, B H).

    X: the state before every chunk, or of all keys if not `CAUSAL`; y: (B, H, L, E);
    z: (B, H, L) float32.
    """
    i, bh = tl.program_id(0), tl.program_id(1)
    b, h = bh // H, bh % H
    kv = h // (H // K)
    n = i // (C // T)
    start, end = span(queries.spans, n, C, L)
    own = start + (i % (C // T)) * T  # the block's first token
    t = own + tl.arange(0, T)
    X = state_of(X, queries.spans, b, kv, K, n, states, CAUSAL, M)
    if own < end:
        u, r = normalised(queries.u, b, h, t, end, M)
        o, z = zeros(T, M.EP), tl.zeros((T,), tl.float32)
        for first in range(0, M.B, M.BB):
            P, F = both_factors(queries, u, b, h, kv, t, end, first, M, True)
            if M.degree:
                half = second_half(queries.u, r, b, h, t, end, M)
                more, sums = across_polynomial(u, half, X, M)
            else:
                more, sums = across(P, F, X, first, M)
            o += more
            z += sums
            if CAUSAL:
                o, z = inside(
                    o, z, P, F, keys, b, kv, t, first, start, own, end, L, M, TK, False
                )  # fmt: skip
                last = tl.minimum(own + T, end)
                o, z = inside(
                    o, z, P, F, keys, b, kv, t, first, own, last, end, L, M, TK, True
                )  # fmt: skip
        tl.store(z_out + bh * L + t, z, mask=t < end)
        put(y, o / divisor(z)[:, None], b, h, t, end, M.E, M.EP)
