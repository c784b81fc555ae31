"""Triton kernels for the gradients of linear attention; features are formed again.

With g = do / z, dz = -(do·y) / z and, for a state S with its sums s, G_a = g S_aᵀ + dz s_a:

    dF = sum_a p_a G_a,    dp_a = F·G_a,

and likewise for keys with v, 1 and the states of the gradients of later queries, which also give
dv = sum_a p_a (F dS_a). Inside a chunk dA = tril(g vᵀ + dz 1ᵀ), dF_q = (dA ∘ P_q P_kᵀ) F_k, and
dP_q, dF_k, dP_k likewise.
Every row is written by one program, in a fixed order of sums.
"""

from __future__ import annotations

import triton
import triton.language as tl

from slay.ops.triton_maps import (
    DELTA,
    a_back,
    a_of,
    b_back,
    b_of,
    beside,
    column,
    cross_weight,
    dot,
    fine_dot,
    fresh,
    narrow,
    norm_back,
    one_hot,
    pair,
    polynomial_slope,
    put,
    tile,
    zeros,
)
from slay.ops.triton_output import (
    both_factors,
    cosines,
    polynomial_products,
    products,
    scores,
    second_half,
    state_rows,
    state_sums,
)
from slay.ops.triton_state import (
    divisor,
    group,
    keys_there,
    normalised,
    span,
    state_of,
    summand,
)


@triton.jit
def products_back(P, F, g, X, M: tl.constexpr):
    """dP and dF of sum_a p_a (F S_a) g: (T, AP), (T, BB)."""
    dP, dF = P * 0.0, F * 0.0
    for a in range(M.A):
        S = state_rows(X, a * M.B, M.B, M.BB, M)
        G = dot(g, tl.trans(narrow(S, M)), M)  # (T, BB)
        dF += column(P, a, M.AP) * G
        dP += tl.sum(F * G, 1)[:, None] * one_hot(a, M.AP)
    return dP, dF


@triton.jit
def powers_back(
    du, dF, u, F, g, X, row, BW, first, last,
    M: tl.constexpr, BB: tl.constexpr, CUBIC: tl.constexpr, QUERY: tl.constexpr,
):  # fmt: skip
    """The same where P is u itself or its pairs: du, and dF where F is something else than u."""
    for a in range(first, last):
        S = state_rows(X, row + a * BW, BW, BB, M)
        G = dot(g, tl.trans(narrow(S, M)), M)  # (T, BB)
        dF += group(u, a, M.DP, CUBIC, QUERY) * G
        dp = tl.sum(F * G, 1)[:, None]
        if CUBIC:
            i, j = pair(a)
            dp *= tl.where((i != j) & QUERY, 2.0, 1.0)
            du += dp * (column(u, j, M.DP) * one_hot(i, M.DP))
            du += dp * (column(u, i, M.DP) * one_hot(j, M.DP))
        else:
            du += dp * one_hot(a, M.DP)
    return du, dF


@triton.jit
def across_back(P, F, g, dz, X, first, M: tl.constexpr):
    """dP and dF from the state and from g: (T, EP), dz: (T,)."""
    if M.a == "none":
        S = state_rows(X, first, M.B - first, M.BB, M)
        s = state_sums(X, first, 1, M.B - first, 1, M.BB, M)
        dP, dF = P, dot(g, tl.trans(narrow(S, M)), M) + dz[:, None] * s
    else:
        dP, dF = products_back(P, F, narrow(g, M), X, M)
        s = state_sums(X, 0, M.A, M.B, M.AP, M.BB, M)
        dP += dz[:, None] * fine_dot(F, tl.trans(s), M)
        dF += dz[:, None] * fine_dot(P, s, M)
    return dP, dF


