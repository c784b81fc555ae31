"""Exact spherical Yat attention by Triton kernels, tiled so that no score reaches memory.

With x = q^·k^ and w = 1 / max(C - 2x, eps), C = 2 + eps, a score and its slope are

    k = x^2 w,    k' = 2 x w (1 + x w),

and y = sum k v / z, z = sum k, over the keys that a query sees. On the way back, with g = do / z
and D = do·y,

    dx = k' (g·v - D / z),    dq^ = sum dx k^,    dk^ = sum dx q^,    dv = sum k g.

Near x = 1 a score is as sensitive as 1 / eps, and unit vectors rounded to half precision would be
too coarse: the large products take q, k, v and do as they are stored, which is exact, and
r = 1 / ‖·‖ is applied to their float32 results. A token that does not count has r = 0, and so no
score. Every row is written by one program, in a fixed order of sums.
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

from slay.ops.triton_configs import Tuned, tuned
from slay.ops.triton_linear import rows
from slay.ops.triton_maps import (
    DELTA,
    INTERPRETED,
    Rows,
    dot,
    narrow,
    nearest,
    put,
    tile,
    zeros,
)
from slay.ops.triton_state import divisor

WIDEST = 128  # head
LONGEST_TILE = 128  # of any configuration
ONES = tl.constexpr(16)  # columns that a sum takes as a matrix product


@dataclass(frozen=True)
class Pairs:
    """What a kernel is compiled for: eps, and sizes rounded up to powers of two."""

    epsilon: float
    D: int  # head dimension
    DP: int
    E: int  # value dimension
    EP: int
    dtype: Any  # of the products with scores or their gradients: tl.bfloat16 or tl.float32
    precision: str  # of float32 products

    @property
    def kind(self) -> str:
        """What configurations are for: the precision, and a width that is not exceeded."""
        half = self.dtype != tl.float32
        width = max(self.DP, self.EP, 64 if half else 32)
        return f"{'half' if half else 'full'} {width}"


class Tokens(NamedTuple):
    """Queries with the gradients of their outputs, or keys with their values."""

    u: Rows
    w: Rows
    r: Tensor  # (B, H, L) float32: 1 / ‖u‖, 0 for tokens that do not count


@triton.jit
def four_w(a, half, M: tl.constexpr):
    """1 / (max(1 - x, 0) / 2 + eps / 4) from x = 2 a half, in three instructions.

    The sum is formed in this order because 2 + eps would be rounded, by a part of eps.
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
    """x yᵀ of tokens as they are stored, with float32 sums."""
    return tl.dot(x, tl.trans(y), input_precision=M.precision)


@triton.jit
def stored(x, b, h, t, end, W: tl.constexpr, WP: tl.constexpr):
    """Tokens as `product` takes them: (T, WP); the interpreter multiplies no bf16."""
    u = tile(x, b, h, t, end, W, WP)
    if INTERPRETED:
        u = u.to(tl.float32)
    return u


@triton.jit
def numbers(x, row, t, end):
    """A number a token, 0 past `end`: (T,)."""
    return tl.load(x + row.to(tl.int64) + t, mask=t < end, other=0.0)


@triton.jit
def ratios(S, r, ro, M: tl.constexpr):
    """x / r and 4 x w / r from S = u·u' of tokens with r and other tokens with ro: (T, TO)."""
    a = S * ro[None, :]
    return a, a * four_w(a, (0.5 * r)[:, None], M)


@triton.jit
def sphere_back(du, u, r):
    """The gradient of u by that of its unit vector r u."""
    u = u.to(tl.float32) * r[:, None]
    return r[:, None] * (du - tl.sum(du * u, 1)[:, None] * u)


@triton.jit
def nearest_to(o, y):
    """o rounded as it is stored in y."""
    if INTERPRETED and y.data.dtype.element_ty == tl.bfloat16:
        o = nearest(o)
    else:
        o = o.to(y.data.dtype.element_ty).to(tl.float32)
    return o


