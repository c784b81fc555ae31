"""Triton kernels for the gradients of linear attention with respect to its factors and values.

With g = do / z and dz = -(do·y) / z, a score's gradient is dA = tril(g vᵀ + dz 1ᵀ), and inside a
chunk

    dF_q = (dA ∘ P_q P_kᵀ) F_k,    dP_q = (dA ∘ F_q F_kᵀ) P_k,    dv = Aᵀ g,

likewise for keys; a polynomial score has its slope in place of P_q P_kᵀ. Contributions through the
state are in `read_state`: queries read the state before their chunk, keys the gradient of the state
after it. Every row is written by one program, with a fixed summation order.

The gradient of a decay G needs one more value per key: the weights of a query sum to a constant, so
that only the sum over a key's weights remains, dG_j = -(v_j·dv_j + sum_i A_ij dz_i).
"""

from __future__ import annotations

from collections.abc import Callable

import triton
import triton.language as tl

from slay.ops.triton.chunk_output import state_of, state_weight
from slay.ops.triton.chunk_state import weighed
from slay.ops.triton.configs import Config, Kernel, widths
from slay.ops.triton.read_state import read_product_bwd, read_state, read_state_bwd, read_sums
from slay.ops.triton.scores import decayed, factors, inner_products, score, slope
from slay.ops.triton.tiles import (
    cast,
    divisor,
    dot,
    kept,
    load_tile,
    load_vector,
    own_block,
    store_tile,
    store_vector,
    zeros,
)


@triton.jit
def columns(f, side, at, first, M: tl.constexpr, N: tl.constexpr, T: tl.constexpr):
    """Columns `first`... of F: (T, N); f itself if it already holds all of them."""
    if M.BP != N:
        f = load_tile(side.f, at, T, M.B, N, first)
    return f


@triton.jit
def add_inside(dF, dP, x, y, dA, f, p, M: tl.constexpr):
    """Add to dF and dP from dA: (T, TO), where f and p are the other tokens' factors."""
    if M.score == "product":
        dP = dot(dA * x, p, dP, M)
        dF = dot(dA * y, f, dF, M)
    elif M.score == "polynomial":
        dF = dot(dA * slope(x, M), f, dF, M)
    else:
        dF = dot(dA, f, dF, M)
    return dF, dP


@triton.jit
def add_keys_bwd(
    dF, dP, f, p, g, dz, queries, at, keys, kv, K, lo, hi, end, L, first,
    M: tl.constexpr, N: tl.constexpr, T: tl.constexpr, TK: tl.constexpr, CAUSAL: tl.constexpr,
):  # fmt: skip
    """Add keys lo, ..., hi - 1 to dF: (T, N), columns `first`..., and dP of queries."""
    b, _, t0, _ = at
    for j0 in range(lo, hi, TK):
        ato = (b, kv, j0, end)
        v = cast(load_tile(keys.w, ato, TK, M.E, M.EP), M.dtype)
        there = kept(keys.padding, ato, L, TK)
        if keys.padding is not None:
            v = tl.where(there[:, None], v, 0.0)
        dA = tl.dot(g, tl.trans(v), input_precision=M.precision) + dz[:, None]
        fk, pk = factors(keys, ato, M, TK)
        x, y = dA, dA
        if M.score != "dense":
            x, y = inner_products(f, p, fk, pk, queries, at, keys, ato, M, T, TK)
        dA = decayed(dA, queries, at, keys, ato, kv, K, L, M, T, TK, False)
        seen = there[None, :]
        if CAUSAL:
            seen &= (j0 + tl.arange(0, TK))[None, :] <= (t0 + tl.arange(0, T))[:, None]
        dA = tl.where(seen, dA, 0.0)
        other = columns(fk, keys, ato, first, M, N, TK)
        dF, dP = add_inside(dF, dP, x, y, dA, other, pk, M)
    return dF, dP


