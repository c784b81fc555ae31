"""Product of a block of tokens with a state, phi S and phi s, and its gradients.

Everything is a sum of small products of one shape, sum_a (p_a x) S_a with p_a a column of a factor
and S_a a few rows of the state, so that phi is never materialised:

    o = sum_a (p_a F) S_a,    dF = sum_a (p_a g) S_aᵀ,    dP = sum_b (f_b g) S_bᵀ,

and for polynomials, by symmetry,

    du_j = c1 S_j g + 2 c2 sum_a u_a S_aj g + 3 c3 sum_ab u_a u_b S_abj g.
"""

from __future__ import annotations

import triton
import triton.language as tl

from slay.ops.triton.chunk_state import pair, pair_product
from slay.ops.triton.tiles import cast, dot, fine_dot, load_column, load_tile, scaled, zeros


@triton.jit
def load_rows(S, row, M: tl.constexpr):
    """Load rows of S by index: (n, EP); row: (n,)."""
    return tl.load(S + row[:, None] * M.EP + tl.arange(0, M.EP)[None, :])


@triton.jit
def load_sums(s, first, n: tl.constexpr, m: tl.constexpr, stride):
    """Load n rows of m elements of s, `stride` apart: (n, m)."""
    i, j = tl.arange(0, n), tl.arange(0, m)
    return tl.load(s + first + i[:, None] * stride + j[None, :])


@triton.jit
def add_products(
    acc, x, source, at, S, row, step, first, last, WIDTH: tl.constexpr, TRANSPOSED: tl.constexpr,
    M: tl.constexpr, T: tl.constexpr,
):  # fmt: skip
    """acc + sum_a (p_a x) S_a over columns a = first, ..., last - 1 of a factor of that width.

    The rows of S_a are row + (a - first) step. x: (T, n) and acc: (T, EP), or if `TRANSPOSED`
    x: (T, EP), acc: (T, n), and S_aᵀ in place of S_a.
    """
    for a in range(first, last):
        p = load_column(source, at, a, T, WIDTH)
        part = load_rows(S, row + (a - first) * step, M)
        if TRANSPOSED:
            part = tl.trans(part)
        acc = dot(scaled(x, p, M), part, acc, M)
    return acc


@triton.jit
def add_cubic_products(acc, x, side, at, S, row, WEIGHT: tl.constexpr, TRANSPOSED: tl.constexpr,
                       M: tl.constexpr, T: tl.constexpr):  # fmt: skip
    """acc + `WEIGHT` sum_ij (u_i u_j x) S_ij over all pairs, of which j <= i are stored."""
    for g in range(M.pairs):
        i, j = pair(g)
        p = pair_product(side, at, g, M, T) * tl.where(i == j, WEIGHT, 2.0 * WEIGHT)
        part = load_rows(S, row + (M.square_groups + g) * M.W, M)
        if TRANSPOSED:
            part = tl.trans(part)
        acc = dot(scaled(x, p, M), part, acc, M)
    return acc


@triton.jit
def times(x, c: tl.constexpr, M: tl.constexpr):
    """c x, in the dtype of the large products."""
    return cast(x.to(tl.float32) * c, M.dtype)


@triton.jit
def read_state(side, S, at, M: tl.constexpr, T: tl.constexpr):
    """phi S of a block of tokens: (T, EP)."""
    o = zeros(T, M.EP)
    c = tl.arange(0, M.W)
    if M.score == "product":
        x = load_tile(side.f, at, T, M.B, M.W)
        o = add_products(o, x, side.p, at, S, c, M.W, 0, M.A, M.A, False, M, T)
    else:
        for J in range(M.blocks):
            x = load_tile(side.f, at, T, M.B, M.W, J * M.W)
            if M.score == "dense":
                o = dot(x, load_rows(S, J * M.W + c, M), o, M)
            else:
                o = read_block(o, x, side, S, at, J, M, T)
    if M.score == "polynomial":
        if M.degree == 3:
            x = load_tile(side.f, at, T, M.B, M.W)
            o = add_cubic_products(o, x, side, at, S, c, M.c3, False, M, T)
        constant = tl.load(S + (M.linear_row + M.BP) * M.EP + tl.arange(0, M.EP))
        o += M.c0 * constant.to(tl.float32)[None, :]
    return o


@triton.jit
def read_block(o, x, side, S, at, J, M: tl.constexpr, T: tl.constexpr):
    """Add to o the terms of block J of u, x: (T, W), with the columns of u up to its end."""
    c = tl.arange(0, M.W)
    row = M.W * M.W * J * (J + 1) // 2 + c
    o = dot(times(x, M.c1, M), load_rows(S, M.linear_row + J * M.W + c, M), o, M)
    before = times(x, 2.0 * M.c2, M)
    o = add_products(o, before, side.f, at, S, row, M.W, 0, J * M.W, M.B, False, M, T)
    row += M.W * M.W * J
    own, first, last = times(x, M.c2, M), J * M.W, (J + 1) * M.W
    return add_products(o, own, side.f, at, S, row, M.W, first, last, M.B, False, M, T)


@triton.jit
def square_sums(side, s, at, first, M: tl.constexpr, N: tl.constexpr, T: tl.constexpr):
    """N columns of u s2 from `first` on, where s2 = sum u uᵀ: (T, N)."""
    u = load_tile(side.f, at, T, M.B, M.BP)
    return fine_dot(u, load_sums(s, first, M.BP, N, M.BP), M.precision)