@triton.jit
def place(spans, i, L, C: tl.constexpr, T: tl.constexpr):
    """First token of block i; the first of its sequence, and the one after its last."""
    if spans is None:
        own, start, end = i * T, 0, L
    else:
        row = spans + 3 * (i // (C // T))
        own = tl.load(row) + i % (C // T) * T
        start, end = tl.load(row + 1), tl.load(row + 2)
    return own, start, end


@triton.jit
def inverse_norms(x, padding, r, L, H, D: tl.constexpr, DP: tl.constexpr, T: tl.constexpr):
    """r of tokens that are no padding; grid (blocks, B H)."""
    bh = tl.program_id(1)
    t = tl.program_id(0) * T + tl.arange(0, T)
    u = tile(x, bh // H, bh % H, t, L, D, DP).to(tl.float32)
    n = tl.sum(u * u, 1)
    n = tl.div_rn(1.0, tl.sqrt_rn(tl.where(n == 0.0, float("inf"), n)))
    if padding is not None:
        n = tl.where(tl.load(padding + bh // H * L + t, mask=t < L, other=1) == 0, n, 0.0)
    tl.store(r + bh.to(tl.int64) * L + t, n, mask=t < L)


@triton.jit
def attended(
    o, z, u, r, keys, b, kv, row, last, lo, hi, end,
    M: tl.constexpr, TK: tl.constexpr, MASK: tl.constexpr,
):  # fmt: skip
    """o and z, over r^2 / 4, with the keys from `lo` to below `hi`; z: (T, ONES), alike.

    z sums the scores as rounded for the product with v, so that weights sum to 1: where one key
    outweighs the others y then is as near to its v as it should be, and so is D to do·v.
    If `MASK`, with those up to `last`: (T,).
    """
    for t0 in range(lo, hi, TK):
        j = t0 + tl.arange(0, TK)
        S = product(u, stored(keys.u, b, kv, j, end, M.D, M.DP), M)
        a, h = ratios(S, r, numbers(keys.r, row, j, end), M)
        A = a * h
        if MASK:
            A = tl.where(j[None, :] <= last[:, None], A, 0.0)
        A = narrow(A, M)
        if M.dtype == tl.float32:
            z += tl.sum(A, 1)[:, None]
        else:
            z += dot(A, zeros(TK, ONES) + 1.0, M)
        o += dot(A, tile(keys.w, b, kv, j, end, M.E, M.EP), M)
    return o, z


@triton.jit
def outputs(
    queries, keys, y, rest, z_out, spans, Lq, Lk, H, K,
    M: tl.constexpr, CAUSAL: tl.constexpr, C: tl.constexpr, T: tl.constexpr, TK: tl.constexpr,
):  # fmt: skip
    """y and z of a block of queries; grid (blocks, B H), the longest first.

    rest: what y lost when it was rounded, which D needs.
    """
    bh = tl.program_id(1)
    b, h = bh // H, bh % H
    kv = h // (H // K)
    own, start, end = place(spans, tl.num_programs(0) - 1 - tl.program_id(0), Lq, C, T)
    if own < end:
        t = own + tl.arange(0, T)
        u = stored(queries.u, b, h, t, end, M.D, M.DP)
        r = numbers(queries.r, bh * Lq, t, end)
        o, z = zeros(T, M.EP), zeros(T, ONES)
        row = (b * K + kv) * Lk
        keys_end = end + Lk - Lq
        if CAUSAL:
            last = t + Lk - Lq
            full = start + tl.maximum(own + Lk - Lq + 1 - start, 0) // TK * TK
            stop = tl.minimum(own + Lk - Lq + T, keys_end)
            o, z = attended(
                o, z, u, r, keys, b, kv, row, last, start, full, keys_end, M, TK, False
            )  # fmt: skip
            o, z = attended(
                o, z, u, r, keys, b, kv, row, last, full, stop, keys_end, M, TK, True
            )  # fmt: skip
        else:
            o, z = attended(
                o, z, u, r, keys, b, kv, row, t, start, keys_end, keys_end, M, TK, False
            )  # fmt: skip
        z = tl.sum(z, 1) * (0.25 / ONES) * r * r
        tl.store(z_out + (bh * Lq).to(tl.int64) + t, z, mask=t < end)
        o *= (0.25 * r * r / divisor(z))[:, None]
        put(y, o, b, h, t, end, M.E, M.EP)
        if rest is not None:
            put(rest, o - nearest_to(o, y), b, h, t, end, M.E, M.EP)


@triton.jit
def query_sums(
    D, u, r, do, delta, keys, b, kv, row, last, lo, hi, end,
    M: tl.constexpr, TK: tl.constexpr, MASK: tl.constexpr,
):  # fmt: skip
    """D = sum_j k' (do·v_j - delta) k^_j, over r / 2, with the keys from `lo` to below `hi`.

    If `MASK`, with those up to `last`: (T,).
    """
    for t0 in range(lo, hi, TK):
        j = t0 + tl.arange(0, TK)
        k = stored(keys.u, b, kv, j, end, M.D, M.DP)
        ro = numbers(keys.r, row, j, end)
        _, h = ratios(product(u, k, M), r, ro, M)
        slope = (1.0 + (0.25 * r)[:, None] * h) * (h * ro[None, :])
        if MASK:
            slope = tl.where(j[None, :] <= last[:, None], slope, 0.0)
        dA = product(do, stored(keys.w, b, kv, j, end, M.E, M.EP), M) - delta[:, None]
        D += dot(dA * slope, k, M)
    return D


@triton.jit
def query_gradients(
    queries, keys, y, rest, z, dq, weights, deltas, spans, Lq, Lk, H, K,
    M: tl.constexpr, CAUSAL: tl.constexpr, C: tl.constexpr, T: tl.constexpr, TK: tl.constexpr,
):  # fmt: skip
    """dq of a block of queries, r / z and do·y; grid (blocks, B H), the longest first."""
    bh = tl.program_id(1)
    b, h = bh // H, bh % H
    kv = h // (H // K)
    own, start, end = place(spans, tl.num_programs(0) - 1 - tl.program_id(0), Lq, C, T)
    if own < end:
        t = own + tl.arange(0, T)
        do = stored(queries.w, b, h, t, end, M.E, M.EP)
        o = tile(y, b, h, t, end, M.E, M.EP).to(tl.float32)
        if rest is not None:
            o += tile(rest, b, h, t, end, M.E, M.EP).to(tl.float32)
        delta = tl.sum(do.to(tl.float32) * o, 1)
        u = stored(queries.u, b, h, t, end, M.D, M.DP)
        r = numbers(queries.r, bh * Lq, t, end)
        total = numbers(z, bh * Lq, t, end)
        delta = tl.where(tl.abs(total) < DELTA, 0.0, delta)
        weight = 1.0 / divisor(total)
        D = zeros(T, M.DP)
        row = (b * K + kv) * Lk
        keys_end = end + Lk - Lq
        if CAUSAL:
            last = t + Lk - Lq
            full = start + tl.maximum(own + Lk - Lq + 1 - start, 0) // TK * TK
            stop = tl.minimum(own + Lk - Lq + T, keys_end)
            D = query_sums(
                D, u, r, do, delta, keys, b, kv, row, last, start, full, keys_end, M, TK, False
            )  # fmt: skip
            D = query_sums(
                D, u, r, do, delta, keys, b, kv, row, last, full, stop, keys_end, M, TK, True
            )  # fmt: skip
        else:
            D = query_sums(
                D, u, r, do, delta, keys, b, kv, row, t, start, keys_end, keys_end, M, TK, False
            )  # fmt: skip
        tl.store(weights + (bh * Lq).to(tl.int64) + t, r * weight, mask=t < end)
        tl.store(deltas + (bh * Lq).to(tl.int64) + t, delta, mask=t < end)
        u = stored(queries.u, b, h, t, end, M.D, M.DP)  # again, rather than kept in registers
        du = sphere_back(D * (0.5 * r * weight)[:, None], u, r)
        put(dq, du, b, h, t, end, M.D, M.DP)


@triton.jit
def key_sums(
    D, dv, u, r, v, queries, weights, deltas, b, h, row, first, lo, hi, end,
    M: tl.constexpr, TQ: tl.constexpr, MASK: tl.constexpr,
):  # fmt: skip
    """D = sum_i dx_i q^_i, over r / 2, and dv, over r^2 / 4, with queries from `lo` to below `hi`.

    If `MASK`, with those from `first`: (T,).
    """
    for t0 in range(lo, hi, TQ):
        j = t0 + tl.arange(0, TQ)
        q = stored(queries.u, b, h, j, end, M.D, M.DP)
        do = stored(queries.w, b, h, j, end, M.E, M.EP)
        S = product(u, q, M)
        _, x = ratios(S, r, numbers(queries.r, row, j, end), M)
        A = x * numbers(weights, row, j, end)[None, :]
        if MASK:
            A = tl.where(j[None, :] >= first[:, None], A, 0.0)
        slope = (1.0 + (0.25 * r)[:, None] * x) * A
        dv += dot(A * S, do, M)
        dA = product(v, do, M) - numbers(deltas, row, j, end)[None, :]
        D += dot(dA * slope, q, M)
    return D, dv


@triton.jit
def key_gradients(
    queries, keys, weights, deltas, dk, dv, spans, Lq, Lk, H, K,
    M: tl.constexpr, CAUSAL: tl.constexpr, G: tl.constexpr, C: tl.constexpr, T: tl.constexpr,
    TQ: tl.constexpr,
):  # fmt: skip
    """dk and dv of a block of keys; grid (blocks, B K), the longest first."""
    bk = tl.program_id(1)
    b, kv = bk // K, bk % K
    own, start, end = place(spans, tl.program_id(0), Lk, C, T)
    if own < end:
        t = own + tl.arange(0, T)
        u = stored(keys.u, b, kv, t, end, M.D, M.DP)
        r = numbers(keys.r, bk * Lk, t, end)
        v = stored(keys.w, b, kv, t, end, M.E, M.EP)
        D, sums = zeros(T, M.DP), zeros(T, M.EP)
        queries_end = end + Lq - Lk
        for g in range(G):
            h = kv * G + g
            row = (b * H + h) * Lq
            if CAUSAL:
                first = t + Lq - Lk
                lo = tl.maximum(own + Lq - Lk, start)
                full = lo + tl.cdiv(tl.maximum(own + T - 1 + Lq - Lk - lo, 0), TQ) * TQ
                stop = tl.minimum(full, queries_end)
                D, sums = key_sums(
                    D, sums, u, r, v, queries, weights, deltas, b, h, row, first, lo, stop,
                    queries_end, M, TQ, True,
                )  # fmt: skip
                D, sums = key_sums(
                    D, sums, u, r, v, queries, weights, deltas, b, h, row, first, full,
                    queries_end, queries_end, M, TQ, False,
                )  # fmt: skip
            else:
                D, sums = key_sums(
                    D, sums, u, r, v, queries, weights, deltas, b, h, row, t, start, queries_end,
                    queries_end, M, TQ, False,
                )  # fmt: skip
        put(dv, sums * (0.25 * r * r)[:, None], b, kv, t, end, M.E, M.EP)
        u = stored(keys.u, b, kv, t, end, M.D, M.DP)  # again, rather than kept in registers
        r = numbers(keys.r, bk * Lk, t, end)
        put(dk, sphere_back(D * (0.5 * r)[:, None], u, r), b, kv, t, end, M.D, M.DP)


KEY = ["M", "CAUSAL"]  # what tells shape classes apart
# In float32 a product takes three, of operands that are split in registers: its tiles are small.
_inverse_norms = Tuned(inverse_norms, [])
_outputs = tuned(outputs, KEY, "TK", {
    "half 64": [(4, 3, 64, 64), (4, 3, 128, 64), (8, 3, 128, 64)],
    "half 128": [(4, 2, 64, 64), (8, 2, 128, 64)],
    "full 32": [(4, 2, 64, 32), (8, 2, 128, 32)],
    "full 64": [(4, 2, 64, 32), (8, 2, 128, 32)],
    "full 128": [(8, 2, 32, 32)],
})  # fmt: skip
_query_gradients = tuned(query_gradients, KEY, "TK", {
    "half 64": [(4, 2, 64, 64), (8, 2, 128, 64)],
    "half 128": [(8, 2, 128, 64), (4, 2, 64, 32)],
    "full 32": [(4, 2, 64, 32), (8, 2, 128, 32)],
    "full 64": [(4, 2, 64, 32), (8, 2, 128, 32)],
    "full 128": [(8, 2, 16, 32)],
})  # fmt: skip
_key_gradients = tuned(key_gradients, KEY, "TQ", {
    "half 64": [(4, 2, 64, 64), (8, 2, 128, 64)],
    "half 64 general": [(4, 2, 64, 32), (8, 2, 128, 32)],
    "half 128": [(8, 2, 128, 32), (8, 2, 64, 32)],
    "half 128 general": [(8, 2, 128, 16), (8, 2, 64, 32)],
    "full 32": [(4, 2, 64, 32), (8, 2, 128, 32)],
    "full 64": [(8, 2, 32, 32), (4, 2, 32, 16)],
    "full 128": [(8, 2, 16, 32)],
})  # fmt: skip


@lru_cache(maxsize=256)
def pairs_of(epsilon: float, d: int, e: int, dtype: torch.dtype) -> Pairs:
    half = dtype in (torch.bfloat16, torch.float16)
    return Pairs(
        epsilon, d, max(16, triton.next_power_of_2(d)), e, max(16, triton.next_power_of_2(e)),
        tl.bfloat16 if half else tl.float32,  # scores may be larger than fp16 can say
        "tf32" if half else "tf32x3",
    )  # fmt: skip


@lru_cache(maxsize=64)
def packed(bounds: tuple[int, ...], device: torch.device) -> Tensor:
    """Blocks of packed sequences: (N, 3) int32, a block's first token, and its sequence."""
    return torch.tensor(
        [
            (own, start, end)
            for start, end in pairwise(bounds)
            for own in range(start, end, LONGEST_TILE)
        ],
        dtype=torch.int32,
        device=device,
    )


class Call:
    """The arguments of one call of the operators, and its launches."""

    def __init__(
        self, q: Tensor, k: Tensor, v: Tensor, epsilon: float, causal: bool,
        padding: Tensor | None, bounds: Sequence[int] | None,
    ):  # fmt: skip
        self.q, self.k, self.v, self.causal, self.padding = q, k, v, causal, padding
        self.B, self.H, self.Lq = q.shape[:3]
        self.K, self.Lk = k.shape[1], k.shape[2]
        d, e = int(q.shape[3]), int(v.shape[3])  # not symbols, where torch.compile has them
        self.M = pairs_of(epsilon, d, e, q.dtype)
        self.spans = None if bounds is None else packed(tuple(bounds), q.device)

    def new(self, u: Tensor) -> Tensor:
        """A number a token of u."""
        return torch.empty(u.shape[:3], dtype=torch.float32, device=u.device)

    def inverse_norms(self, u: Tensor, padding: Tensor | None) -> Tensor:
        r = self.new(u)
        grid = (triton.cdiv(u.shape[2], LONGEST_TILE), u.shape[0] * u.shape[1])
        _inverse_norms(
            grid, rows(u), padding, r, u.shape[2], u.shape[1], self.M.D, self.M.DP, LONGEST_TILE
        )
        return r

    def blocks(self, length: int, heads: int) -> Callable[[dict[str, Any]], tuple[int, int]]:
        """The grid of a kernel over blocks of T tokens."""
        if self.spans is not None:
            length = len(self.spans) * LONGEST_TILE
        return lambda meta: (triton.cdiv(length, meta["T"]), self.B * heads)

    def forward(self, keep: bool) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
        """y, and for the way back what it lost in rounding, z, the inverse norms of q and k."""
        r_q, r_k = self.inverse_norms(self.q, None), self.inverse_norms(self.k, self.padding)
        shape = (self.B, self.H, self.Lq, self.M.E)
        y = torch.empty(shape, dtype=self.q.dtype, device=self.q.device)
        rest = torch.empty_like(y) if keep and y.dtype != torch.float32 else y.new_empty(0)
        z = self.new(self.q)
        _outputs[self.M.kind](
            self.blocks(self.Lq, self.H),
            Tokens(rows(self.q), rows(self.q), r_q), Tokens(rows(self.k), rows(self.v), r_k),
            rows(y), rows(rest) if rest.numel() else None, z, self.spans, self.Lq, self.Lk, self.H,
            self.K, self.M, self.causal, LONGEST_TILE,
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
        queries = Tokens(rows(self.q), rows(dy), r_q)
        keys = Tokens(rows(self.k), rows(self.v), r_k)
        sizes = (self.spans, self.Lq, self.Lk, self.H, self.K, self.M, self.causal)
        _query_gradients[self.M.kind](
            self.blocks(self.Lq, self.H),
            queries, keys, rows(y), rows(rest) if rest.numel() else None, z, rows(dq), weights,
            deltas, *sizes, LONGEST_TILE,
        )  # fmt: skip
        # Grouped heads and packed sequences take registers too.
        kind = f"{self.M.kind} general" if self.H > self.K or self.spans is not None else ""
        _key_gradients[kind if kind in _key_gradients else self.M.kind](
            self.blocks(self.Lk, self.K),
            queries, keys, weights, deltas, rows(dk), rows(dv), *sizes, self.H // self.K,
            LONGEST_TILE,
        )  # fmt: skip
        return dq, dk, dv


@torch.library.custom_op("slay::exact_yat", mutates_args=())
def _forward(
    q: Tensor, k: Tensor, v: Tensor, epsilon: float, causal: bool,
    padding: Tensor | None, bounds: Sequence[int] | None, keep: bool,
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:  # fmt: skip
    return Call(q, k, v, epsilon, causal, padding, bounds).forward(keep)


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
    return Call(q, k, v, epsilon, causal, padding, bounds).backward(y, rest, z, r_q, r_k, dy)


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
    are the last Lq of Lk tokens. `key_padding_mask`: (B, Lk), True for keys that are not there;
    `bounds`: where packed sequences begin and end, 0 to L = Lq = Lk. Returns (B, H, Lq, e) in v's
    dtype. Norms are zero or between 1e-15 and 1e15.
    """
    padding = None if key_padding_mask is None else key_padding_mask.contiguous().view(torch.uint8)
    keep = torch.is_grad_enabled() and any(t.requires_grad for t in (q, k, v))
    return _forward(q, k, v, epsilon, causal, padding, bounds, keep)[0]
