"""Triton kernel for the state of every chunk: S = sum phi(k_j) v_jᵀ and s = sum phi(k_j).

phi is never materialised: the rows of group a are (p_a x)ᵀ v for a block x of the other factor, see
`Tiling`. In the backward pass the same kernel sums phi(q_i) [g_i, dz_i], the gradients of S and s.
With a decay, where G is the prefix sum of log decays within the chunk, a key is weighted by
exp(G_end - G_j) and a query by exp(G_i).
"""

from __future__ import annotations

from typing import NamedTuple

import triton
import triton.language as tl
from torch import Tensor

from slay.ops.triton.configs import Config, Kernel, widths
from slay.ops.triton.tiles import (
    Rows,
    cast,
    dot,
    fine_dot,
    kept,
    load_column,
    load_tile,
    load_vector,
    present,
    scaled,
    span,
    zeros,
)
from slay.ops.triton.tiling import Tiling


class Side(NamedTuple):
    """Keys with their values, or queries with the gradients of their outputs."""

    p: Rows | None  # (., ., L, A)
    f: Rows  # (., ., L, B)
    w: Rows | None  # v, or g = do / z: (., ., L, E)
    one: Tensor | None  # weights in s: None (1) for keys, dz for queries, (B, H, L) float32
    padding: Tensor | None  # (B, L) bytes, 1 for padding
    decay: Tensor | None  # G: (B, K, L) float32
    spans: Tensor | None  # (N, 3) int32: start, end and sequence of each chunk of packed sequences


@triton.jit
def weighed(side, at, kv, H, K, L, M: tl.constexpr, QUERY: tl.constexpr, T: tl.constexpr):
    """w and `one` of a block, with the decay, zero at missing tokens: (T, EP), (T,)."""
    b, _, t0, end = at
    w = cast(load_tile(side.w, at, T, M.E, M.EP), M.dtype)
    one = tl.where(present(at, T), 1.0, 0.0)
    if side.one is not None:
        one = load_vector(side.one, at, H, L, T)
    if side.padding is not None:
        there = kept(side.padding, at, L, T)
        w, one = tl.where(there[:, None], w, 0.0), tl.where(there, one, 0.0)
    if side.decay is not None:
        G = load_vector(side.decay, (b, kv, t0, end), K, L, T)
        if not QUERY:
            G = tl.load(side.decay + (b * K + kv).to(tl.int64) * L + end - 1) - G
        weight = tl.exp(tl.minimum(G, 0.0))
        w, one = cast(w * weight[:, None], M.dtype), one * weight
    return w, one


