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
    column,
    dot,
    fine_dot,
    fresh,
    narrow,
    norm_back,
    one_hot,
    put,
    slope,
    tile,
    zeros,
)
from slay.ops.triton_output import both_factors, scores
from slay.ops.triton_polynomial import (
    across_polynomial_back,
    columns,
    cosines,
    polynomial,
    polynomial_products,
    polynomial_slope,
)
from slay.ops.triton_state import (
    divisor,
    keys_there,
    normalised,
    products,
    span,
    state_of,
    state_rows,
    state_sums,
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
def across_values(sums, P, F, X, first, M: tl.constexpr):
    """dv with what a block of features and the state give: (T, EP)."""
    if M.a == "none":
        sums += dot(F, state_rows(X, first, M.B - first, M.BB, M), M)
    else:
        sums += products(P, F, X, 0, M.B, 0, M.A, M, M.AP, M.BB, False, False)
    return sums


@triton.jit
def inside_back(dP, dF, P, F, Po, Fo, dA, M: tl.constexpr):
    """dP and dF with dA: (T, TK), the gradient of the scores with Po, Fo of other tokens."""
    Po, Fo = narrow(Po, M), narrow(Fo, M)
    if M.a == "none":
        dF += dot(dA, Fo, M)
    else:
        dF += dot(dA * dot(P, tl.trans(Po), M), Fo, M)
        dP += dot(dA * dot(F, tl.trans(Fo), M), Po, M)
    return dP, dF


@triton.jit
def store_factors(du, dP, dF, side, da, db, b, h, kv, t, end, first,
                  M: tl.constexpr, QUERY: tl.constexpr):  # fmt: skip
    """du with what comes through the maps; the gradients of given columns are stored.

    Tokens are read and factors formed once more: they would take up registers all the while.
    """
    u, r = normalised(side.u, b, h, t, end, M)
    if M.b == "given":
        put(db, dF, b, h, t, end, M.B, M.BB, first)
    else:
        F, s = b_of(u, side, b, h, kv, t, end, first, M, QUERY)
        if M.columnwise:
            put(db, slope(s, F, dF, side.b, first, M), b, h, t, end, M.B, M.BB, first)
        else:
            du = b_back(du, dF, F, s, u, side.b, kv, first, M, QUERY)
    if M.a == "given":
        if da is not None:
            put(da, dP, b, h, t, end, M.A, M.AP)
    elif M.a != "none":
        _, s, r = a_of(u, side, b, h, kv, t, end, M)
        du = a_back(du, dP, s, r, side.a, kv, M)
    return du


@triton.jit
def score_gradients_of_keys(g, dz, keys, b, kv, t, j, end, L, M: tl.constexpr):
    """dA of queries t, with g and dz, and keys j, none of which is later: (T, TK)."""
    v = tile(keys.w, b, kv, j, end, M.E, M.EP)
    dA = dot(g, tl.trans(narrow(v, M)), M) + dz[:, None]
    there = keys_there(keys.padding, b, j, end, L)[None, :]
    return tl.where(there & (j[None, :] <= t[:, None]), dA, 0.0)


@triton.jit
def store_polynomial(du, along, dx, x, r, b, h, t, end, M: tl.constexpr):
    """Store blocks of columns of the gradient of tokens r u, from those of du and du·u."""
    for i in tl.static_range(M.DP // M.columns):
        part = du[i]
        if M.unit:
            u = columns(x, r, b, h, t, end, i * M.columns, M.columns, M)
            part = r[:, None] * (part - along[:, None] * u)
        put(dx, part, b, h, t, end, M.D, M.columns, i * M.columns)


@triton.jit
def polynomial_query_gradients(
    queries, keys, X, g, dz, dq, b, h, kv, t, own, start, end, L,
    M: tl.constexpr, CAUSAL: tl.constexpr, T: tl.constexpr, TK: tl.constexpr,
):  # fmt: skip
    """dq of a block of queries of a polynomial, some columns after others."""
    u, r = normalised(queries.u, b, h, t, end, M)
    du, along = (), tl.zeros((T,), tl.float32)
    for i in tl.static_range(M.DP // M.columns):
        first = i * M.columns
        part = across_polynomial_back(queries.u, r, b, h, t, end, g, dz, X, first, M, True)
        if CAUSAL:
            for t0 in range(start, tl.minimum(own + T, end), TK):
                j = t0 + tl.arange(0, TK)
                uk, rk = normalised(keys.u, b, kv, j, end, M)
                dA = score_gradients_of_keys(g, dz, keys, b, kv, t, j, end, L, M)
                x = cosines(u, queries.u, r, h, t, uk, keys.u, rk, kv, j, b, end, M)
                other = columns(keys.u, rk, b, kv, j, end, first, M.columns, M)
                part += dot(dA * polynomial_slope(x, M), other, M)
        along += tl.sum(part * columns(queries.u, r, b, h, t, end, first, M.columns, M), 1)
        du = du + (part,)
    store_polynomial(du, along, dq, queries.u, r, b, h, t, end, M)


@triton.jit
def polynomial_key_gradients(
    queries, keys, X, dk, dv, b, kv, H, t, own, end, L,
    M: tl.constexpr, CAUSAL: tl.constexpr, G: tl.constexpr, T: tl.constexpr, TQ: tl.constexpr,
):  # fmt: skip
    """dk and dv of a block of keys of a polynomial, some columns after others."""
    there = keys_there(keys.padding, b, t, end, L)
    u, r = normalised(keys.u, b, kv, t, end, M)
    v = narrow(tile(keys.w, b, kv, t, end, M.E, M.EP), M)
    one = tl.full((T,), 1.0, tl.float32)
    du, along = (), tl.zeros((T,), tl.float32)
    for i in tl.static_range(M.DP // M.columns):
        first = i * M.columns
        if i == 0:
            sums = polynomial_products(u, keys.u, r, b, kv, t, end, X, M, False)
        part = across_polynomial_back(keys.u, r, b, kv, t, end, v, one, X, first, M, False)
        if CAUSAL:
            for head in range(kv * G, kv * G + G):
                for t0 in range(own // TQ * TQ, end, TQ):
                    j = t0 + tl.arange(0, TQ)
                    uq, rq = normalised(queries.u, b, head, j, end, M)
                    g, dz = summand(queries, b, head, H, j, end, L, M, True)
                    x = cosines(u, keys.u, r, kv, t, uq, queries.u, rq, head, j, b, end, M)
                    later = there[:, None] & (j[None, :] >= t[:, None])
                    if i == 0:
                        sums += dot(tl.where(later, polynomial(x, M), 0.0), g, M)
                    dA = dot(v, tl.trans(narrow(g, M)), M) + dz[None, :]
                    dA = tl.where(later, dA * polynomial_slope(x, M), 0.0)
                    other = columns(queries.u, rq, b, head, j, end, first, M.columns, M)
                    part += dot(dA, other, M)
        if i == 0:
            put(dv, tl.where(there[:, None], sums, 0.0), b, kv, t, end, M.E, M.EP)
        part = tl.where(there[:, None], part, 0.0)
        along += tl.sum(part * columns(keys.u, r, b, kv, t, end, first, M.columns, M), 1)
        du = du + (part,)
    store_polynomial(du, along, dk, keys.u, r, b, kv, t, end, M)


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
        if M.degree:
            polynomial_query_gradients(
                queries, keys, X, g, dz, dq, b, h, kv, t, own, start, end, L, M, CAUSAL, T, TK
            )  # fmt: skip
        else:
            u, r = normalised(queries.u, b, h, t, end, M)
            du = zeros(T, M.DP if M.projects else 1)
            for first in range(0, M.B, M.BB):
                P, F = both_factors(queries, u, b, h, kv, t, end, first, M, True)
                dP, dF = across_back(P, F, g, dz, X, first, M)
                P, F = narrow(P, M), narrow(F, M)
                if CAUSAL:
                    for t0 in range(start, tl.minimum(own + T, end), TK):
                        j = t0 + tl.arange(0, TK)
                        uk, _ = normalised(keys.u, b, kv, j, end, M)
                        Pk, Fk = both_factors(keys, uk, b, kv, kv, j, end, first, M, False)
                        dA = score_gradients_of_keys(g, dz, keys, b, kv, t, j, end, L, M)
                        dP, dF = inside_back(dP, dF, P, F, Pk, Fk, dA, M)
                t, end, b, h, kv = fresh(t), fresh(end), fresh(b), fresh(h), fresh(kv)
                du = store_factors(
                    du, dP, dF, queries, da, db, b, h, kv, t, end, first, M, True
                )  # fmt: skip
            if M.projects:
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
        if M.degree:
            polynomial_key_gradients(
                queries, keys, X, dk, dv, b, kv, H, t, own, end, L, M, CAUSAL, G, T, TQ
            )  # fmt: skip
        else:
            there = keys_there(keys.padding, b, t, end, L)
            u, r = normalised(keys.u, b, kv, t, end, M)
            v = narrow(tile(keys.w, b, kv, t, end, M.E, M.EP), M)
            du, sums = zeros(T, M.DP if M.projects else 1), zeros(T, M.EP)
            one = tl.full((T,), 1.0, tl.float32)
            for first in range(0, M.B, M.BB):
                P, F = both_factors(keys, u, b, kv, kv, t, end, first, M, False)
                if M.values_first:
                    sums = across_values(sums, P, F, X, first, M)
                if CAUSAL and M.values_first:
                    for head in range(kv * G, kv * G + G):
                        for t0 in range(own // TQ * TQ, end, TQ):
                            j = t0 + tl.arange(0, TQ)
                            uq = normalised(queries.u, b, head, j, end, M)[0]
                            Pq, Fq = both_factors(queries, uq, b, head, kv, j, end, first, M, True)
                            later = there[:, None] & (j[None, :] >= t[:, None])
                            A = tl.where(later, scores(P, F, Pq, Fq, M), 0.0)
                            sums += dot(A, summand(queries, b, head, H, j, end, L, M, True)[0], M)
                    t, end, b, kv = fresh(t), fresh(end), fresh(b), fresh(kv)
                    u, r = normalised(keys.u, b, kv, t, end, M)
                    P, F = both_factors(keys, u, b, kv, kv, t, end, first, M, False)
                dP, dF = across_back(P, F, v, one, X, first, M)
                if not M.values_first:
                    sums = across_values(sums, P, F, X, first, M)
                P, F = narrow(P, M), narrow(F, M)
                if CAUSAL:
                    for head in range(kv * G, kv * G + G):
                        for t0 in range(own // TQ * TQ, end, TQ):
                            j = t0 + tl.arange(0, TQ)
                            uq = normalised(queries.u, b, head, j, end, M)[0]
                            Pq, Fq = both_factors(queries, uq, b, head, kv, j, end, first, M, True)
                            g, dz = summand(queries, b, head, H, j, end, L, M, True)
                            later = there[:, None] & (j[None, :] >= t[:, None])
                            if not M.values_first:
                                A = tl.where(later, scores(P, F, Pq, Fq, M), 0.0)
                                sums += dot(A, g, M)
                            dA = dot(v, tl.trans(narrow(g, M)), M) + dz[None, :]
                            dA = tl.where(later, dA, 0.0)
                            dP, dF = inside_back(dP, dF, P, F, Pq, Fq, dA, M)
                dP, dF = tl.where(there[:, None], dP, 0.0), tl.where(there[:, None], dF, 0.0)
                t, end, b, kv = fresh(t), fresh(end), fresh(b), fresh(kv)
                du = store_factors(
                    du, dP, dF, keys, da, db, b, kv, kv, t, end, first, M, False
                )  # fmt: skip
            if M.projects:
                u, r = normalised(keys.u, b, kv, t, end, M)
                du = tl.where(there[:, None], du, 0.0)
                put(dk, norm_back(du, u, r, M), b, kv, t, end, M.D, M.DP)
            put(dv, tl.where(there[:, None], sums, 0.0), b, kv, t, end, M.E, M.EP)
