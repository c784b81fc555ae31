"""Exact spherical Yat attention by Triton kernels, tiled so that no score reaches memory.

With x = q^·k^ and w = 1 / max(C - 2x, eps), C = 2 + eps, a score and its slope are

    k = x^2 w,    k' = 2 x w (1 + x w),

and y = sum k v / z, z = sum k, over the visible keys. In the backward pass, with g = do / z
and D = do·y,

    dx = k' (g·v - D / z),    dq^ = sum dx k^,    dk^ = sum dx q^,    dv = sum k g.

Near x = 1 a score is as sensitive as 1 / eps, so unit vectors rounded to half precision would be
too inaccurate: the large products take q, k, v and do as stored, which is exact, and r = 1 / ‖·‖ is
applied to their float32 results. Padding has r = 0, and so scores of 0. Every row is written by one
program, with a fixed summation order.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from itertools import pairwise
from typing import Any, NamedTuple

import torch
import triton
import triton.language as tl
from torch import Tensor

from slay.ops.modes import remembered
from slay.ops.triton.configs import Config, Kernel, widths
from slay.ops.triton.tiles import (
    INTERPRETED,
    Rows,
    cast,
    divisor,
    dot,
    kept,
    load_tile,
    load_vector,
    rows,
    store_tile,
    store_vector,
    zeros,
)
from slay.ops.triton.tiling import LONGEST_TILE, PRECISIONS

ONES = tl.constexpr(16)  # columns of ones, for row sums as a matrix product


@dataclass(frozen=True)
class Pairs:
    """Compile-time constants: eps, and sizes rounded up to powers of two."""

    epsilon: float
    D: int  # head dimension
    DP: int
    E: int  # value dimension
    EP: int
    tokens: str  # precision of q, k and v: "bf16", "fp16" or "fp32"
    dtype: Any  # of the products with scores or their gradients: tl.bfloat16 or tl.float32
    precision: str  # of float32 products

    @property
    def key(self) -> str:
        """The class of calls that configurations are verified and chosen for."""
        return f"yat {self.DP} values {self.EP} {self.tokens}"


class YatSide(NamedTuple):
    """Queries with the gradients of their outputs, or keys with their values."""

    u: Rows
    w: Rows
    r: Tensor  # (B, H, L) float32: 1 / ‖u‖, 0 for padding and zero vectors


@triton.jit
def four_w(a, half, M: tl.constexpr):
    """1 / (max(1 - x, 0) / 2 + eps / 4) from x = 2 a half, in three instructions.

    The sum is formed in this order because rounding 2 + eps would lose part of eps.
    """
    if INTERPRETED:
        w = 1.0 / (tl.maximum(0.5 - a * half, 0.0) + M.epsilon / 4)
    else:
        w = tl.inline_asm_elementwise(
            """{
            .reg .f32 t;
            fma.rn.sat.f32 t, $1, $2, 0f3F000000;
            add.f32 t, t, $3;
            rcp.approx.ftz.f32 $0, t;
            }""",
            "=f,f,f,f", [a, -half, M.epsilon / 4], dtype=tl.float32, is_pure=True, pack=1,
        )  # fmt: skip
    return w


@triton.jit
def product(x, y, M: tl.constexpr):
    """x yᵀ of tokens as stored, with float32 accumulation."""
    return tl.dot(x, tl.trans(y), input_precision=M.precision)


@triton.jit
def stored(x, at, T: tl.constexpr, W: tl.constexpr, WP: tl.constexpr):
    """Load a tile for `product`: (T, WP); the interpreter does not multiply bf16."""
    u = load_tile(x, at, T, W, WP)
    if INTERPRETED:
        u = u.to(tl.float32)
    return u


@triton.jit
def ratios(S, r, ro, M: tl.constexpr):
    """x / r and 4 x w / r from S = u·u' of tokens with r and other tokens with ro: (T, TO)."""
    a = S * ro[None, :]
    return a, a * four_w(a, (0.5 * r)[:, None], M)


@triton.jit
def sphere_back(du, u, r):
    """Gradient of u from that of its unit vector r u."""
    u = u.to(tl.float32) * r[:, None]
    return r[:, None] * (du - tl.sum(du * u, 1)[:, None] * u)


