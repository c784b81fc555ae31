"""Triton kernels for the states between chunks: S = sum phi(k_j) v_jᵀ and s = sum phi(k_j).

`chunk_states` sums over a chunk of tokens, `scan_states` over the chunks before each. On the way
back the same kernels sum phi(q_i) [do_i / z_i, dz_i] over the chunks after, with the coefficients
of a polynomial, so that they are gradients of S and s. A state is laid out as
`Map` says: rows of S, then s. For polynomials of x = q·k its rows are u (x) u without what symmetry
gives, u, 1 and, for cubics, u_i u_j (x) u with j <= i.
"""

from __future__ import annotations

from typing import NamedTuple

import triton
import triton.language as tl
from torch import Tensor

from slay.ops.triton_maps import (
    DELTA,
    Factor,
    Rows,
    a_of,
    b_of,
    beside,
    column,
    cross_weight,
    dot,
    inverse_norm,
    narrow,
    pair,
    tile,
    zeros,
)


class Side(NamedTuple):
    """Keys with their values, or queries with the gradients of their outputs."""

    u: Rows
    w: Rows  # v, or do
    z: Tensor | None  # (B, H, Lq) float32, of queries, and so is
    dz: Tensor | None
    a: Factor
    b: Factor
    padding: Tensor | None  # (B, Lk) bytes, 1 for keys that are not there
    spans: Tensor | None  # (N, 3) int32: the chunks of packed sequences, and which they are of


@triton.jit
def span(spans, n, C, L):
    """First token of chunk n, and the one after its last."""
    if spans is None:
        start, end = n * C, tl.minimum(n * C + C, L)
    else:
        start, end = tl.load(spans + 3 * n), tl.load(spans + 3 * n + 1)
    return start, end


@triton.jit
def state_of(X, spans, b, kv, K, n, states, CAUSAL: tl.constexpr, M: tl.constexpr):
    """The state that chunk n looks at: its own, or if not `CAUSAL` its sequence's."""
    if not CAUSAL:
        if spans is None:
            n *= 0
        else:
            n = tl.load(spans + 3 * n + 2)
    return X + ((b * K + kv).to(tl.int64) * states + n) * M.state


@triton.jit
def keys_there(padding, b, t, end, L):
    """Which keys count: those of the chunk that are no padding: (T,)."""
    there = t < end
    if padding is not None:
        there &= tl.load(padding + b * L + t, mask=there, other=1) == 0
    return there


@triton.jit
def divisor(z):
    """sign(z) max(|z|, DELTA)."""
    return tl.where(tl.abs(z) < DELTA, tl.where(z < 0.0, -DELTA, DELTA), z)


@triton.jit
def summand(side, b, h, H, t, end, L, M: tl.constexpr, QUERY: tl.constexpr):
    """What features are multiplied by: v and 1, or do / z and dz: (T, EP), (T,)."""
    w = tile(side.w, b, h, t, end, M.E, M.EP)
    if QUERY:
        row = (b * H + h) * L + t
        z = tl.load(side.z + row, mask=t < end, other=1.0)
        w = narrow(w.to(tl.float32) / divisor(z)[:, None], M)
        one = tl.load(side.dz + row, mask=t < end, other=0.0)
    else:
        one = tl.where(keys_there(side.padding, b, t, end, L), 1.0, 0.0)
    return w, one


@triton.jit
def normalised(x, b, h, t, end, M: tl.constexpr):
    """u and 1 / ‖u‖ of tokens: (T, DP), (T,)."""
    u = tile(x, b, h, t, end, M.D, M.DP).to(tl.float32)
    r = inverse_norm(u, M)
    return u * r[:, None], r


