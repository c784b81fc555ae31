"""Triton kernel for the outputs of linear attention: inter-chunk (state) and intra-chunk parts.

    o = phi(q) S + A v,    z = phi(q) s + A 1,    y = o / z,

where A = tril(score(q_i, k_j)) over the keys of the same chunk. If a sequence is a single chunk
there is no state before it, and this is tiled attention without a state. With a decay, A_ij is
weighted by exp(G_i - G_j) and the state by exp(G_i).
"""

from __future__ import annotations

import triton
import triton.language as tl

from slay.ops.triton.configs import Config, Kernel, widths
from slay.ops.triton.read_state import read_state, read_sums
from slay.ops.triton.scores import decayed, factors, inner_products, score
from slay.ops.triton.tiles import (
    cast,
    divisor,
    dot,
    kept,
    load_tile,
    load_vector,
    own_block,
    saturating_cast,
    store_tile,
    store_vector,
    zeros,
)


@triton.jit
def state_of(X, spans, bk, n, states, size: tl.constexpr, CAUSAL: tl.constexpr):
    """State that chunk n reads: the one before it, or its sequence's unless `CAUSAL`."""
    if not CAUSAL:
        if spans is None:
            n = n * 0
        else:
            n = tl.load(spans + 3 * n + 2)
    return X + (bk.to(tl.int64) * states + n) * size


@triton.jit
def state_weight(decay, at, kv, K, L, T: tl.constexpr):
    """exp(G_i), the weight of the state before a chunk: (T,)."""
    b, _, t0, end = at
    return tl.exp(tl.minimum(load_vector(decay, (b, kv, t0, end), K, L, T), 0.0))


@triton.jit
def add_keys(
    o, z, f, p, queries, at, keys, kv, K, lo, hi, end, L,
    M: tl.constexpr, T: tl.constexpr, TK: tl.constexpr, MASK: tl.constexpr,
):  # fmt: skip
    """Add keys lo, ..., hi - 1 of the same chunk to o and z; `MASK` applies the causal mask.

    z sums the scores as rounded for the product with v, so that the weights sum to 1.
    """
    b, _, t0, _ = at
    for j0 in range(lo, hi, TK):
        ato = (b, kv, j0, end)
        fk, pk = factors(keys, ato, M, TK)
        x, y = inner_products(f, p, fk, pk, queries, at, keys, ato, M, T, TK)
        A = decayed(score(x, y, M), queries, at, keys, ato, kv, K, L, M, T, TK, False)
        there = kept(keys.padding, ato, L, TK)[None, :]
        if MASK:
            there &= (j0 + tl.arange(0, TK))[None, :] <= (t0 + tl.arange(0, T))[:, None]
        A = cast(tl.where(there, A, 0.0), M.dtype)
        z += tl.sum(A.to(tl.float32), 1)
        v = cast(load_tile(keys.w, ato, TK, M.E, M.EP), M.dtype)
        if keys.padding is not None:
            v = tl.where(kept(keys.padding, ato, L, TK)[:, None], v, 0.0)
        o = dot(A, v, o, M)
    return o, z


@triton.jit(do_not_specialize=["Lq", "Lk", "chunks", "states", "H", "K"])
def chunk_output(
    # pointers
    queries, keys, S, s, y, z_out,
    # sizes
    Lq, Lk, C, chunks, states, H, K,
    # constants
    M: tl.constexpr, CAUSAL: tl.constexpr, INSIDE: tl.constexpr,
    T: tl.constexpr, TK: tl.constexpr,
):  # fmt: skip
    """y and z of a block of queries; grid (blocks x B H,), longest blocks first.

    S: (B K, states, rows, EP) and s: (B K, states, sums), before every chunk or, unless `CAUSAL`,
    of every sequence; None without an earlier state. `INSIDE`: include keys of the same chunk.
    y: (B, H, L, E); z: (B, H, L) float32.
    """
    pid = tl.program_id(0)
    b, h, n, t0, start, end = own_block(queries.spans, pid, chunks, C, Lq, H, T, True)
    kv = h // (H // K)
    if t0 < end:
        at = (b, h, t0, end)
        o, z = zeros(T, M.EP), tl.zeros((T,), tl.float32)
        if S is not None:
            S = state_of(S, queries.spans, b * K + kv, n, states, M.rows * M.EP, CAUSAL)
            s = state_of(s, queries.spans, b * K + kv, n, states, M.sums, CAUSAL)
            o, z = read_state(queries, S, at, M, T), read_sums(queries, s, at, M, T)
            if queries.decay is not None:
                weight = state_weight(queries.decay, at, kv, K, Lq, T)
                o, z = o * weight[:, None], z * weight
        if INSIDE:
            f, p = factors(queries, at, M, T)
            if CAUSAL:
                o, z = add_keys(
                    o, z, f, p, queries, at, keys, kv, K, start, t0, end, Lk, M, T, TK, False
                )  # fmt: skip
                last = tl.minimum(t0 + T, end)
                o, z = add_keys(
                    o, z, f, p, queries, at, keys, kv, K, t0, last, end, Lk, M, T, TK, True
                )  # fmt: skip
            else:
                if keys.spans is None:
                    start, end = 0, Lk
                o, z = add_keys(
                    o, z, f, p, queries, at, keys, kv, K, start, end, end, Lk, M, T, TK, False
                )  # fmt: skip
        store_vector(z_out, z, at, H, Lq, T)
        o = saturating_cast(o / divisor(z)[:, None], y.data.dtype.element_ty)
        store_tile(y, o, at, T, M.E, M.EP)


def _configs(key: str) -> list[Config]:
    """Tiles without register spilling; TK divides T."""
    width = min(128, max(32, *widths(key)))
    halves = {
        32: [(2, 2, 64, 32), (2, 2, 128, 16), (4, 3, 128, 32)],
        64: [(2, 2, 64, 16), (4, 2, 128, 32), (2, 2, 32, 16)],
        128: [(2, 1, 32, 16), (4, 1, 32, 16), (8, 1, 64, 16), (8, 1, 128, 16)],
    }
    singles = {
        32: [(4, 2, 16, 16), (4, 2, 32, 16)],
        64: [(4, 2, 16, 16), (4, 2, 32, 16)],
        128: [(4, 1, 16, 16), (8, 1, 16, 16)],
    }
    sizes = singles if key.endswith("fp32") else halves
    return [Config(n, stages, (("T", T), ("TK", TK))) for n, stages, T, TK in sizes[width]]


kernel = Kernel(chunk_output, _configs)