@triton.jit
def pair(g):
    """The g-th pair (i, j), j <= i."""
    g = tl.full((), 0, tl.int32) + g
    i = tl.floor((tl.sqrt(8.0 * g.to(tl.float32) + 1.0) - 1.0) * 0.5).to(tl.int32)
    i = tl.where(i * (i + 1) // 2 > g, i - 1, i)
    i = tl.where((i + 1) * (i + 2) // 2 <= g, i + 1, i)
    return i, g - i * (i + 1) // 2


@triton.jit
def block_of(group, M: tl.constexpr):
    """The block J of a polynomial's group (a, J)."""
    J = tl.full((), 0, tl.int32)
    blocks: tl.constexpr = M.blocks
    for i in tl.static_range(1, blocks):
        J += (group >= M.W * i * (i + 1) // 2).to(tl.int32)
    return J


@triton.jit
def multiplier(side, at, group, M: tl.constexpr, T: tl.constexpr):
    """Column p of a group, which multiplies its block of F: (T,)."""
    if M.score == "product":
        p = load_column(side.p, at, group, T, M.A)
    else:
        J = block_of(group, M)
        p = load_column(side.f, at, group - M.W * J * (J + 1) // 2, T, M.B)
        if M.degree == 3:
            if group >= M.square_groups:
                p = cast(pair_product(side, at, group - M.square_groups, M, T), p.dtype)
    return p


@triton.jit
def pair_product(side, at, g, M: tl.constexpr, T: tl.constexpr):
    """u_i u_j of the g-th pair: (T,)."""
    i, j = pair(g)
    p = load_column(side.f, at, i, T, M.B).to(tl.float32)
    return p * load_column(side.f, at, j, T, M.B).to(tl.float32)


@triton.jit
def group_sums(
    side, S, s, b, kv, H, K, start, end, L, first,
    M: tl.constexpr, QUERY: tl.constexpr, G: tl.constexpr, T: tl.constexpr, R: tl.constexpr,
):  # fmt: skip
    """Rows of S of R groups from `first` on, which share their block of F.

    For cubics, also the sums s of the groups u_i u_j u.
    """
    acc = ()
    sums = ()
    for _ in tl.static_range(R):
        acc = acc + (zeros(M.W, M.EP),)
        sums = sums + (zeros(1, M.W),)
    J = tl.full((), 0, tl.int32)
    if M.score == "polynomial" and M.blocks > 1:
        J = block_of(first, M)
    for g in range(G):
        for t0 in range(start, end, T):
            at = (b, kv * G + g, t0, end)
            x = load_tile(side.f, at, T, M.B, M.W, J * M.W)
            w, one = weighed(side, at, kv, H, K, L, M, QUERY, T)
            new = ()
            more = ()
            for r in tl.static_range(R):
                if M.score == "dense":
                    x = load_tile(side.f, at, T, M.B, M.W, (first + r) * M.W)
                    new = new + (dot(tl.trans(x), w, acc[r], M),)
                else:
                    p = multiplier(side, at, first + r, M, T)
                    new = new + (dot(tl.trans(scaled(x, p, M)), w, acc[r], M),)
                    if M.degree == 3:
                        weight = p.to(tl.float32) * one
                        part = tl.sum(x.to(tl.float32) * weight[:, None], 0)
                        more = more + (sums[r] + part[None, :],)
            acc = new
            if M.degree == 3:
                sums = more
    c, e = tl.arange(0, M.W), tl.arange(0, M.EP)
    for r in tl.static_range(R):
        row = (first + r) * M.W + c
        value = cast(acc[r], S.dtype.element_ty)
        there = (row < M.groups * M.W)[:, None]
        tl.store(S + row[:, None] * M.EP + e[None, :], value, mask=there)
        if M.degree == 3:
            place = row - M.square_groups * M.W
            there = (place >= 0) & (place < M.pairs * M.W)
            tl.store(s + M.BP * M.BP + M.BP + 1 + place, tl.sum(sums[r], 0), mask=there)


@triton.jit
def dense_sums(
    side, s, b, kv, H, K, start, end, L,
    M: tl.constexpr, QUERY: tl.constexpr, G: tl.constexpr, T: tl.constexpr,
):  # fmt: skip
    """s = sum F."""
    for J in range(M.blocks):
        acc = zeros(T, M.W)
        for g in range(G):
            for t0 in range(start, end, T):
                at = (b, kv * G + g, t0, end)
                x = load_tile(side.f, at, T, M.B, M.W, J * M.W).to(tl.float32)
                one = weighed(side, at, kv, H, K, L, M, QUERY, T)[1]
                acc += x * one[:, None]
        tl.store(s + J * M.W + tl.arange(0, M.W), tl.sum(acc, 0))


@triton.jit
def product_sums(
    side, s, b, kv, H, K, start, end, L,
    M: tl.constexpr, QUERY: tl.constexpr, G: tl.constexpr, T: tl.constexpr,
):  # fmt: skip
    """s = Pᵀ F: (AP, W)."""
    acc = zeros(M.AP, M.W)
    for g in range(G):
        for t0 in range(start, end, T):
            at = (b, kv * G + g, t0, end)
            one = weighed(side, at, kv, H, K, L, M, QUERY, T)[1]
            p = load_tile(side.p, at, T, M.A, M.AP).to(tl.float32) * one[:, None]
            acc = dot(tl.trans(cast(p, M.dtype)), load_tile(side.f, at, T, M.B, M.W), acc, M)
    a, c = tl.arange(0, M.AP), tl.arange(0, M.W)
    tl.store(s + a[:, None] * M.W + c[None, :], acc)


@triton.jit
def square_sums(
    side, s, b, kv, H, K, start, end, L, J,
    M: tl.constexpr, QUERY: tl.constexpr, G: tl.constexpr, T: tl.constexpr,
):  # fmt: skip
    """Columns of block J of s2 = sum u uᵀ: (BP, W)."""
    acc = zeros(M.BP, M.W)
    for g in range(G):
        for t0 in range(start, end, T):
            at = (b, kv * G + g, t0, end)
            one = weighed(side, at, kv, H, K, L, M, QUERY, T)[1]
            x = load_tile(side.f, at, T, M.B, M.W, J * M.W).to(tl.float32) * one[:, None]
            u = load_tile(side.f, at, T, M.B, M.BP)
            if M.fine:
                acc += fine_dot(tl.trans(u), x, M.precision)
            else:
                acc = dot(tl.trans(u), x, acc, M)
    d, c = tl.arange(0, M.BP), tl.arange(0, M.W)
    tl.store(s + d[:, None] * M.BP + (J * M.W + c)[None, :], acc)


@triton.jit
def linear_sums(
    side, S, s, b, kv, H, K, start, end, L, J,
    M: tl.constexpr, QUERY: tl.constexpr, G: tl.constexpr, T: tl.constexpr,
):  # fmt: skip
    """Linear terms of S and s for block J of u, and the constant terms if J = 0.

    Column sums are repeated in every row of their accumulators.
    """
    linear, constant = zeros(M.W, M.EP), zeros(16, M.EP)
    sums, number = zeros(16, M.W), 0.0
    for g in range(G):
        for t0 in range(start, end, T):
            at = (b, kv * G + g, t0, end)
            x = load_tile(side.f, at, T, M.B, M.W, J * M.W)
            w, one = weighed(side, at, kv, H, K, L, M, QUERY, T)
            linear = dot(tl.trans(x), w, linear, M)
            constant = dot(zeros(16, T) + 1.0, w, constant, M)
            sums = dot(zeros(16, T) + 1.0, x.to(tl.float32) * one[:, None], sums, M)
            number += tl.sum(one, 0)
    c, e = tl.arange(0, M.W), tl.arange(0, M.EP)
    S += M.linear_row * M.EP
    value = cast(linear, S.dtype.element_ty)
    tl.store(S + (J * M.W + c)[:, None] * M.EP + e[None, :], value)
    s += M.BP * M.BP
    tl.store(s + J * M.W + c, tl.max(sums, 0))
    if J == 0:
        tl.store(s + M.BP, number)
        tl.store(S + M.BP * M.EP + e, cast(tl.max(constant, 0), S.dtype.element_ty))


@triton.jit(do_not_specialize=["L", "chunks", "H", "K"])
def chunk_state(
    # pointers
    side, S, s,
    # sizes
    L, C, chunks, H, K,
    # constants
    M: tl.constexpr, QUERY: tl.constexpr, G: tl.constexpr, T: tl.constexpr, R: tl.constexpr,
):  # fmt: skip
    """S and s of each chunk by itself; grid (`programs` x chunks x B K,).

    S: (B K, chunks, rows, EP); s: (B K, chunks, sums) float32; G query heads share a key head.
    """
    slices: tl.constexpr = (M.groups + R - 1) // R
    more: tl.constexpr = 2 * M.blocks if M.score == "polynomial" else 1
    part = tl.program_id(0) % (slices + more)
    chunk = tl.program_id(0) // (slices + more)
    n, bk = chunk % chunks, chunk // chunks
    b, kv = bk // K, bk % K
    start, end = span(side.spans, n, C, L)
    S += chunk.to(tl.int64) * (M.rows * M.EP)
    s += chunk.to(tl.int64) * M.sums
    if part < slices:
        group_sums(side, S, s, b, kv, H, K, start, end, L, part * R, M, QUERY, G, T, R)
    elif M.score == "polynomial":
        J = part - slices
        if M.blocks > J:
            square_sums(side, s, b, kv, H, K, start, end, L, J, M, QUERY, G, T)
        else:
            J -= M.blocks
            linear_sums(side, S, s, b, kv, H, K, start, end, L, J, M, QUERY, G, T)
    elif M.score == "product":
        product_sums(side, s, b, kv, H, K, start, end, L, M, QUERY, G, T)
    else:
        dense_sums(side, s, b, kv, H, K, start, end, L, M, QUERY, G, T)


def programs(M: Tiling, R: int) -> int:
    """Programs per chunk, of R groups each; R divides the groups of a block."""
    return -(-M.groups // R) + (2 * M.blocks if M.score == "polynomial" else 1)


def _configs(key: str) -> list[Config]:
    """R: number of groups, limited by registers for their accumulators, at most 8."""
    F, E = widths(key)
    W = min(F, 32 if "polynomial" in key else 64)
    most = 1 if key.startswith("dense") else 8

    def groups(numbers: int) -> int:
        return max(1, min(most, numbers // (W * E)))

    if key.endswith("fp32"):
        return [Config(n, 2, (("T", 16), ("R", min(2, groups(2048 * n))))) for n in (2, 4)]
    sizes = {
        16: [(2, 32, 2048), (4, 32, 2048)],
        32: [(2, 32, 8192), (2, 64, 4096), (4, 64, 4096)],
        64: [(2, 16, 4096), (4, 32, 4096), (4, 64, 4096)],
        128: [(2, 16, 4096), (4, 32, 4096)],
    }[min(128, max(16, F, E))]
    return [Config(n, 2, (("T", T), ("R", groups(sums)))) for n, T, sums in sizes]


kernel = Kernel(chunk_state, _configs)