@triton.jit
def group(P, a, WP: tl.constexpr, CUBIC: tl.constexpr, QUERY: tl.constexpr):
    """Column a of P, or u_i u_j of the a-th pair: (T, 1)."""
    if CUBIC:
        i, j = pair(a)
        weight = tl.where((i != j) & QUERY, 2.0, 1.0)  # (j, i) is left out
        p = weight * column(P, i, WP) * column(P, j, WP)
    else:
        p = column(P, a, WP)
    return p


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
def groups(
    P, F, a, WP: tl.constexpr, BB: tl.constexpr, J: tl.constexpr, CUBIC: tl.constexpr,
    QUERY: tl.constexpr,
):  # fmt: skip
    """[p_a F | p_(a+1) F | ...], J of them: (T, J BB)."""
    x = F * group(P, a, WP, CUBIC, QUERY)
    if J >= 2:
        x = beside(x, F * group(P, a + 1, WP, CUBIC, QUERY), 2 * BB)
    if J == 4:
        y = F * group(P, a + 2, WP, CUBIC, QUERY)
        y = beside(y, F * group(P, a + 3, WP, CUBIC, QUERY), 2 * BB)
        x = beside(x, y, 4 * BB)
    return x


@triton.jit
def factors(
    side, b, h, kv, t, end, L, first, HALF: tl.constexpr, M: tl.constexpr, QUERY: tl.constexpr
):
    """P, of which groups are taken, and F, by which they are multiplied, of a block of tokens.

    For polynomials both are u; with `HALF`, F is its second half.
    """
    u, r = normalised(side.u, b, h, t, end, M)
    if M.degree == 0:
        P, F = u, b_of(u, side, b, h, kv, t, end, first, M, QUERY)[0]
        if M.a != "none":
            P, _, _ = a_of(u, side, b, h, kv, t, end, M)
    elif HALF:
        P = u
        F = tile(side.u, b, h, t, end, M.D, M.D - M.half, M.half).to(tl.float32) * r[:, None]
    else:
        P, F = u, u * cross_weight(M, QUERY)
    if not QUERY:
        F = tl.where(keys_there(side.padding, b, t, end, L)[:, None], F, 0.0)
    return P, F


@triton.jit
def outer_sums(
    side, X, b, kv, H, start, end, L, row, BW, a0, A,
    M: tl.constexpr, QUERY: tl.constexpr, G: tl.constexpr, T: tl.constexpr, WP: tl.constexpr,
    BB: tl.constexpr, HALF: tl.constexpr, CUBIC: tl.constexpr,
):  # fmt: skip
    """Rows of S for groups a0, a0 + 1, ... below A, in ACC tiles of 64 rows or more each.

    The rows of group a, `BW` of them, start at `row` + a `BW`.
    """
    J: tl.constexpr = 64 // BB if BB < 64 else 1
    ACC: tl.constexpr = M.tiles
    m, e = tl.arange(0, J * BB), tl.arange(0, M.EP)
    sums = ()
    for _ in tl.static_range(ACC):
        sums = sums + (zeros(J * BB, M.EP),)
    ones = ()
    for _ in tl.static_range(ACC if CUBIC else 0):
        ones = ones + (zeros(J * BB, 16),)
    for g in range(G):
        h = kv * G + g
        for t0 in range(start, end, T):
            t = t0 + tl.arange(0, T)
            P, F = factors(side, b, h, kv, t, end, L, 0, HALF, M, QUERY)
            w, one = summand(side, b, h, H, t, end, L, M, QUERY)
            new, new_ones = (), ()
            for i in tl.static_range(ACC):
                phi = narrow(groups(P, F, a0 + i * J, WP, BB, J, CUBIC, QUERY), M)
                new = new + (sums[i] + dot(tl.trans(phi), w, M),)
                if CUBIC:
                    column0 = one[:, None] * one_hot16(0)
                    new_ones = new_ones + (ones[i] + dot(tl.trans(phi), column0, M),)
            sums, ones = new, new_ones
    for i in tl.static_range(ACC):
        a, c = a0 + i * J + m // BB, m % BB
        there = (a < A) & (c < BW)
        p = X + (row + a * BW + c)[:, None] * M.E + e[None, :]
        scale = 1.0
        if M.degree:
            scale = (M.c3 if CUBIC else M.c2) if QUERY else 1.0
        tl.store(p, sums[i] * scale, mask=there[:, None] & (e < M.E)[None, :])
        if CUBIC:
            p = X + M.rows * M.E + M.cubic_sums + a * BW + c
            tl.store(p, tl.sum(ones[i], 1) * scale, mask=there)