@triton.jit
def across_polynomial_back(u, half, g, dz, X, M: tl.constexpr, QUERY: tl.constexpr):
    """du from the state of a polynomial: (T, DP)."""
    g = narrow(g, M)
    weight = cross_weight(M, QUERY)
    du, dF = powers_back(
        u * 0.0, u * 0.0, u, u * weight, g, X, 0, M.D, 0, M.half, M, M.DP, False, QUERY
    )  # fmt: skip
    du += dF * weight
    if M.half < M.D:
        BW: tl.constexpr = M.D - M.half
        row: tl.constexpr = M.half * M.D - M.half * BW
        du, dF = powers_back(
            du, half * 0.0, u, half, g, X, row, BW, M.half, M.D, M, BW, False, QUERY
        )  # fmt: skip
        du += beside(dF * 0.0, dF, M.DP)
    linear = state_rows(X, M.linear_row, M.D, M.DP, M)
    s2 = state_sums(X, 0, M.D, M.D, M.DP, M.DP, M)
    s1 = state_sums(X, M.D * M.D, 1, M.D, 1, M.DP, M)
    c1: tl.constexpr = M.c1 if QUERY else 1.0
    c2: tl.constexpr = M.c2 if QUERY else 1.0
    du = c2 * du + c1 * dot(g, tl.trans(narrow(linear, M)), M)
    du += dz[:, None] * (c2 * fine_dot(u, s2 + tl.trans(s2), M) + c1 * s1)
    if M.degree == 3:
        more, dF = powers_back(
            u * 0.0, u * 0.0, u, u, g, X, M.cubic_row, M.D, 0, M.pairs, M, M.DP, True, QUERY
        )  # fmt: skip
        c3: tl.constexpr = M.c3 if QUERY else 1.0
        du += c3 * (more + dF)
        for a in range(M.pairs):
            i, j = pair(a)
            s = dz[:, None] * state_sums(X, M.cubic_sums + a * M.D, 1, M.D, 1, M.DP, M)
            du += c3 * group(u, a, M.DP, True, QUERY) * s
            dp = c3 * tl.where((i != j) & QUERY, 2.0, 1.0) * tl.sum(u * s, 1)[:, None]
            du += dp * column(u, j, M.DP) * one_hot(i, M.DP)
            du += dp * column(u, i, M.DP) * one_hot(j, M.DP)
    return du


@triton.jit
def inside_back(dP, dF, P, F, Po, Fo, dA, M: tl.constexpr):
    """dP and dF with dA: (T, TK), the gradient of the scores with Po, Fo of other tokens."""
    if M.degree:
        dA *= polynomial_slope(cosines(F, Fo, M), M)
    Po, Fo = narrow(Po, M), narrow(Fo, M)
    if M.degree or M.a == "none":
        dF += dot(dA, Fo, M)
    else:
        dF += dot(dA * dot(P, tl.trans(Po), M), Fo, M)
        dP += dot(dA * dot(F, tl.trans(Fo), M), Po, M)
    return dP, dF


@triton.jit
def store_factors(du, dP, dF, side, da, db, b, h, kv, t, end, first,
                  M: tl.constexpr, QUERY: tl.constexpr):  # fmt: skip
    """du with what comes through the maps; the gradients of given factors are stored.

    Tokens are read and factors formed once more: they would take up registers all the while.
    """
    u, _ = normalised(side.u, b, h, t, end, M)
    if M.degree:
        du += dF
    elif M.b == "given":
        put(db, dF, b, h, t, end, M.B, M.BB, first)
    else:
        F, s = b_of(u, side.b, b, h, kv, t, end, first, M, QUERY)
        du = b_back(du, dF, F, s, u, side.b, kv, first, M, QUERY)
    if M.a == "given":
        if da is not None:
            put(da, dP, b, h, t, end, M.A, M.AP)
    elif M.a != "none":
        _, s, r = a_of(u, side.a, b, h, kv, t, end, M)
        du = a_back(du, dP, s, r, side.a, kv, M)
    return du


