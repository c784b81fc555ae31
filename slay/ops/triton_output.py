"""Triton kernel for the outputs of linear attention: what the state gives, and the chunk itself.

y = (sum_a p_a (F S_a) + A v) / (sum_a p_a (F s_a) + A 1), where A = tril((P_q P_kᵀ) ∘ (F_q F_kᵀ))
over the keys of the same chunk, or a polynomial of u_q u_kᵀ. The product with p_a comes after that
with S_a, so that phi is never formed.
"""

from __future__ import annotations

import triton
import triton.language as tl

from slay.ops.triton_maps import a_of, b_of, dot, fine_dot, narrow, put, tile, zeros
from slay.ops.triton_polynomial import across_polynomial, cosines, polynomial
from slay.ops.triton_state import (
    divisor,
    keys_there,
    normalised,
    products,
    span,
    state_of,
    state_rows,
    state_sums,
)


@triton.jit
def both_factors(side, u, b, h, kv, t, end, first, M: tl.constexpr, QUERY: tl.constexpr):
    """P and a block of F of tokens u; u itself for what a map does not have."""
    P, F = u, u
    if M.degree == 0:
        F, _ = b_of(u, side, b, h, kv, t, end, first, M, QUERY)
        if M.a != "none":
            P, _, _ = a_of(u, side, b, h, kv, t, end, M)
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
def scores(P, F, Pk, Fk, M: tl.constexpr):
    """<phi(q_i), phi(k_j)> of two blocks of tokens: (T, TK)."""
    x = dot(F, tl.trans(narrow(Fk, M)), M)
    if M.a != "none":
        x *= dot(P, tl.trans(narrow(Pk, M)), M)
    return x


@triton.jit
def inside(
    o, z, u, r, P, F, queries, keys, b, h, kv, t, first, lo, hi, end, L,
    M: tl.constexpr, TK: tl.constexpr, MASK: tl.constexpr,
):  # fmt: skip
    """o and z with the keys lo, ..., hi - 1 of the same chunk; `MASK`: some come too late."""
    for t0 in range(lo, hi, TK):
        j = t0 + tl.arange(0, TK)
        uk, rk = normalised(keys.u, b, kv, j, end, M)
        if M.degree:
            x = cosines(u, queries.u, r, h, t, uk, keys.u, rk, kv, j, b, end, M)
            A = polynomial(x, M)
        else:
            Pk, Fk = both_factors(keys, uk, b, kv, kv, j, end, first, M, False)
            A = scores(P, F, Pk, Fk, M)
        there = keys_there(keys.padding, b, j, end, L)[None, :]
        if MASK:
            there &= j[None, :] <= t[:, None]
        A = tl.where(there, A, 0.0)
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
                more, sums = across_polynomial(u, queries.u, r, b, h, t, end, X, M)
            else:
                more, sums = across(P, F, X, first, M)
            o += more
            z += sums
            if CAUSAL:
                o, z = inside(
                    o, z, u, r, P, F, queries, keys, b, h, kv, t, first, start, own, end, L,
                    M, TK, False,
                )  # fmt: skip
                last = tl.minimum(own + T, end)
                o, z = inside(
                    o, z, u, r, P, F, queries, keys, b, h, kv, t, first, own, last, end, L,
                    M, TK, True,
                )  # fmt: skip
        tl.store(z_out + bh * L + t, z, mask=t < end)
        put(y, o / divisor(z)[:, None], b, h, t, end, M.E, M.EP)