@triton.jit
def one_hot16(a):
    return (tl.arange(0, 16) == a)[None, :].to(tl.float32)


@triton.jit
def dense_sums(
    side, X, b, kv, H, start, end, L, first,
    M: tl.constexpr, QUERY: tl.constexpr, G: tl.constexpr, T: tl.constexpr,
):  # fmt: skip
    """A block of b's rows of S and s."""
    m, e = first + tl.arange(0, M.BB), tl.arange(0, M.EP)
    S, s = zeros(M.BB, M.EP), zeros(T, M.BB)
    for g in range(G):
        h = kv * G + g
        for t0 in range(start, end, T):
            t = t0 + tl.arange(0, T)
            _, F = factors(side, b, h, kv, t, end, L, first, False, M, QUERY)
            w, one = summand(side, b, h, H, t, end, L, M, QUERY)
            S += dot(tl.trans(narrow(F, M)), w, M)
            s += F * one[:, None]
    p = X + m[:, None] * M.E + e[None, :]
    tl.store(p, S, mask=(m < M.B)[:, None] & (e < M.E)[None, :])
    tl.store(X + M.rows * M.E + m, tl.sum(s, 0), mask=m < M.B)


@triton.jit
def normaliser_sums(
    side, X, b, kv, H, start, end, L,
    M: tl.constexpr, QUERY: tl.constexpr, G: tl.constexpr, T: tl.constexpr,
):  # fmt: skip
    """s = Pᵀ F of a product; of a polynomial uᵀ u, and the sums of u and of 1."""
    AP: tl.constexpr = M.DP if M.degree else M.AP
    BB: tl.constexpr = M.DP if M.degree else M.BB
    A: tl.constexpr = M.D if M.degree else M.A
    B: tl.constexpr = M.D if M.degree else M.B
    s, s1, s0 = zeros(AP, BB), zeros(T, AP), 0.0
    for g in range(G):
        h = kv * G + g
        for t0 in range(start, end, T):
            t = t0 + tl.arange(0, T)
            P, F = factors(side, b, h, kv, t, end, L, 0, False, M, QUERY)
            _, one = summand(side, b, h, H, t, end, L, M, QUERY)
            weighted = P * one[:, None]
            if M.degree:
                F = P
                s1 += weighted
                s0 += tl.sum(one, 0)
            s += dot(tl.trans(weighted), F, M)
    a, c = tl.arange(0, AP), tl.arange(0, BB)
    X += M.rows * M.E
    if M.degree:
        s *= M.c2 if QUERY else 1.0
        tl.store(X + M.D * M.D + a, tl.sum(s1, 0) * (M.c1 if QUERY else 1.0), mask=a < M.D)
        tl.store(X + M.D * M.D + M.D, s0 * (M.c0 if QUERY else 1.0))
    tl.store(X + a[:, None] * B + c[None, :], s, mask=(a < A)[:, None] & (c < B)[None, :])


@triton.jit
def linear_sums(
    side, X, b, kv, H, start, end, L,
    M: tl.constexpr, QUERY: tl.constexpr, G: tl.constexpr, T: tl.constexpr,
):  # fmt: skip
    """A polynomial's rows of S for u and for 1."""
    S1, S0 = zeros(M.DP, M.EP), zeros(T, M.EP)
    for g in range(G):
        h = kv * G + g
        for t0 in range(start, end, T):
            t = t0 + tl.arange(0, T)
            u, _ = normalised(side.u, b, h, t, end, M)
            w, _ = summand(side, b, h, H, t, end, L, M, QUERY)
            there = keys_there(side.padding, b, t, end, L)
            w = tl.where(there[:, None], w, 0.0)
            S1 += dot(tl.trans(u), w, M)
            S0 += w.to(tl.float32)
    d, e = tl.arange(0, M.DP), tl.arange(0, M.EP)
    X += M.linear_row * M.E
    S1, S0 = S1 * (M.c1 if QUERY else 1.0), S0 * (M.c0 if QUERY else 1.0)
    tl.store(X + d[:, None] * M.E + e[None, :], S1, mask=(d < M.D)[:, None] & (e < M.E)[None, :])
    tl.store(X + M.D * M.E + e, tl.sum(S0, 0), mask=e < M.E)