@triton.jit
def query_gradients(
    queries, keys, X, y, dz_out, dq, da, db, L, C, states, H, K,
    M: tl.constexpr, CAUSAL: tl.constexpr, T: tl.constexpr, TK: tl.constexpr,
):  # fmt: skip
    """dq of a block of queries, and dz; grid (blocks, B H)."""
    i, bh = tl.program_id(0), tl.program_id(1)
    b, h = bh // H, bh % H
    kv = h // (H // K)
    n = i // (C // T)
    start, end = span(queries.spans, n, C, L)
    own = start + (i % (C // T)) * T
    t = own + tl.arange(0, T)
    X = state_of(X, queries.spans, b, kv, K, n, states, CAUSAL, M)
    if own < end:
        u, r = normalised(queries.u, b, h, t, end, M)
        do = tile(queries.w, b, h, t, end, M.E, M.EP).to(tl.float32)
        z = tl.load(queries.z + bh * L + t, mask=t < end, other=1.0)
        dz = -tl.sum(do * tile(y, b, h, t, end, M.E, M.EP).to(tl.float32), 1) / divisor(z)
        dz = tl.where(tl.abs(z) < DELTA, 0.0, dz)
        tl.store(dz_out + bh * L + t, dz, mask=t < end)
        g = narrow(do / divisor(z)[:, None], M)
        du = u * 0.0
        for first in range(0, M.B, M.BB):
            P, F = both_factors(queries, u, b, h, kv, t, end, first, M, True)
            if M.degree:
                half = second_half(queries.u, r, b, h, t, end, M)
                dP, dF = P * 0.0, across_polynomial_back(u, half, g, dz, X, M, True)
            else:
                dP, dF = across_back(P, F, g, dz, X, first, M)
                P, F = narrow(P, M), narrow(F, M)
            if CAUSAL:
                for t0 in range(start, tl.minimum(own + T, end), TK):
                    j = t0 + tl.arange(0, TK)
                    uk, _ = normalised(keys.u, b, kv, j, end, M)
                    Pk, Fk = both_factors(keys, uk, b, kv, kv, j, end, first, M, False)
                    v = tile(keys.w, b, kv, j, end, M.E, M.EP)
                    dA = dot(g, tl.trans(narrow(v, M)), M) + dz[:, None]
                    there = keys_there(keys.padding, b, j, end, L)[None, :]
                    dA = tl.where(there & (j[None, :] <= t[:, None]), dA, 0.0)
                    dP, dF = inside_back(dP, dF, P, F, Pk, Fk, dA, M)
            t, end, b, h, kv = fresh(t), fresh(end), fresh(b), fresh(h), fresh(kv)
            du = store_factors(
                du, dP, dF, queries, da, db, b, h, kv, t, end, first, M, True
            )  # fmt: skip
        u, r = normalised(queries.u, b, h, t, end, M)
        put(dq, norm_back(du, u, r, M), b, h, t, end, M.D, M.DP)


@triton.jit
def key_gradients(
    queries, keys, X, dk, dv, da, db, L, C, states, H, K,
    M: tl.constexpr, CAUSAL: tl.constexpr, G: tl.constexpr, T: tl.constexpr, TQ: tl.constexpr,
):  # fmt: skip
    """dk and dv of a block of keys; grid (blocks, B K).

    X: the gradient of the state after every chunk, or of the only state if not `CAUSAL`.
    """
    i, bk = tl.program_id(0), tl.program_id(1)
    b, kv = bk // K, bk % K
    n = i // (C // T)
    start, end = span(keys.spans, n, C, L)
    own = start + (i % (C // T)) * T
    t = own + tl.arange(0, T)
    X = state_of(X, keys.spans, b, kv, K, n, states, CAUSAL, M)
    if own < end:
        there = keys_there(keys.padding, b, t, end, L)
        u, r = normalised(keys.u, b, kv, t, end, M)
        v = narrow(tile(keys.w, b, kv, t, end, M.E, M.EP), M)
        du, dv_, one = u * 0.0, zeros(T, M.EP), tl.full((T,), 1.0, tl.float32)
        for first in range(0, M.B, M.BB):
            P, F = both_factors(keys, u, b, kv, kv, t, end, first, M, False)
            if M.degree:
                half = second_half(keys.u, r, b, kv, t, end, M)
                dP, dF = P * 0.0, across_polynomial_back(u, half, v, one, X, M, False)
                dv_ += polynomial_products(u, half, X, M, False)
            else:
                dP, dF = across_back(P, F, v, one, X, first, M)
                if M.a == "none":
                    dv_ += dot(F, state_rows(X, first, M.B - first, M.BB, M), M)
                else:
                    dv_ += products(P, F, X, 0, M.B, 0, M.A, M, M.AP, M.BB, False, False)
                P, F = narrow(P, M), narrow(F, M)
            if CAUSAL:
                for head in range(kv * G, kv * G + G):
                    for t0 in range(own // TQ * TQ, end, TQ):
                        j = t0 + tl.arange(0, TQ)
                        uq, _ = normalised(queries.u, b, head, j, end, M)
                        Pq, Fq = both_factors(queries, uq, b, head, kv, j, end, first, M, True)
                        g, dz = summand(queries, b, head, H, j, end, L, M, True)
                        later = there[:, None] & (j[None, :] >= t[:, None])
                        A = tl.where(later, scores(P, F, Pq, Fq, M), 0.0)
                        dv_ += dot(A, g, M)
                        dA = dot(v, tl.trans(narrow(g, M)), M) + dz[None, :]
                        dP, dF = inside_back(
                            dP, dF, P, F, Pq, Fq, tl.where(later, dA, 0.0), M
                        )  # fmt: skip
            dP, dF = tl.where(there[:, None], dP, 0.0), tl.where(there[:, None], dF, 0.0)
            t, end, b, kv = fresh(t), fresh(end), fresh(b), fresh(kv)
            du = store_factors(
                du, dP, dF, keys, da, db, b, kv, kv, t, end, first, M, False
            )  # fmt: skip
        u, r = normalised(keys.u, b, kv, t, end, M)
        du = tl.where(there[:, None], du, 0.0)
        put(dk, norm_back(du, u, r, M), b, kv, t, end, M.D, M.DP)
        put(dv, tl.where(there[:, None], dv_, 0.0), b, kv, t, end, M.E, M.EP)