@triton.jit
def place(spans, i, L, C: tl.constexpr, T: tl.constexpr):
    """First token of block i, and the start and (exclusive) end of its sequence."""
    if spans is None:
        own, start, end = i * T, 0, L
    else:
        row = spans + 3 * (i // (C // T))
        own = tl.load(row) + i % (C // T) * T
        start, end = tl.load(row + 1), tl.load(row + 2)
    return own, start, end


@triton.jit
def block(spans, pid, length, heads, C: tl.constexpr, T: tl.constexpr, LAST_FIRST: tl.constexpr):
    """A program's batch, head and first token, and the start and end of its sequence."""
    blocks = tl.cdiv(length, T)
    i, bh = pid % blocks, pid // blocks
    if LAST_FIRST:
        i = blocks - 1 - i
    own, start, end = place(spans, i, length, C, T)
    return bh // heads, bh % heads, own, start, end


@triton.jit(do_not_specialize=["L", "H"])
def inverse_norms(
    # pointers
    x, padding, r,
    # sizes
    L, H,
    # constants
    D: tl.constexpr, DP: tl.constexpr, T: tl.constexpr,
):  # fmt: skip
    """r of a block of tokens, 0 at padding; grid (blocks x B H,)."""
    blocks = tl.cdiv(L, T)
    bh, t0 = tl.program_id(0) // blocks, tl.program_id(0) % blocks * T
    at = (bh // H, bh % H, t0, L)
    u = load_tile(x, at, T, D, DP).to(tl.float32)
    n = tl.sum(u * u, 1)
    n = tl.div_rn(1.0, tl.sqrt_rn(tl.where(n == 0.0, float("inf"), n)))
    n = tl.where(kept(padding, at, L, T), n, 0.0)
    store_vector(r, n, at, H, L, T)


@triton.jit
def add_keys(
    o, z, u, r, keys, b, kv, K, L, last, lo, hi, end,
    M: tl.constexpr, T: tl.constexpr, TK: tl.constexpr, MASK: tl.constexpr,
):  # fmt: skip
    """Add keys lo, ..., hi - 1 to o and z, both divided by r^2 / 4; z: (T, ONES), equal columns.

    z sums the scores as rounded for the product with v, so that the weights sum to 1: where one key
    outweighs the others, y is then close to its v, and D to do·v. If `MASK`, only keys up to
    `last`: (T,).
    """
    for t0 in range(lo, hi, TK):
        at = (b, kv, t0, end)
        S = product(u, stored(keys.u, at, TK, M.D, M.DP), M)
        a, h = ratios(S, r, load_vector(keys.r, at, K, L, TK), M)
        A = a * h
        if MASK:
            A = tl.where((t0 + tl.arange(0, TK))[None, :] <= last[:, None], A, 0.0)
        A = cast(A, M.dtype)
        if M.dtype == tl.float32:
            z += tl.sum(A, 1)[:, None]
        else:
            z = dot(A, zeros(TK, ONES) + 1.0, z, M)
        o = dot(A, load_tile(keys.w, at, TK, M.E, M.EP), o, M)
    return o, z


@triton.jit(do_not_specialize=["Lq", "Lk", "length", "H", "K"])
def yat_fwd(
    # pointers
    queries, keys, y, rest, z_out, spans,
    # sizes
    length, Lq, Lk, H, K,
    # constants
    M: tl.constexpr, CAUSAL: tl.constexpr, C: tl.constexpr, T: tl.constexpr, TK: tl.constexpr,
):  # fmt: skip
    """y and z of a block of queries; grid (blocks x B H,), longest blocks first.

    rest: the rounding residual of y, needed for D.
    """
    b, h, own, start, end = block(spans, tl.program_id(0), length, H, C, T, True)
    kv = h // (H // K)
    if own < end:
        at = (b, h, own, end)
        u = stored(queries.u, at, T, M.D, M.DP)
        r = load_vector(queries.r, at, H, Lq, T)
        o, z = zeros(T, M.EP), zeros(T, ONES)
        keys_end = end + Lk - Lq
        last = own + tl.arange(0, T) + Lk - Lq
        if CAUSAL:
            full = start + tl.maximum(own + Lk - Lq + 1 - start, 0) // TK * TK
            stop = tl.minimum(own + Lk - Lq + T, keys_end)
            o, z = add_keys(
                o, z, u, r, keys, b, kv, K, Lk, last, start, full, keys_end, M, T, TK, False
            )  # fmt: skip
            o, z = add_keys(
                o, z, u, r, keys, b, kv, K, Lk, last, full, stop, keys_end, M, T, TK, True
            )  # fmt: skip
        else:
            o, z = add_keys(
                o, z, u, r, keys, b, kv, K, Lk, last, start, keys_end, keys_end, M, T, TK, False
            )  # fmt: skip
        z = tl.sum(z, 1) * (0.25 / ONES) * r * r
        store_vector(z_out, z, at, H, Lq, T)
        o *= (0.25 * r * r / divisor(z))[:, None]
        store_tile(y, o, at, T, M.E, M.EP)
        if rest is not None:
            stored_y = cast(o, y.data.dtype.element_ty).to(tl.float32)
            store_tile(rest, o - stored_y, at, T, M.E, M.EP)


@triton.jit
def add_keys_bwd(
    D, u, r, do, delta, keys, b, kv, K, L, last, lo, hi, end,
    M: tl.constexpr, T: tl.constexpr, TK: tl.constexpr, MASK: tl.constexpr,
):  # fmt: skip
    """Add keys lo, ..., hi - 1 to D = sum_j k' (do·v_j - delta) k^_j, divided by r / 2.

    If `MASK`, only keys up to `last`: (T,).
    """
    for t0 in range(lo, hi, TK):
        at = (b, kv, t0, end)
        k = stored(keys.u, at, TK, M.D, M.DP)
        ro = load_vector(keys.r, at, K, L, TK)
        _, h = ratios(product(u, k, M), r, ro, M)
        slope = (1.0 + (0.25 * r)[:, None] * h) * (h * ro[None, :])
        if MASK:
            slope = tl.where((t0 + tl.arange(0, TK))[None, :] <= last[:, None], slope, 0.0)
        dA = product(do, stored(keys.w, at, TK, M.E, M.EP), M) - delta[:, None]
        D = dot(dA * slope, k, D, M)
    return D


@triton.jit(do_not_specialize=["Lq", "Lk", "length", "H", "K"])
def yat_query_bwd(
    # pointers
    queries, keys, y, rest, z, dq, weights, deltas, spans,
    # sizes
    length, Lq, Lk, H, K,
    # constants
    M: tl.constexpr, CAUSAL: tl.constexpr, C: tl.constexpr, T: tl.constexpr, TK: tl.constexpr,
):  # fmt: skip
    """dq of a block of queries, r / z and do·y; grid (blocks x B H,), longest blocks first."""
    b, h, own, start, end = block(spans, tl.program_id(0), length, H, C, T, True)
    kv = h // (H // K)
    if own < end:
        at = (b, h, own, end)
        do = stored(queries.w, at, T, M.E, M.EP)
        o = load_tile(y, at, T, M.E, M.EP).to(tl.float32)
        if rest is not None:
            o += load_tile(rest, at, T, M.E, M.EP).to(tl.float32)
        delta = tl.sum(do.to(tl.float32) * o, 1)
        u = stored(queries.u, at, T, M.D, M.DP)
        r = load_vector(queries.r, at, H, Lq, T)
        total = load_vector(z, at, H, Lq, T)
        weight = 1.0 / divisor(total)
        D = zeros(T, M.DP)
        keys_end = end + Lk - Lq
        last = own + tl.arange(0, T) + Lk - Lq
        if CAUSAL:
            full = start + tl.maximum(own + Lk - Lq + 1 - start, 0) // TK * TK
            stop = tl.minimum(own + Lk - Lq + T, keys_end)
            D = add_keys_bwd(
                D, u, r, do, delta, keys, b, kv, K, Lk, last, start, full, keys_end,
                M, T, TK, False,
            )  # fmt: skip
            D = add_keys_bwd(
                D, u, r, do, delta, keys, b, kv, K, Lk, last, full, stop, keys_end,
                M, T, TK, True,
            )  # fmt: skip
        else:
            D = add_keys_bwd(
                D, u, r, do, delta, keys, b, kv, K, Lk, last, start, keys_end, keys_end,
                M, T, TK, False,
            )  # fmt: skip
        store_vector(weights, r * weight, at, H, Lq, T)
        store_vector(deltas, delta, at, H, Lq, T)
        u = stored(queries.u, at, T, M.D, M.DP)  # reloaded, rather than kept in registers
        du = sphere_back(D * (0.5 * r * weight)[:, None], u, r)
        store_tile(dq, du, at, T, M.D, M.DP)


@triton.jit
def add_queries_bwd(
    D, dv, u, r, v, queries, weights, deltas, b, h, H, L, first, lo, hi, end,
    M: tl.constexpr, T: tl.constexpr, TQ: tl.constexpr, MASK: tl.constexpr,
):  # fmt: skip
    """Add queries lo, ..., hi - 1 to D = sum_i dx_i q^_i and dv, divided by r / 2 and r^2 / 4.

    If `MASK`, only queries from `first` on: (T,).
    """
    for t0 in range(lo, hi, TQ):
        at = (b, h, t0, end)
        q = stored(queries.u, at, TQ, M.D, M.DP)
        do = stored(queries.w, at, TQ, M.E, M.EP)
        S = product(u, q, M)
        _, x = ratios(S, r, load_vector(queries.r, at, H, L, TQ), M)
        A = x * load_vector(weights, at, H, L, TQ)[None, :]
        if MASK:
            A = tl.where((t0 + tl.arange(0, TQ))[None, :] >= first[:, None], A, 0.0)
        slope = (1.0 + (0.25 * r)[:, None] * x) * A
        dv = dot(A * S, do, dv, M)
        dA = product(v, do, M) - load_vector(deltas, at, H, L, TQ)[None, :]
        D = dot(dA * slope, q, D, M)
    return D, dv


@triton.jit(do_not_specialize=["Lq", "Lk", "length", "H", "K"])
def yat_key_bwd(
    # pointers
    queries, keys, weights, deltas, dk, dv, spans,
    # sizes
    length, Lq, Lk, H, K,
    # constants
    M: tl.constexpr, CAUSAL: tl.constexpr, G: tl.constexpr, C: tl.constexpr, T: tl.constexpr,
    TQ: tl.constexpr,
):  # fmt: skip
    """dk and dv of a block of keys; grid (blocks x B K,), longest blocks first."""
    b, kv, own, start, end = block(spans, tl.program_id(0), length, K, C, T, False)
    if own < end:
        at = (b, kv, own, end)
        u = stored(keys.u, at, T, M.D, M.DP)
        r = load_vector(keys.r, at, K, Lk, T)
        v = stored(keys.w, at, T, M.E, M.EP)
        D, sums = zeros(T, M.DP), zeros(T, M.EP)
        queries_end = end + Lq - Lk
        first = own + tl.arange(0, T) + Lq - Lk
        for h in range(kv * G, kv * G + G):
            if CAUSAL:
                lo = tl.maximum(own + Lq - Lk, start)
                full = lo + tl.cdiv(tl.maximum(own + T - 1 + Lq - Lk - lo, 0), TQ) * TQ
                stop = tl.minimum(full, queries_end)
                D, sums = add_queries_bwd(
                    D, sums, u, r, v, queries, weights, deltas, b, h, H, Lq, first, lo, stop,
                    queries_end, M, T, TQ, True,
                )  # fmt: skip
                D, sums = add_queries_bwd(
                    D, sums, u, r, v, queries, weights, deltas, b, h, H, Lq, first, full,
                    queries_end, queries_end, M, T, TQ, False,
                )  # fmt: skip
            else:
                D, sums = add_queries_bwd(
                    D, sums, u, r, v, queries, weights, deltas, b, h, H, Lq, first, start,
                    queries_end, queries_end, M, T, TQ, False,
                )  # fmt: skip
        store_tile(dv, sums * (0.25 * r * r)[:, None], at, T, M.E, M.EP)
        u = stored(keys.u, at, T, M.D, M.DP)  # reloaded, rather than kept in registers
        r = load_vector(keys.r, at, K, Lk, T)
        store_tile(dk, sphere_back(D * (0.5 * r)[:, None], u, r), at, T, M.D, M.DP)


def _configs(
    other: str, sizes: dict[int, list[tuple[int, int, int, int]]]
) -> Callable[[str], list[Config]]:
    """Candidates by width, from (warps, stages, T, other tile).

    A float32 product is computed as three, of operands split in registers: its tiles are small.
    """

    def candidates(key: str) -> list[Config]:
        wide = max(64, *widths(key))
        some = sizes[wide]
        if key.endswith("fp32"):
            some = [(4, 2, 64, 32), (4, 1, 16, 16)] if wide == 64 else [(8, 1, 16, 16)]
        return [Config(w, stages, (("T", T), (other, TO))) for w, stages, T, TO in some]

    return candidates


_FORWARD = {
    64: [(2, 2, 32, 32), (4, 3, 64, 64), (8, 3, 128, 64)],
    128: [(2, 1, 16, 32), (4, 2, 64, 32), (8, 2, 128, 32)],
}
_BACKWARD = {
    64: [(2, 2, 32, 16), (4, 2, 64, 32), (8, 2, 128, 32)],
    128: [(2, 1, 16, 32), (8, 2, 128, 16), (8, 2, 64, 16)],
}
norms_kernel = Kernel(inverse_norms, lambda key: [Config(2, 1, (("T", 32),))])
fwd_kernel = Kernel(yat_fwd, _configs("TK", _FORWARD))
query_kernel = Kernel(yat_query_bwd, _configs("TK", _BACKWARD))
key_kernel = Kernel(yat_key_bwd, _configs("TQ", _BACKWARD))


@lru_cache(maxsize=256)
def pairs_of(epsilon: float, d: int, e: int, dtype: torch.dtype) -> Pairs:
    half = dtype in (torch.bfloat16, torch.float16)
    return Pairs(
        epsilon, d, max(16, triton.next_power_of_2(d)), e, max(16, triton.next_power_of_2(e)),
        PRECISIONS[dtype],
        tl.bfloat16 if half else tl.float32,  # scores may exceed the range of fp16
        "tf32" if half else "tf32x3",
    )  # fmt: skip


@remembered
def packed(bounds: tuple[int, ...], device: torch.device) -> Tensor:
    """Blocks of packed sequences, (N, 3) int32: first token, start and end of the sequence."""
    return torch.tensor(
        [
            (own, start, end)
            for start, end in pairwise(bounds)
            for own in range(start, end, LONGEST_TILE)
        ],
        dtype=torch.int32,
        device=device,
    )


class ExactCall:
    """Arguments of one operator call, and its kernel launches."""

    def __init__(
        self, q: Tensor, k: Tensor, v: Tensor, epsilon: float, causal: bool,
        padding: Tensor | None, bounds: Sequence[int] | None,
    ):  # fmt: skip
        self.q, self.k, self.v, self.causal, self.padding = q, k, v, causal, padding
        self.B, self.H, self.Lq = q.shape[:3]
        self.K, self.Lk = k.shape[1], k.shape[2]
        d, e = int(q.shape[3]), int(v.shape[3])  # plain ints, not SymInts
        self.M = pairs_of(epsilon, d, e, q.dtype)
        self.spans = None if bounds is None else packed(tuple(bounds), q.device)

    def new(self, u: Tensor) -> Tensor:
        """Allocate one float32 per token of u."""
        return torch.empty(u.shape[:3], dtype=torch.float32, device=u.device)

    def inverse_norms(self, u: Tensor, padding: Tensor | None) -> Tensor:
        r, (B, H, L) = self.new(u), u.shape[:3]
        norms_kernel(
            lambda tiles: (B * H * triton.cdiv(L, tiles["T"]),), self.M.key, L,
            x=rows(u), padding=padding, r=r, L=L, H=H, D=self.M.D, DP=self.M.DP,
        )  # fmt: skip
        return r

    def shared(self, length: int) -> dict[str, Any]:
        """Arguments shared by the kernels; `length`: tokens that are split into blocks."""
        return {
            "spans": self.spans, "length": self.padded(length), "Lq": self.Lq, "Lk": self.Lk,
            "H": self.H, "K": self.K, "M": self.M, "CAUSAL": self.causal, "C": LONGEST_TILE,
        }  # fmt: skip

    def padded(self, length: int) -> int:
        return length if self.spans is None else len(self.spans) * LONGEST_TILE

    def grid(self, length: int, heads: int) -> Callable[[dict[str, int]], tuple[int]]:
        """Grid with one program for each block of T tokens of every head."""
        return lambda tiles: (triton.cdiv(self.padded(length), tiles["T"]) * self.B * heads,)

    def forward(self, keep: bool) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
        """Return y, and for the backward pass its rounding residual, z, and r of q and of k."""
        r_q, r_k = self.inverse_norms(self.q, None), self.inverse_norms(self.k, self.padding)
        shape = (self.B, self.H, self.Lq, self.M.E)
        y = torch.empty(shape, dtype=self.q.dtype, device=self.q.device)
        rest = torch.empty_like(y) if keep and y.dtype != torch.float32 else y.new_empty(0)
        z = self.new(self.q)
        fwd_kernel(
            self.grid(self.Lq, self.H), self.M.key, self.Lq,
            queries=YatSide(rows(self.q), rows(self.q), r_q),
            keys=YatSide(rows(self.k), rows(self.v), r_k),
            y=rows(y), rest=rows(rest) if rest.numel() else None, z_out=z, **self.shared(self.Lq),
        )  # fmt: skip
        return y, rest, z, r_q, r_k

    def backward(
        self, y: Tensor, rest: Tensor, z: Tensor, r_q: Tensor, r_k: Tensor, dy: Tensor
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Gradients of q, k and v."""
        dq, dk, dv = (
            torch.empty(t.shape, dtype=t.dtype, device=t.device) for t in (self.q, self.k, self.v)
        )
        weights, deltas = self.new(self.q), self.new(self.q)
        queries = YatSide(rows(self.q), rows(dy), r_q)
        keys = YatSide(rows(self.k), rows(self.v), r_k)
        query_kernel(
            self.grid(self.Lq, self.H), self.M.key, self.Lq,
            queries=queries, keys=keys, y=rows(y), rest=rows(rest) if rest.numel() else None, z=z,
            dq=rows(dq), weights=weights, deltas=deltas, **self.shared(self.Lq),
        )  # fmt: skip
        key_kernel(
            self.grid(self.Lk, self.K), self.M.key, self.Lk,
            queries=queries, keys=keys, weights=weights, deltas=deltas, dk=rows(dk), dv=rows(dv),
            G=self.H // self.K, **self.shared(self.Lk),
        )  # fmt: skip
        return dq, dk, dv


@torch.library.custom_op("slay::exact_yat", mutates_args=())
def _forward(
    q: Tensor, k: Tensor, v: Tensor, epsilon: float, causal: bool,
    padding: Tensor | None, bounds: Sequence[int] | None, keep: bool,
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:  # fmt: skip
    return ExactCall(q, k, v, epsilon, causal, padding, bounds).forward(keep)


@_forward.register_fake
def _(q, k, v, epsilon, causal, padding, bounds, keep):
    def number(u):
        return u.new_empty(u.shape[:3], dtype=torch.float32)

    y = q.new_empty(*q.shape[:3], v.shape[3])
    rest = torch.empty_like(y) if keep and y.dtype != torch.float32 else y.new_empty(0)
    return y, rest, number(q), number(q), number(k)


@torch.library.custom_op("slay::exact_yat_backward", mutates_args=())
def _backward(
    q: Tensor, k: Tensor, v: Tensor, epsilon: float, causal: bool,
    padding: Tensor | None, bounds: Sequence[int] | None,
    y: Tensor, rest: Tensor, z: Tensor, r_q: Tensor, r_k: Tensor, dy: Tensor,
) -> tuple[Tensor, Tensor, Tensor]:  # fmt: skip
    return ExactCall(q, k, v, epsilon, causal, padding, bounds).backward(y, rest, z, r_q, r_k, dy)


@_backward.register_fake
def _(q, k, v, epsilon, causal, padding, bounds, y, rest, z, r_q, r_k, dy):
    return tuple(t.new_empty(t.shape) for t in (q, k, v))


def _keep(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, ...]) -> None:
    q, k, v, *ctx.settings, padding, bounds, _ = inputs
    ctx.save_for_backward(q, k, v, padding, *output)
    ctx.bounds = bounds
    ctx.set_materialize_grads(False)


def _differentiate(ctx: Any, dy: Tensor | None, *_: Any) -> Any:
    if dy is None:
        return (None,) * 8
    q, k, v, padding, *output = ctx.saved_tensors
    grads = _backward(q, k, v, *ctx.settings, padding, ctx.bounds, *output, dy)
    return *grads, *[None] * 5


_forward.register_autograd(_differentiate, setup_context=_keep)


def exact_yat(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    epsilon: float,
    *,
    causal: bool,
    key_padding_mask: Tensor | None = None,
    bounds: Sequence[int] | None = None,
) -> Tensor:
    """y_i = sum_j k(q_i, k_j) v_j / sum_j k(q_i, k_j), over j <= i when causal; k = x^2/(C - 2x).

    q: (B, H, Lq, d); k: (B, K, Lk, d) and v: (B, K, Lk, e), K dividing H. When causal, the queries
    are the last Lq of Lk tokens. `key_padding_mask`: (B, Lk), True for padding; `bounds`:
    boundaries of packed sequences, from 0 to L = Lq = Lk. Returns (B, H, Lq, e) in v's dtype. Norms
    must be zero or between 1e-15 and 1e15.
    """
    padding = None if key_padding_mask is None else key_padding_mask.contiguous().view(torch.uint8)
    keep = torch.is_grad_enabled() and any(t.requires_grad for t in (q, k, v))
    return _forward(q, k, v, epsilon, causal, padding, bounds, keep)[0]