@triton.jit
def chunk_states(
    side, X, L, C, chunks, H, K, M: tl.constexpr, QUERY: tl.constexpr, G: tl.constexpr,
    T: tl.constexpr,
):  # fmt: skip
    """The state of every chunk alone; grid (`Map.programs`, chunks, B K).

    X: (B K, chunks, `Map.state`).
    """
    f, n, bk = tl.program_id(0), tl.program_id(1), tl.program_id(2)
    b, kv = bk // K, bk % K
    start, end = span(side.spans, n, C, L)
    X += (bk.to(tl.int64) * chunks + n) * M.state
    if M.degree == 0 and M.a == "none":
        dense_sums(side, X, b, kv, H, start, end, L, f * M.BB, M, QUERY, G, T)
    elif f == M.programs - 1:
        normaliser_sums(side, X, b, kv, H, start, end, L, M, QUERY, G, T)
    elif M.degree != 0 and f == M.programs - 2:
        linear_sums(side, X, b, kv, H, start, end, L, M, QUERY, G, T)
    elif M.degree == 0:
        outer_sums(
            side, X, b, kv, H, start, end, L, 0, M.B, f * M.groups, M.A,
            M, QUERY, G, T, M.AP, M.BB, False, False,
        )  # fmt: skip
    elif f < M.whole_programs:
        outer_sums(
            side, X, b, kv, H, start, end, L, 0, M.D, f * M.groups, M.half,
            M, QUERY, G, T, M.DP, M.DP, False, False,
        )  # fmt: skip
    elif f < M.whole_programs + M.half_programs:
        if M.half < M.D:
            a0 = M.half + (f - M.whole_programs) * M.half_groups
            row = M.half * M.D - M.half * (M.D - M.half)
            outer_sums(
                side, X, b, kv, H, start, end, L, row, M.D - M.half, a0, M.D,
                M, QUERY, G, T, M.DP, M.D - M.half, True, False,
            )  # fmt: skip
    else:
        if M.degree == 3:
            a0 = (f - M.whole_programs - M.half_programs) * M.groups
            outer_sums(
                side, X, b, kv, H, start, end, L, M.cubic_row, M.D, a0, M.pairs,
                M, QUERY, G, T, M.DP, M.DP, False, True,
            )  # fmt: skip


@triton.jit
def scan_states(
    X, initial, final, runs, chunks, sequences, N,
    REVERSE: tl.constexpr, W: tl.constexpr,
):  # fmt: skip
    """Each chunk's state becomes the sum of those before it (after it if `REVERSE`), in place.

    X: (B K, chunks, N). Chunks runs[i] to runs[i + 1] are sequence i, whose sum starts from
    `initial` and is stored to `final`: (B K, sequences, N). Grid (blocks of N, sequences, B K).
    """
    c = tl.program_id(0) * W + tl.arange(0, W)
    sequence, bk = tl.program_id(1), tl.program_id(2).to(tl.int64)
    there = c < N
    place = (bk * sequences + sequence) * N + c
    total = tl.zeros((W,), tl.float32)
    if initial is not None:
        total = tl.load(initial + place, mask=there, other=0.0)
    first, last = 0, chunks
    if runs is not None:
        first, last = tl.load(runs + sequence), tl.load(runs + sequence + 1)
    for i in range(first, last):
        n = first + last - 1 - i if REVERSE else i
        p = X + (bk * chunks + n) * N + c
        own = tl.load(p, mask=there, other=0.0)
        tl.store(p, total, mask=there)
        total += own
    if final is not None:
        tl.store(final + place, total, mask=there)