@triton.jit
def cubic_sums(side, s, at, M: tl.constexpr, T: tl.constexpr):
    """sum_ij u_i u_j s_ij: (T, W)."""
    acc = zeros(T, M.W)
    for g in range(M.pairs):
        i, j = pair(g)
        p = pair_product(side, at, g, M, T) * tl.where(i == j, 1.0, 2.0)
        acc += p[:, None] * load_sums(s, M.BP * M.BP + M.BP + 1 + g * M.W, 1, M.W, 1)
    return acc


@triton.jit
def read_sums(side, s, at, M: tl.constexpr, T: tl.constexpr):
    """phi s of a block of tokens: (T,)."""
    z = tl.zeros((T,), tl.float32)
    if M.score == "product":
        p = load_tile(side.p, at, T, M.A, M.AP)
        f = load_tile(side.f, at, T, M.B, M.W).to(tl.float32)
        z += tl.sum(f * fine_dot(p, load_sums(s, 0, M.AP, M.W, M.W), M.precision), 1)
    else:
        for J in range(M.blocks):
            x = load_tile(side.f, at, T, M.B, M.W, J * M.W).to(tl.float32)
            if M.score == "dense":
                z += tl.sum(x * load_sums(s, J * M.W, 1, M.W, 1), 1)
            else:
                linear = load_sums(s, M.BP * M.BP + J * M.W, 1, M.W, 1)
                square = square_sums(side, s, at, J * M.W, M, M.W, T)
                z += tl.sum(x * (M.c2 * square + M.c1 * linear), 1)
    if M.score == "polynomial":
        if M.degree == 3:
            x = load_tile(side.f, at, T, M.B, M.W).to(tl.float32)
            z += M.c3 * tl.sum(x * cubic_sums(side, s, at, M, T), 1)
        z += M.c0 * tl.load(s + M.BP * M.BP + M.BP)
    return z


@triton.jit
def read_state_bwd(dF, side, S, s, at, g, dz, first, M: tl.constexpr, N: tl.constexpr,
                   T: tl.constexpr):  # fmt: skip
    """Add to dF: (T, N), columns `first`..., the gradient of phi S g + phi s dz.

    g: (T, EP), dz: (T,).
    """
    c = tl.arange(0, N)
    if M.score == "product":
        dF = add_products(dF, g, side.p, at, S, c, M.W, 0, M.A, M.A, True, M, T)
        p = load_tile(side.p, at, T, M.A, M.AP)
        dF += dz[:, None] * fine_dot(p, load_sums(s, 0, M.AP, M.W, M.W), M.precision)
    elif M.score == "dense":
        dF = dot(g, tl.trans(load_rows(S, first + c, M)), dF, M)
        dF += dz[:, None] * load_sums(s, first, 1, N, 1)
    else:
        dF = read_polynomial_bwd(dF, side, S, at, g, first, M, N, T)
        linear = load_sums(s, M.BP * M.BP + first, 1, N, 1)
        square = square_sums(side, s, at, first, M, N, T)
        dF += dz[:, None] * (2.0 * M.c2 * square + M.c1 * linear)
        if M.degree == 3:
            dF += (3.0 * M.c3 * dz)[:, None] * cubic_sums(side, s, at, M, T)
    return dF


@triton.jit
def read_polynomial_bwd(dF, side, S, at, g, first, M: tl.constexpr, N: tl.constexpr,
                        T: tl.constexpr):  # fmt: skip
    """Add to dF 2 c2 sum_a (u_a g) S_ajᵀ and similar terms, for N columns j from `first` on."""
    j = first + tl.arange(0, N)
    J = j // M.W
    dF = dot(times(g, M.c1, M), tl.trans(load_rows(S, M.linear_row + j, M)), dF, M)
    twice = times(g, 2.0 * M.c2, M)
    for i in range(M.blocks):
        # Rows (a, j) for a in block i; if that comes after block J, they are stored as (j, a).
        own = M.W * M.W * (J * (J + 1) // 2 + i) + j - J * M.W
        row = tl.where(i <= J, own, M.W * M.W * (i * (i + 1) // 2) + j * M.W)
        step = tl.where(i <= J, M.W, 1)
        a = i * M.W
        dF = add_products(dF, twice, side.f, at, S, row, step, a, a + M.W, M.B, True, M, T)
    if M.degree == 3:
        dF = add_cubic_products(dF, g, side, at, S, j, 3.0 * M.c3, True, M, T)
    return dF


@triton.jit
def read_product_bwd(dP, side, S, s, at, g, dz, M: tl.constexpr, T: tl.constexpr):
    """Add to dP: (T, AP) the gradient of phi S g + phi s dz."""
    # Columns beyond A read the rows of A - 1; their results are not stored.
    a = tl.minimum(tl.arange(0, M.AP), M.A - 1)
    dP = add_products(dP, g, side.f, at, S, a * M.W, 1, 0, M.B, M.B, True, M, T)
    f = load_tile(side.f, at, T, M.B, M.W)
    sums = tl.trans(load_sums(s, 0, M.AP, M.W, M.W))
    return dP + dz[:, None] * fine_dot(f, sums, M.precision)
