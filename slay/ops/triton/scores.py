"""Scores of two blocks of tokens from their factors, and the slope of a polynomial score."""

from __future__ import annotations

import triton
import triton.language as tl

from slay.ops.triton.tiles import cast, fine_dot, load_tile, load_vector


@triton.jit
def inner(x, y, M: tl.constexpr):
    """x yᵀ of the factors of two blocks of tokens: (T, TO)."""
    if M.fine:
        s = fine_dot(x, tl.trans(y), M.precision)
    else:
        s = tl.dot(cast(x, M.dtype), tl.trans(cast(y, M.dtype)))
    return s


@triton.jit
def factors(side, at, M: tl.constexpr, T: tl.constexpr):
    """The first columns of F (all, unless it is very wide) and P: (T, score_width), (T, AP)."""
    f = load_tile(side.f, at, T, M.B, M.score_width)
    p = f
    if M.score == "product":
        p = load_tile(side.p, at, T, M.A, M.AP)
    return f, p


@triton.jit
def inner_products(
    f, p, fo, po, side, at, other, ato, M: tl.constexpr, T: tl.constexpr, TO: tl.constexpr
):
    """<F, F'> and <P, P'> of two blocks of tokens, whose `factors` are f, p and fo, po: (T, TO)."""
    x = inner(f, fo, M)
    for first in range(M.score_width, M.BP, M.score_width):
        more = load_tile(side.f, at, T, M.B, M.score_width, first)
        x += inner(more, load_tile(other.f, ato, TO, M.B, M.score_width, first), M)
    y = x
    if M.score == "product":
        y = inner(p, po, M)
    return x, y


@triton.jit
def score(x, y, M: tl.constexpr):
    """The score from x = <F, F'> and y = <P, P'>."""
    if M.score == "product":
        x *= y
    elif M.score == "polynomial":
        k = M.c2 * x + M.c1
        if M.degree == 3:
            k = (M.c3 * x + M.c2) * x + M.c1
        x = k * x + M.c0
    return x


@triton.jit
def slope(x, M: tl.constexpr):
    """c1 + 2 c2 x + 3 c3 x^2."""
    k = 2.0 * M.c2
    if M.degree == 3:
        k += 3.0 * M.c3 * x
    return k * x + M.c1


@triton.jit
def decayed(A, queries, at, keys, ato, kv, K, L, M: tl.constexpr, T: tl.constexpr,
            TO: tl.constexpr, KEYS_FIRST: tl.constexpr):  # fmt: skip
    """A_ij exp(G_i - G_j), which is at most A_ij; if `KEYS_FIRST` A's rows are the keys."""
    if queries.decay is not None:
        b, _, t0, end = at
        bo, _, j0, endo = ato
        own = load_vector(queries.decay, (b, kv, t0, end), K, L, T)
        other = load_vector(queries.decay, (bo, kv, j0, endo), K, L, TO)
        G = own[:, None] - other[None, :]
        if KEYS_FIRST:
            G = -G
        A *= tl.exp(tl.minimum(G, 0.0))
    return A
