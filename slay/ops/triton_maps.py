"""Feature maps inside Triton kernels: phi = a (x) b of a block of tokens, formed in registers.

A factor is given by its columns, or is an elementwise function of s = W u (`Map` says which), so
that nothing wider than a head is ever read or written. In the code T is the number of tokens of a
block, `DP` the head dimension rounded up to a power of two, and a factor's columns beyond its
width are zero. Polynomials of x = q·k need no factor but u itself; see `slay.ops.triton_state`.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from typing import Any, NamedTuple

import triton
import triton.language as tl
from torch import Tensor

HALF_PI = tl.constexpr(math.pi / 2)
LOG2E = tl.constexpr(1.4426950408889634)
INTERPRETED = tl.constexpr(bool(triton.knobs.runtime.interpret))
DELTA = tl.constexpr(1e-12)  # that of slay.ops.normalise
# Kernels depend on the properties of `Map` too, which Triton's cache does not look at.
CODE = sha256(Path(__file__).read_bytes()).hexdigest()[:16]


class Rows(NamedTuple):
    """A tensor (B, H, L, width) whose last axis is contiguous, and its other strides."""

    data: Tensor
    batch: int
    head: int
    token: int


class Factor(NamedTuple):
    """What a factor is computed from: its columns, or weights (K, width, d) and numbers a column.

    `second` are the other weights of a product (W u)(W' u). `bias`: (2, width) float32.
    """

    given: Rows | None
    weight: Tensor | None
    second: Tensor | None
    bias: Tensor | None


@dataclass(frozen=True)
class Map:
    """What a kernel is compiled for: the kinds of both factors, and sizes.

    Kinds of a: "none" (phi = b), "given", "square" (W u)^2, "product" (W u)(W' u).
    Kinds of b, with s = W u and numbers (c, c') a column: "given"; "exp", exp(s + c); "hadamard",
    s^2 exp(s + c) c'; "cos", cos(s + c) c'; "relu", (relu(s) + c) c'; "softmax",
    exp(s + c - c' ‖u‖^2); "elu", elu(s) + 1. Without weights s = u, whose columns are then "given".
    With `degree` 2 or 3 there are no factors (B = D, a block): k = c0 + c1 x + c2 x^2 + c3 x^3.
    """

    a: str
    b: str
    degree: int
    unit: bool  # u is first projected to the sphere
    D: int  # head dimension
    DP: int
    E: int  # value dimension
    EP: int
    A: int  # columns of a
    AP: int
    B: int  # columns of b
    BB: int  # in blocks of that many
    c: tuple[float, ...]  # c0, c1, c2, c3
    weights: bool  # whether b has weights
    dtype: Any  # of the large matrix products: tl.bfloat16 or tl.float32
    precision: str  # of the products that make features
    code: str = CODE

    @property
    def columnwise(self) -> bool:
        """Whether a column of b is a function of that column of u alone."""
        return not (self.degree or self.weights or self.b == "given")

    @property
    def projects(self) -> bool:
        """Whether factors are functions of W u."""
        return self.weights or self.a in ("square", "product")

    @property
    def c0(self) -> float:
        return self.c[0]

    @property
    def c1(self) -> float:
        return self.c[1]

    @property
    def c2(self) -> float:
        return self.c[2]

    @property
    def c3(self) -> float:
        return self.c[3]

    @property
    def size(self) -> str:
        """The class of shapes that configurations are chosen by: the widest block of tokens."""
        width = max(32, self.DP, self.EP, self.AP, self.BB)
        if self.dtype == tl.float32:
            return "full 32" if width == 32 else "full"
        return f"{width} polynomial" if width > 32 and self.degree else str(width)

    @property
    def blocks(self) -> int:
        """Blocks of b."""
        return -(-self.B // self.BB)

    @property
    def values_at_once(self) -> int:
        """Of how many values gradients fit into registers."""
        if self.dtype == tl.float32:
            return 32 if self.a != "none" else 64
        return 64 if self.degree or self.b == "given" else 128

    @property
    def values_first(self) -> bool:
        """Whether gradients of values are formed in a pass of their own, to save registers."""
        return self.dtype == tl.float32 and self.a != "none"

    @property
    def slice(self) -> int:
        """Columns of a wide head that are multiplied at once, where they have a common sum."""
        small = self.dtype == tl.float32 or (self.DP == 64 and not self.degree)
        return 32 if small else 64

    @property
    def columns(self) -> int:
        """Columns of a polynomial's gradient that are formed at once."""
        return min(self.DP, 64)

    @property
    def half(self) -> int:
        """Rows of u (x) u that are kept whole; of the others only their second half."""
        return self.D // 2 if self.D == self.DP and self.D >= 32 else self.D

    @property
    def linear_row(self) -> int:
        """The state's first row of u itself, after those of u (x) u."""
        return self.half * self.D + (self.D - self.half) ** 2

    @property
    def cubic_row(self) -> int:
        """The state's first row of u_i u_j (x) u, j <= i, after u and 1."""
        return self.linear_row + self.D + 1

    @property
    def cubic_sums(self) -> int:
        """Where their part of s begins, after those of u uᵀ, u and 1."""
        return self.D * self.D + self.D + 1

    @property
    def root_beta(self) -> float:
        """sqrt(beta) of (x + beta)^2, and of (x + beta)^2 (1 + x)."""
        beta = self.c1 / 2 if self.degree == 2 else (self.c2 - 1) / 2
        return math.sqrt(max(0.0, beta))

    @property
    def letters(self) -> int:
        """Numbers whose pairs are the features of a square: those of u, and sqrt beta if it is."""
        return self.D + 1 if self.root_beta > 0.0 else self.D

    @property
    def pairs(self) -> int:
        """Pairs (i, j) of a cubic."""
        return self.D * (self.D + 1) // 2 if self.degree == 3 else 0

    @property
    def rows(self) -> int:
        """Rows of the state S: (rows, E)."""
        if self.degree:
            return self.cubic_row + self.pairs * self.D
        return self.A * self.B

    @property
    def sums(self) -> int:
        """Numbers of the normaliser's state s."""
        if self.degree:
            return self.cubic_sums + self.pairs * self.D
        return self.A * self.B

    @property
    def state(self) -> int:
        """Numbers of both."""
        return self.rows * self.E + self.sums

    @property
    def groups(self) -> int:
        """Groups p_a F that a program sums, in tiles of 64 rows or more."""
        return self._per_program(self.DP if self.degree else self.BB)

    @property
    def tiles(self) -> int:
        """Those tiles: as many as fit into registers."""
        rows = max(64, self.DP if self.degree else self.BB)
        return min(max(1, 8192 // (rows * self.EP)), 2 if self.degree == 3 else 4)

    @property
    def half_groups(self) -> int:
        """Groups of half the width that a program sums."""
        return self._per_program(self.D - self.half) if self.half < self.D else 0

    @property
    def whole_programs(self) -> int:
        """Programs for the rows of u (x) u that are kept whole."""
        return -(-self.half // self.groups)

    @property
    def half_programs(self) -> int:
        """Programs for those of which the second half is kept."""
        return -(-(self.D - self.half) // self.half_groups) if self.half_groups else 0

    @property
    def programs(self) -> int:
        """Programs a chunk that together sum its state."""
        if self.degree:
            cubic = -(-self.pairs // self.groups)
            return self.whole_programs + self.half_programs + cubic + 2
        return self.blocks if self.a == "none" else -(-self.A // self.groups) + 1

    def _per_program(self, width: int) -> int:
        return max(1, 64 // width) * self.tiles


@triton.jit
def zeros(n: tl.constexpr, m: tl.constexpr):
    """Sums that start: (n, m)."""
    return tl.zeros((n, m), tl.float32)


@triton.jit
def fresh(t):
    """t, of which the compiler does not know that it is the same.

    What is made of it is made again, instead of taking up registers since the first time.
    """
    if not INTERPRETED:
        t = tl.inline_asm_elementwise(
            "mov.b32 $0, $1;", "=r,r", [t], dtype=tl.int32, is_pure=False, pack=1
        )  # fmt: skip
    return t


@triton.jit
def tile(x, b, h, t, end, W: tl.constexpr, WP: tl.constexpr, first=0):
    """Columns `first`... of W of tokens t of x, zero past `end`: (T, WP), as they are stored."""
    c = first + tl.arange(0, WP)
    p = x.data + b * x.batch + h * x.head + t.to(tl.int64)[:, None] * x.token + c[None, :]
    mask = (t < end)[:, None]
    if W % WP != 0:
        mask &= (c < W)[None, :]
    return tl.load(p, mask=mask, other=0.0)


@triton.jit
def put(x, value, b, h, t, end, W: tl.constexpr, WP: tl.constexpr, first=0):
    """Store `value`: (T, WP), where `tile` reads."""
    c = first + tl.arange(0, WP)
    p = x.data + b * x.batch + h * x.head + t.to(tl.int64)[:, None] * x.token + c[None, :]
    mask = (t < end)[:, None] & (c < W)[None, :]
    if INTERPRETED and x.data.dtype.element_ty == tl.bfloat16:
        value = nearest(value)
    tl.store(p, value.to(x.data.dtype.element_ty), mask=mask)


@triton.jit
def nearest(x):
    """float32 rounded to bf16: numpy, and so the interpreter, has no bf16 to compute with."""
    bits = x.to(tl.float32).to(tl.uint32, bitcast=True)
    bits = (bits + 0x7FFF + ((bits >> 16) & 1)) & 0xFFFF0000
    return bits.to(tl.float32, bitcast=True)


@triton.jit
def narrow(x, M: tl.constexpr):
    """x as the large products take it."""
    if INTERPRETED and M.dtype == tl.bfloat16:
        x = nearest(x)
    else:
        x = x.to(M.dtype)
    return x


@triton.jit
def dot(x, y, M: tl.constexpr):
    """x y with float32 sums, in the dtype of the large products."""
    return tl.dot(narrow(x, M), narrow(y, M), input_precision=M.precision)


@triton.jit
def fine_dot(x, y, M: tl.constexpr):
    """x y for features and normalisers: small products, in better than half precision."""
    return tl.dot(x, y, input_precision=M.precision)


@triton.jit
def inverse_norm(u, M: tl.constexpr):
    """1 / ‖u‖, or 0 for a zero vector; 1 where u is not projected to the sphere: (T,)."""
    return inverse_root(tl.sum(u * u, 1), M)


@triton.jit
def inverse_root(n, M: tl.constexpr):
    """`inverse_norm` from n = ‖u‖^2."""
    if M.unit:
        r = tl.where(n == 0.0, 0.0, tl.rsqrt(n))
    else:
        r = n * 0.0 + 1.0
    return r


@triton.jit
def project(
    u, x, b, h, kv, t, end, weight, first, N: tl.constexpr, NP: tl.constexpr, M: tl.constexpr
):  # fmt: skip
    """Rows `first`... of W u for tokens u: (T, DP), of rows x; weight: (K, N, D). Returns (T, NP).

    Wide tokens are read again, in slices: whole they would fill the registers.
    """
    n = first + tl.arange(0, NP)
    weight += (kv * N + n)[None, :] * M.D
    if M.slice >= M.DP:
        d = tl.arange(0, M.DP)[:, None]
        s = fine_dot(u, tl.load(weight + d, mask=(n < N)[None, :] & (d < M.D), other=0.0), M)
    else:
        s, norm = zeros(u.shape[0], NP), tl.zeros((u.shape[0],), tl.float32)
        for d0 in range(0, M.D, M.slice):
            d = d0 + tl.arange(0, M.slice)[:, None]
            w = tl.load(weight + d, mask=(n < N)[None, :] & (d < M.D), other=0.0)
            part = tile(x, b, h, t, end, M.D, M.slice, d0).to(tl.float32)
            s += fine_dot(part, w, M)
            norm += tl.sum(part * part, 1)
        s *= inverse_root(norm, M)[:, None]
    return s


@triton.jit
def project_back(ds, weight, h, first, N: tl.constexpr, NP: tl.constexpr, M: tl.constexpr):
    """Wᵀ ds: (T, NP) -> (T, DP)."""
    n, d = first + tl.arange(0, NP), tl.arange(0, M.DP)
    mask = (n < N)[:, None] & (d < M.D)[None, :]
    w = tl.load(weight + (h * N + n)[:, None] * M.D + d[None, :], mask=mask, other=0.0)
    return fine_dot(ds, w, M)


@triton.jit
def numbers(bias, which: tl.constexpr, first, N: tl.constexpr, NP: tl.constexpr):
    """Numbers a column, c or c': (1, NP)."""
    n = first + tl.arange(0, NP)
    return tl.load(bias + which * N + n, mask=n < N, other=0.0)[None, :]


@triton.jit
def exponent(s, f, first, M: tl.constexpr):
    """s + c: (T, BB)."""
    return s + numbers(f.bias, 0, first, M.B, M.BB)


@triton.jit
def cosine(x):
    """cos x for |x| up to some tens: by the special function unit, without a slow path."""
    if INTERPRETED:
        x = tl.cos(x)
    else:
        x = tl.inline_asm_elementwise(
            "cos.approx.f32 $0, $1;", "=f,f", [x], dtype=tl.float32, is_pure=True, pack=1
        )  # fmt: skip
    return x


@triton.jit
def activation(s, offset, f, first, M: tl.constexpr):
    """b from s: (T, BB); `offset`: (T,), what "softmax" leaves out of its exponents."""
    if M.b == "exp":
        F = tl.exp2(exponent(s, f, first, M) * LOG2E)
    elif M.b == "softmax":
        F = tl.exp2((exponent(s, f, first, M) - offset[:, None]) * LOG2E)
    elif M.b == "hadamard":
        F = s * s * tl.exp2(exponent(s, f, first, M) * LOG2E)
        F *= numbers(f.bias, 1, first, M.B, M.BB)
    elif M.b == "cos":
        F = cosine(exponent(s, f, first, M)) * numbers(f.bias, 1, first, M.B, M.BB)
    elif M.b == "relu":
        F = exponent(tl.maximum(s, 0.0), f, first, M) * numbers(f.bias, 1, first, M.B, M.BB)
    else:
        F = tl.where(s > 0.0, s + 1.0, tl.exp2(tl.minimum(s, 0.0) * LOG2E))
    return within(F, first, M)


@triton.jit
def slope(s, F, dF, f, first, M: tl.constexpr):
    """ds from db: (T, BB)."""
    if M.b == "exp" or M.b == "softmax":
        ds = dF * F
    elif M.b == "hadamard":
        ds = dF * (2.0 * s + s * s) * tl.exp2(exponent(s, f, first, M) * LOG2E)
        ds *= numbers(f.bias, 1, first, M.B, M.BB)
    elif M.b == "cos":
        ds = -dF * cosine(exponent(s, f, first, M) - HALF_PI) * numbers(f.bias, 1, first, M.B, M.BB)
    elif M.b == "relu":
        ds = tl.where(s > 0.0, dF, 0.0) * numbers(f.bias, 1, first, M.B, M.BB)
    else:
        ds = dF * tl.where(s > 0.0, 1.0, F)
    return within(ds, first, M)


@triton.jit
def within(F, first, M: tl.constexpr):
    """F with zeros in columns that b does not have."""
    if M.B % M.BB != 0:
        F = tl.where((first + tl.arange(0, M.BB) < M.B)[None, :], F, 0.0)
    return F


@triton.jit
def top_exponent(u, side, b, h, kv, t, end, M: tl.constexpr):
    """The largest s + c of a token over all columns: (T,)."""
    top = tl.sum(u, 1) * 0.0 - float("inf")
    for first in range(0, M.B, M.BB):
        s = project(u, side.u, b, h, kv, t, end, side.b.weight, first, M.B, M.BB, M)
        e = exponent(s, side.b, first, M)
        e = tl.where((first + tl.arange(0, M.BB) < M.B)[None, :], e, -float("inf"))
        top = tl.maximum(top, tl.max(e, 1))
    return top


@triton.jit
def b_of(u, side, b, h, kv, t, end, first, M: tl.constexpr, QUERY: tl.constexpr):
    """A block of b for tokens u: (T, BB), and s; head h of the tokens is head kv of the weights."""
    f = side.b
    if M.weights:
        s = project(u, side.u, b, h, kv, t, end, f.weight, first, M.B, M.BB, M)
    else:
        s = tile(f.given, b, h, t, end, M.B, M.BB, first).to(tl.float32)
    if M.b == "given":
        F = s
    else:
        offset = tl.sum(u, 1)
        if M.b == "softmax":
            # A factor a query leaves y as it is; this one keeps its features within range.
            if QUERY:
                offset = top_exponent(u, side, b, h, kv, t, end, M)
            else:
                offset = tl.sum(u * u, 1) * tl.load(f.bias + M.B)
        F = activation(s, offset, f, first, M)
    return F, s


@triton.jit
def a_of(u, side, b, h, kv, t, end, M: tl.constexpr):
    """a for tokens u: (T, AP), and what its slope needs: W u and W' u."""
    f = side.a
    if M.a == "given":
        P = tile(f.given, b, h, t, end, M.A, M.AP).to(tl.float32)
        s, r = P, P
    else:
        s = project(u, side.u, b, h, kv, t, end, f.weight, 0, M.A, M.AP, M)
        r = s
        if M.a == "product":
            r = project(u, side.u, b, h, kv, t, end, f.second, 0, M.A, M.AP, M)
        P = s * r
    return P, s, r


@triton.jit
def b_back(du, dF, F, s, u, f, kv, first, M: tl.constexpr, QUERY: tl.constexpr):
    """du with what comes through a block of b: (T, DP)."""
    ds = slope(s, F, dF, f, first, M)
    du += project_back(ds, f.weight, kv, first, M.B, M.BB, M)
    if M.b == "softmax" and not QUERY:
        du -= (2.0 * tl.load(f.bias + M.B) * tl.sum(ds, 1))[:, None] * u
    return du


@triton.jit
def a_back(du, dP, s, r, f, kv, M: tl.constexpr):
    """du with what comes through a: (T, DP)."""
    if M.a == "square":
        du += project_back(2.0 * s * dP, f.weight, kv, 0, M.A, M.AP, M)
    else:
        du += project_back(r * dP, f.weight, kv, 0, M.A, M.AP, M)
        du += project_back(s * dP, f.second, kv, 0, M.A, M.AP, M)
    return du


@triton.jit
def norm_back(du, u, r, M: tl.constexpr):
    """The gradient of u before it was projected to the sphere, by u / ‖u‖ = u r: (T, DP)."""
    if M.unit:
        du = r[:, None] * (du - tl.sum(du * u, 1)[:, None] * u)
    return du


@triton.jit
def one_hot(a, WP: tl.constexpr):
    """(1, WP): 1 in column a."""
    return (tl.arange(0, WP) == a)[None, :].to(tl.float32)


@triton.jit
def column(P, a, WP: tl.constexpr):
    """Column a of P: (T, WP) -> (T, 1)."""
    return tl.sum(P * one_hot(a, WP), 1)[:, None]


@triton.jit
def beside(x, y, W: tl.constexpr):
    """[x | y]: (T, W / 2) each -> (T, W)."""
    return tl.reshape(tl.permute(tl.join(x, y), (0, 2, 1)), (x.shape[0], W))


@triton.jit
def cross_weight(M: tl.constexpr, QUERY: tl.constexpr):
    """Weights of u_j in rows of u (x) u that are kept whole: (1, DP).

    Of (i, j) and (j, i) one is kept where i lies in the first half and j in the second; it counts
    twice, on the side of the queries.
    """
    j = tl.arange(0, M.DP)
    return tl.where((j >= M.half) & QUERY, 2.0, 1.0)[None, :]


@triton.jit
def pair(g):
    """The g-th pair (i, j), j <= i."""
    g = tl.full((), 0, tl.int32) + g
    i = tl.floor((tl.sqrt(8.0 * g.to(tl.float32) + 1.0) - 1.0) * 0.5).to(tl.int32)
    i = tl.where(i * (i + 1) // 2 > g, i - 1, i)
    i = tl.where((i + 1) * (i + 2) // 2 <= g, i + 1, i)
    return i, g - i * (i + 1) // 2