@triton.jit
def add_queries_bwd(
    dF, dP, dv, dG, f, p, v, keys, at, queries, h, kv, H, K, lo, hi, end, L, first,
    M: tl.constexpr, N: tl.constexpr, T: tl.constexpr, TQ: tl.constexpr, CAUSAL: tl.constexpr,
):  # fmt: skip
    """Add queries lo, ..., hi - 1 of head h to dF: (T, N), dP, dv and dG of keys."""
    b, _, t0, _ = at
    for i0 in range(lo, hi, TQ):
        ato = (b, h, i0, end)
        g = load_tile(queries.w, ato, TQ, M.E, M.EP)
        dz = load_vector(queries.one, ato, H, L, TQ)
        fq, pq = factors(queries, ato, M, TQ)
        x, y = inner_products(f, p, fq, pq, keys, at, queries, ato, M, T, TQ)
        seen = (i0 + tl.arange(0, TQ) < end)[None, :]
        if CAUSAL:
            seen &= (i0 + tl.arange(0, TQ))[None, :] >= (t0 + tl.arange(0, T))[:, None]
        if first == 0:
            A = decayed(score(x, y, M), keys, at, queries, ato, kv, K, L, M, T, TQ, True)
            A = tl.where(seen, A, 0.0)
            dv = dot(A, g, dv, M)
            if keys.decay is not None:
                dG += tl.sum(A * dz[None, :], 1)
        dA = tl.dot(v, tl.trans(cast(g, M.dtype)), input_precision=M.precision) + dz[None, :]
        dA = decayed(dA, keys, at, queries, ato, kv, K, L, M, T, TQ, True)
        dA = tl.where(seen, dA, 0.0)
        other = columns(fq, queries, ato, first, M, N, TQ)
        dF, dP = add_inside(dF, dP, x, y, dA, other, pq, M)
    return dF, dP, dv, dG


@triton.jit(do_not_specialize=["Lq", "Lk", "chunks", "states", "H", "K"])
def query_bwd(
    # pointers
    queries, keys, S, s, y, z, g_out, dz_out, dF_out, dP_out,
    # sizes
    Lq, Lk, C, chunks, states, H, K,
    # constants
    M: tl.constexpr, CAUSAL: tl.constexpr, INSIDE: tl.constexpr,
    T: tl.constexpr, TK: tl.constexpr,
):  # fmt: skip
    """dF and dP of a block of queries, g and dz; grid and states as in `chunk_output`.

    queries.w is do. g: (B, H, L, E) in the dtype of the large products; dz: (B, H, L) float32.
    """
    pid = tl.program_id(0)
    b, h, n, t0, start, end = own_block(queries.spans, pid, chunks, C, Lq, H, T, True)
    kv = h // (H // K)
    if t0 < end:
        at = (b, h, t0, end)
        do = load_tile(queries.w, at, T, M.E, M.EP).to(tl.float32)
        total = load_vector(z, at, H, Lq, T, 1.0)
        along = tl.sum(do * load_tile(y, at, T, M.E, M.EP).to(tl.float32), 1)
        dz = -along / divisor(total)
        g = cast(do / divisor(total)[:, None], M.dtype)
        store_tile(g_out, g, at, T, M.E, M.EP)
        store_vector(dz_out, dz, at, H, Lq, T)
        lo, hi, end_k = start, tl.minimum(t0 + T, end), end
        if not CAUSAL:
            hi = end
            if keys.spans is None:
                lo, hi, end_k = 0, Lk, Lk
        N: tl.constexpr = M.gradient_width
        for first in range(0, M.BP, N):
            dF, dP = zeros(T, N), zeros(T, M.AP)
            if S is not None:
                X = state_of(S, queries.spans, b * K + kv, n, states, M.rows * M.EP, CAUSAL)
                x = state_of(s, queries.spans, b * K + kv, n, states, M.sums, CAUSAL)
                own, own_z = g, dz
                if queries.decay is not None:
                    weight = state_weight(queries.decay, at, kv, K, Lq, T)
                    own, own_z = cast(g * weight[:, None], M.dtype), dz * weight
                dF = read_state_bwd(dF, queries, X, x, at, own, own_z, first, M, N, T)
                if M.score == "product":
                    dP = read_product_bwd(dP, queries, X, x, at, own, own_z, M, T)
            if INSIDE:
                f, p = factors(queries, at, M, T)
                dF, dP = add_keys_bwd(
                    dF, dP, f, p, g, dz, queries, at, keys, kv, K, lo, hi, end_k, Lk, first,
                    M, N, T, TK, CAUSAL,
                )  # fmt: skip
            store_tile(dF_out, dF, at, T, M.B, N, first)
            if M.score == "product":
                store_tile(dP_out, dP, at, T, M.A, M.AP)


