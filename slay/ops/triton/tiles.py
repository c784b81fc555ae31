"""Tiles of tensors in registers: loading, storing, casting and multiplying them."""

from __future__ import annotations

from typing import NamedTuple

import triton
import triton.language as tl
from torch import Tensor

INTERPRETED = tl.constexpr(bool(triton.knobs.runtime.interpret))
TINY = tl.constexpr(1.1754943508222875e-38)  # smallest normal float32
LARGEST_HALF = tl.constexpr(65504.0)


class Rows(NamedTuple):
    """A tensor (B, H, L, width) whose last axis is contiguous, and its other strides."""

    data: Tensor
    batch: int
    head: int
    token: int


def rows(t: Tensor) -> Rows:
    """`Rows` of a tensor (B, H, L, width); expanded axes have stride 0."""
    if t.stride(-1) != 1:
        t = t.contiguous()
    return Rows(t, t.stride(0), t.stride(1), t.stride(2))


# A block of tokens is given by a tuple `at`: batch, head, first token, end of its sequence.


@triton.jit
def wide(i):
    """i as int64: products of sizes and strides may overflow int32."""
    return tl.full((), 0, tl.int64) + i


@triton.jit
def pointer(x, at):
    """Pointer to the first token of a block."""
    b, h, t0, _ = at
    return x.data + wide(b) * x.batch + wide(h) * x.head + wide(t0) * x.token


@triton.jit
def present(at, T: tl.constexpr):
    """Mask of the T tokens that lie within the sequence: (T,)."""
    _, _, t0, end = at
    return t0 + tl.arange(0, T) < end


@triton.jit
def load_tile(x, at, T: tl.constexpr, W: tl.constexpr, WP: tl.constexpr, first=0):
    """Load columns `first`... of W, T tokens of x, zero out of bounds: (T, WP), in x's dtype."""
    t, c = tl.arange(0, T), first + tl.arange(0, WP)
    mask = present(at, T)[:, None]
    if W % WP != 0:
        mask &= (c < W)[None, :]
    return tl.load(pointer(x, at) + t[:, None] * x.token + c[None, :], mask=mask, other=0.0)


@triton.jit
def store_tile(x, value, at, T: tl.constexpr, W: tl.constexpr, WP: tl.constexpr, first=0):
    """Store `value`: (T, WP), where `load_tile` reads."""
    t, c = tl.arange(0, T), first + tl.arange(0, WP)
    mask = present(at, T)[:, None] & (c < W)[None, :]
    p = pointer(x, at) + t[:, None] * x.token + c[None, :]
    tl.store(p, cast(value, x.data.dtype.element_ty), mask=mask)


@triton.jit
def load_column(x, at, a, T: tl.constexpr, W: tl.constexpr):
    """Load column a (of W) of T tokens of x: (T,), in x's dtype; zeros if a >= W."""
    mask = present(at, T) & (a < W)
    return tl.load(pointer(x, at) + a + tl.arange(0, T) * x.token, mask=mask, other=0.0)


@triton.jit
def load_vector(x, at, H, L, T: tl.constexpr, other: tl.constexpr = 0.0):
    """Load one element per token of x: (B, H, L), `other` past the end: (T,)."""
    b, h, t0, _ = at
    p = x + (wide(b) * H + h) * L + t0 + tl.arange(0, T)
    return tl.load(p, mask=present(at, T), other=other)


@triton.jit
def store_vector(x, value, at, H, L, T: tl.constexpr):
    """Store one element per token where `load_vector` reads."""
    b, h, t0, _ = at
    p = x + (wide(b) * H + h) * L + t0 + tl.arange(0, T)
    tl.store(p, value, mask=present(at, T))


@triton.jit
def kept(padding, at, L, T: tl.constexpr):
    """Mask of tokens that exist and are not padding: (T,); padding: (B, L) bytes, 1 for padding."""
    b, _, t0, _ = at
    there = present(at, T)
    if padding is not None:
        p = padding + wide(b) * L + t0 + tl.arange(0, T)
        there &= tl.load(p, mask=there, other=1) == 0
    return there


@triton.jit
def cast(x, dtype: tl.constexpr):
    """Cast x. The interpreter (NumPy) has no bf16: values are rounded, and stay float32."""
    if INTERPRETED and dtype == tl.bfloat16:
        bits = x.to(tl.float32).to(tl.uint32, bitcast=True)
        bits = (bits + 0x7FFF + ((bits >> 16) & 1)) & 0xFFFF0000
        x = bits.to(tl.float32, bitcast=True)
    else:
        x = x.to(dtype)
    return x


@triton.jit
def zeros(n: tl.constexpr, m: tl.constexpr):
    """float32 accumulator: (n, m) zeros."""
    return tl.zeros((n, m), tl.float32)


@triton.jit
def dot(x, y, acc, M: tl.constexpr):
    """acc + x y in the dtype of the large products, with float32 accumulation."""
    return tl.dot(cast(x, M.dtype), cast(y, M.dtype), acc, input_precision=M.precision)


@triton.jit
def fine_dot(x, y, precision: tl.constexpr):
    """x y in float32, for the small products of features and normalisers."""
    return tl.dot(x.to(tl.float32), y.to(tl.float32), input_precision=precision)


@triton.jit
def scaled(x, p, M: tl.constexpr):
    """p_t x_t of tokens: (T, W), in the dtype of the large products."""
    return cast(cast(x, M.dtype) * cast(p, M.dtype)[:, None], M.dtype)


@triton.jit
def divisor(z):
    """z, or inf where a row has no weight."""
    return tl.where(tl.abs(z) < TINY, float("inf"), z)


@triton.jit
def saturating_cast(y, dtype: tl.constexpr):
    """Cast outputs; values beyond the range of float16 saturate at its largest finite number."""
    if dtype == tl.float16:
        y = tl.where(y > LARGEST_HALF, LARGEST_HALF, tl.where(y < -LARGEST_HALF, -LARGEST_HALF, y))
    return cast(y, dtype)


@triton.jit
def own_block(spans, pid, chunks, C, L, heads, T: tl.constexpr, LAST_FIRST: tl.constexpr):
    """A program's batch, head, chunk and first token, and the start and end of its chunk."""
    per_chunk = C // T
    i, bh = pid % (chunks * per_chunk), pid // (chunks * per_chunk)
    if LAST_FIRST:
        i = chunks * per_chunk - 1 - i
    n = i // per_chunk
    start, end = span(spans, n, C, L)
    return bh // heads, bh % heads, n, start + i % per_chunk * T, start, end


@triton.jit
def span(spans, n, C, L):
    """Start and (exclusive) end of chunk n; `spans` are those of packed sequences."""
    if spans is None:
        start, end = n * C, tl.minimum(n * C + C, L)
    else:
        start, end = tl.load(spans + 3 * n), tl.load(spans + 3 * n + 1)
    return start, end