@triton.jit(do_not_specialize=["Lq", "Lk", "chunks", "states", "H", "K"])
def key_bwd(
    # pointers
    keys, queries, dS, ds, dF_out, dP_out, dv_out, dG_out,
    # sizes
    Lq, Lk, C, chunks, states, H, K,
    # constants
    M: tl.constexpr, CAUSAL: tl.constexpr, INSIDE: tl.constexpr, G: tl.constexpr,
    T: tl.constexpr, TQ: tl.constexpr,
):  # fmt: skip
    """dF, dP, dv of a block of keys, and dG; grid (blocks x B K,).

    queries.w is g, queries.one is dz. dS, ds: gradients of the state after every chunk or, unless
    `CAUSAL`, of every sequence's state. dG: (B, K, L) float32, if there is a decay.
    """
    pid = tl.program_id(0)
    b, kv, n, t0, start, end = own_block(keys.spans, pid, chunks, C, Lk, K, T, False)
    if t0 < end:
        at = (b, kv, t0, end)
        there = kept(keys.padding, at, Lk, T)
        v = cast(load_tile(keys.w, at, T, M.E, M.EP), M.dtype)
        if keys.padding is not None:
            v = tl.where(there[:, None], v, 0.0)
        dv, dG = zeros(T, M.EP), tl.zeros((T,), tl.float32)
        lo, hi = t0, end
        if not CAUSAL:
            lo = start
            if keys.spans is None:
                lo, hi = 0, Lq
        N: tl.constexpr = M.gradient_width
        for first in range(0, M.BP, N):
            dF, dP = zeros(T, N), zeros(T, M.AP)
            if dS is not None:
                X = state_of(dS, keys.spans, b * K + kv, n, states, M.rows * M.EP, CAUSAL)
                x = state_of(ds, keys.spans, b * K + kv, n, states, M.sums, CAUSAL)
                w, one = weighed(keys, at, kv, H, K, Lk, M, False, T)
                dF = read_state_bwd(dF, keys, X, x, at, w, one, first, M, N, T)
                if M.score == "product":
                    dP = read_product_bwd(dP, keys, X, x, at, w, one, M, T)
                if first == 0:
                    dv = read_state(keys, X, at, M, T)
                    if keys.decay is not None:
                        dv *= one[:, None]
                        dG = read_sums(keys, x, at, M, T) * one
            if INSIDE:
                f, p = factors(keys, at, M, T)
                for head in range(kv * G, kv * G + G):
                    dF, dP, dv, dG = add_queries_bwd(
                        dF, dP, dv, dG, f, p, v, keys, at, queries, head, kv, H, K, lo, hi, hi,
                        Lq, first, M, N, T, TQ, CAUSAL,
                    )  # fmt: skip
            store_tile(dF_out, tl.where(there[:, None], dF, 0.0), at, T, M.B, N, first)
            if M.score == "product":
                store_tile(dP_out, tl.where(there[:, None], dP, 0.0), at, T, M.A, M.AP)
            if first == 0:
                dv = tl.where(there[:, None], dv, 0.0)
                store_tile(dv_out, dv, at, T, M.E, M.EP)
                if keys.decay is not None:
                    dG += tl.sum(dv * v.to(tl.float32), 1)
                    store_vector(dG_out, tl.where(there, -dG, 0.0), at, K, Lk, T)


def _configs(
    other: str, sizes: dict[int, list[tuple[int, int, int, int]]]
) -> Callable[[str], list[Config]]:
    """Candidates by width, from (warps, stages, T, other tile); float32 uses small tiles."""

    def candidates(key: str) -> list[Config]:
        width = min(128, max(32, *widths(key)))
        some = sizes[width]
        if key.endswith("fp32"):
            some = [(8 if width == 128 else 4, 1, 16, 16)]
        return [Config(warps, stages, (("T", T), (other, TO))) for warps, stages, T, TO in some]

    return candidates


_QUERY = {
    32: [(2, 2, 64, 16), (2, 2, 32, 32), (4, 2, 64, 32)],
    64: [(2, 2, 32, 32), (4, 2, 64, 32), (8, 2, 128, 32)],
    128: [(2, 1, 16, 16), (4, 1, 32, 16), (8, 1, 32, 16)],
}
_KEY = {
    32: [(2, 1, 64, 16), (2, 2, 32, 32), (4, 2, 64, 32)],
    64: [(2, 2, 16, 32), (4, 2, 64, 32), (8, 2, 128, 32)],
    128: [(2, 1, 16, 16), (4, 1, 32, 16)],
}
query_kernel = Kernel(query_bwd, _configs("TK", _QUERY))
key_kernel = Kernel(key_bwd, _configs("TQ", _KEY))
