"""Triton kernels of the feature maps: factors P and F from tokens, and their backward pass.

Each token is read once and its narrow factors are written once, so that the other kernels do not
depend on the feature map. `FeatureSpec` lists the kinds. With s = W u:

    du = sum W_iᵀ ds_i,    ds = dF F'(s),    and for u = x / ‖x‖,  dx = (du - (du·u) u) / ‖x‖.
"""

from __future__ import annotations

import math
from typing import Any

import torch
import triton
import triton.language as tl
from torch import Tensor

from slay.features.elementwise import LOWEST as LOWEST_EXPONENT
from slay.ops.triton.configs import Config, Kernel
from slay.ops.triton.tiles import (
    INTERPRETED,
    fine_dot,
    kept,
    load_tile,
    rows,
    store_tile,
    zeros,
)
from slay.ops.triton.tiling import PRECISIONS

HALF_PI = tl.constexpr(math.pi / 2)
LOG2E = tl.constexpr(1.4426950408889634)
LOWEST = tl.constexpr(LOWEST_EXPONENT)


@triton.jit
def exponential(x):
    """exp x."""
    return tl.exp2(x * LOG2E)


@triton.jit
def cosine(x):
    """cos x for |x| of at most a few tens, by the special function unit, without a slow path."""
    if INTERPRETED:
        x = tl.cos(x)
    else:
        x = tl.inline_asm_elementwise(
            "cos.approx.f32 $0, $1;", "=f,f", [x], dtype=tl.float32, is_pure=True, pack=1
        )  # fmt: skip
    return x


@triton.jit
def load_unit(x, padding, at, L, D: tl.constexpr, DP: tl.constexpr, UNIT: tl.constexpr,
              T: tl.constexpr):  # fmt: skip
    """Tokens u: (T, DP) and 1 / ‖x‖ (1 unless `UNIT`): (T,). Padding reads as zeros."""
    u = load_tile(x, at, T, D, DP).to(tl.float32)
    if padding is not None:
        u = tl.where(kept(padding, at, L, T)[:, None], u, 0.0)
    r = tl.full((T,), 1.0, tl.float32)
    if UNIT:
        top = tl.max(tl.abs(u), 1)  # its square may overflow or underflow
        safe = tl.where(top > 1e-37, 1.0 / top, 0.0)
        n = tl.sum(u * safe[:, None] * (u * safe[:, None]), 1)
        r = tl.where(n > 0.0, safe * tl.rsqrt(n), 0.0)
        u *= r[:, None]
    return u, r


@triton.jit
def load_weight(weight, kv, first, N: tl.constexpr, NP: tl.constexpr, D: tl.constexpr,
                DP: tl.constexpr):  # fmt: skip
    """Rows `first`... of head kv's weights (K, N, D): (NP, DP)."""
    n, d = first + tl.arange(0, NP), tl.arange(0, DP)
    mask = (n < N)[:, None] & (d < D)[None, :]
    return tl.load(weight + (kv * N + n)[:, None] * D + d[None, :], mask=mask, other=0.0)


@triton.jit
def number(numbers, which: tl.constexpr, first, N: tl.constexpr, NP: tl.constexpr):
    """Constants c or c' of columns `first`...: (1, NP)."""
    n = first + tl.arange(0, NP)
    return tl.load(numbers + which * N + n, mask=n < N, other=0.0)[None, :]


@triton.jit
def activation(s, offset, numbers, first, KIND: tl.constexpr, QUERY: tl.constexpr,
               B: tl.constexpr, W: tl.constexpr):  # fmt: skip
    """Columns of F from s: (T, W); `offset`: (T,), subtracted from exponents."""
    if KIND == "exp":
        F = exponential(s + number(numbers, 0, first, B, W))
    elif KIND == "softmax":
        e = s + number(numbers, 0, first, B, W) - offset[:, None]
        if not QUERY:
            e = tl.maximum(e, LOWEST)
        F = exponential(e)
    elif KIND == "hadamard":
        F = s * s * exponential(s + number(numbers, 0, first, B, W))
        F *= number(numbers, 1, first, B, W)
    elif KIND == "cos":
        F = cosine(s + number(numbers, 0, first, B, W)) * number(numbers, 1, first, B, W)
    elif KIND == "relu":
        F = tl.maximum(s, 0.0) + number(numbers, 0, first, B, W)
        F *= number(numbers, 1, first, B, W)
    elif KIND == "elu":
        e = tl.minimum(s, 0.0) - offset[:, None]
        if not QUERY:
            e = tl.maximum(e, LOWEST)
        F = tl.where(s > 0.0, s + 1.0, exponential(e))
    else:
        F = s
    return F


@triton.jit
def slope(s, F, dF, offset, numbers, first, KIND: tl.constexpr, QUERY: tl.constexpr,
          B: tl.constexpr, W: tl.constexpr):  # fmt: skip
    """ds from dF: (T, W); `offset` as for `activation`."""
    if KIND == "exp":
        ds = dF * F
    elif KIND == "softmax":
        ds = dF * F
        if not QUERY:
            e = s + number(numbers, 0, first, B, W) - offset[:, None]
            ds = tl.where(e < LOWEST, 0.0, ds)
    elif KIND == "hadamard":
        ds = dF * (2.0 * s + s * s) * exponential(s + number(numbers, 0, first, B, W))
        ds *= number(numbers, 1, first, B, W)
    elif KIND == "cos":
        ds = -dF * cosine(s + number(numbers, 0, first, B, W) - HALF_PI)
        ds *= number(numbers, 1, first, B, W)
    elif KIND == "relu":
        ds = tl.where(s > 0.0, dF, 0.0) * number(numbers, 1, first, B, W)
    elif KIND == "elu":
        ds = dF * tl.where(s > 0.0, 1.0, F)
        if not QUERY:
            ds = tl.where(s < LOWEST, 0.0, ds)
    else:
        ds = dF
    return ds


@triton.jit
def top_exponent(u, weight, numbers, kv, D: tl.constexpr, DP: tl.constexpr, B: tl.constexpr,
                 W: tl.constexpr, PRECISION: tl.constexpr):  # fmt: skip
    """The largest s + c of a token over all columns: (T,)."""
    top = tl.sum(u, 1) * 0.0 - float("inf")
    for first in range(0, B, W):
        s = fine_dot(u, tl.trans(load_weight(weight, kv, first, B, W, D, DP)), PRECISION)
        e = s + number(numbers, 0, first, B, W)
        there = (first + tl.arange(0, W) < B)[None, :]
        top = tl.maximum(top, tl.max(tl.where(there, e, -float("inf")), 1))
    return top


@triton.jit
def offset_of(u, weight, numbers, kv, KIND: tl.constexpr, QUERY: tl.constexpr, D: tl.constexpr,
              DP: tl.constexpr, B: tl.constexpr, W: tl.constexpr,
              PRECISION: tl.constexpr):  # fmt: skip
    """Offset that "softmax" and "elu" subtract from a token's exponents: (T,).

    For queries it is the largest exponent, which keeps their features within range; a per-query
    scale cancels in y.
    """
    offset = tl.sum(u * u, 1)
    if KIND == "elu":
        offset *= 0.0
        if QUERY:
            there = (tl.arange(0, DP) < D)[None, :]
            offset = tl.minimum(tl.max(tl.where(there, u, -float("inf")), 1), 0.0)
    if KIND == "softmax":
        if QUERY:
            offset = top_exponent(u, weight, numbers, kv, D, DP, B, W, PRECISION)
        else:
            offset *= tl.load(numbers + B)
    return offset


@triton.jit
def columns(u, weight, kv, first, D: tl.constexpr, DP: tl.constexpr, B: tl.constexpr,
            W: tl.constexpr, PRECISION: tl.constexpr):  # fmt: skip
    """s = W u for columns `first`...: (T, W); without weights u itself, and W = DP."""
    s = u
    if weight is not None:
        s = fine_dot(u, tl.trans(load_weight(weight, kv, first, B, W, D, DP)), PRECISION)
    return s


@triton.jit(do_not_specialize=["L", "H", "K"])
def features_fwd(
    # pointers
    x, padding, p_weight, p_second, f_weight, f_numbers, P, F,
    # sizes
    L, H, K,
    # constants
    D: tl.constexpr, DP: tl.constexpr, A: tl.constexpr, AP: tl.constexpr, B: tl.constexpr,
    W: tl.constexpr, P_KIND: tl.constexpr, F_KIND: tl.constexpr, UNIT: tl.constexpr,
    QUERY: tl.constexpr, PRECISION: tl.constexpr, T: tl.constexpr,
):  # fmt: skip
    """P and F of a block of tokens; grid (blocks x B H,)."""
    blocks = tl.cdiv(L, T)
    bh, t0 = tl.program_id(0) // blocks, tl.program_id(0) % blocks * T
    at, kv = (bh // H, bh % H, t0, L), bh % H // (H // K)
    u = load_unit(x, padding, at, L, D, DP, UNIT, T)[0]
    if P is not None:
        p = columns(u, p_weight, kv, 0, D, DP, A, AP, PRECISION)
        if P_KIND == "product":
            p *= columns(u, p_second, kv, 0, D, DP, A, AP, PRECISION)
        else:
            p *= p
        store_tile(P, p, at, T, A, AP)
    if F is not None:
        offset = offset_of(u, f_weight, f_numbers, kv, F_KIND, QUERY, D, DP, B, W, PRECISION)
        for first in range(0, B, W):
            s = columns(u, f_weight, kv, first, D, DP, B, W, PRECISION)
            f = activation(s, offset, f_numbers, first, F_KIND, QUERY, B, W)
            store_tile(F, f, at, T, B, W, first)


@triton.jit
def factor_bwd(u, weight, second, dP, at, kv, D: tl.constexpr, DP: tl.constexpr, A: tl.constexpr,
               AP: tl.constexpr, KIND: tl.constexpr, PRECISION: tl.constexpr,
               T: tl.constexpr):  # fmt: skip
    """du from dP of P = (W u)^2, or of (W u)(V u): (T, DP)."""
    g = load_tile(dP, at, T, A, AP).to(tl.float32)
    w = load_weight(weight, kv, 0, A, AP, D, DP)
    s = fine_dot(u, tl.trans(w), PRECISION)
    if KIND == "product":
        w2 = load_weight(second, kv, 0, A, AP, D, DP)
        du = fine_dot(g * fine_dot(u, tl.trans(w2), PRECISION), w, PRECISION)
        du += fine_dot(g * s, w2, PRECISION)
    else:
        du = fine_dot(2.0 * g * s, w, PRECISION)
    return du


@triton.jit(do_not_specialize=["L", "H", "K"])
def features_bwd(
    # pointers
    x, padding, p_weight, p_second, f_weight, f_numbers, dP, dF, dx,
    # sizes
    L, H, K,
    # constants
    D: tl.constexpr, DP: tl.constexpr, A: tl.constexpr, AP: tl.constexpr, B: tl.constexpr,
    W: tl.constexpr, P_KIND: tl.constexpr, F_KIND: tl.constexpr, UNIT: tl.constexpr,
    QUERY: tl.constexpr, PRECISION: tl.constexpr, T: tl.constexpr,
):  # fmt: skip
    """dx of a block of tokens from dP and dF; grid (blocks x B H,)."""
    blocks = tl.cdiv(L, T)
    bh, t0 = tl.program_id(0) // blocks, tl.program_id(0) % blocks * T
    at, kv = (bh // H, bh % H, t0, L), bh % H // (H // K)
    u, r = load_unit(x, padding, at, L, D, DP, UNIT, T)
    du = zeros(T, DP)
    if dP is not None:
        du += factor_bwd(
            u, p_weight, p_second, dP, at, kv, D, DP, A, AP, P_KIND, PRECISION, T
        )  # fmt: skip
    if dF is not None:
        offset = offset_of(u, f_weight, f_numbers, kv, F_KIND, QUERY, D, DP, B, W, PRECISION)
        for first in range(0, B, W):
            s = columns(u, f_weight, kv, first, D, DP, B, W, PRECISION)
            f = activation(s, offset, f_numbers, first, F_KIND, QUERY, B, W)
            g = load_tile(dF, at, T, B, W, first).to(tl.float32)
            ds = slope(s, f, g, offset, f_numbers, first, F_KIND, QUERY, B, W)
            if f_weight is None:
                du += ds
            else:
                ds = tl.where((first + tl.arange(0, W) < B)[None, :], ds, 0.0)
                du += fine_dot(ds, load_weight(f_weight, kv, first, B, W, D, DP), PRECISION)
            if F_KIND == "softmax" and not QUERY:
                du -= (2.0 * tl.load(f_numbers + B) * tl.sum(ds, 1))[:, None] * u
    if UNIT:
        du = r[:, None] * (du - tl.sum(du * u, 1)[:, None] * u)
    if padding is not None:
        du = tl.where(kept(padding, at, L, T)[:, None], du, 0.0)
    store_tile(dx, du, at, T, D, DP)


def _configs(key: str) -> list[Config]:
    """Candidates by head dimension, from (warps, tokens per program)."""
    d, precision = int(key.split()[3]), key.split()[4]
    sizes = [(2, 16), (4, 64)]
    if precision == "fp32":
        sizes = [(2, 16), (4, 16)] if d < 128 else [(8, 16)]
    elif d > 32:
        sizes = [(2, 16), (4, 32)] if d < 128 else [(2, 16), (4, 16), (8, 32)]
    return [Config(warps, 1, (("T", T),)) for warps, T in sizes]


_fwd, _bwd = Kernel(features_fwd, _configs), Kernel(features_bwd, _configs)


def width(dp: int) -> int:
    """Columns of F computed at once, limited by registers for their weights."""
    return 64 if dp <= 64 else 16


def features_key(p: str, f: str, d: int, dtype: torch.dtype) -> str:
    """Key of the call class for which configurations are verified and chosen."""
    return f"features {p} {f} {max(16, triton.next_power_of_2(d))} {PRECISIONS[dtype]}"


class Maps:
    """Arguments of one operator call: tokens x, (B, H, L, d), and their feature maps."""

    def __init__(
        self, x: Tensor, p_weight: Tensor | None, p_second: Tensor | None,
        f_weight: Tensor | None, f_numbers: Tensor | None, padding: Tensor | None,
        p: str, f: str, unit: bool, query: bool, fine: bool,
    ):  # fmt: skip
        d = int(x.shape[3])  # a plain int, not a SymInt
        half = x.dtype != torch.float32
        dp = max(16, triton.next_power_of_2(d))
        a = 1 if p_weight is None else p_weight.shape[1]
        b = d if f_weight is None else f_weight.shape[1]
        self.x, self.a, self.b = x, a, b
        self.has_p, self.has_f = p in ("square", "product"), f != "given"
        self.kv_heads = next((w.shape[0] for w in (p_weight, f_weight) if w is not None), 1)
        self.dtype = torch.float32 if fine else torch.bfloat16
        self.key = features_key(p, f, d, x.dtype)
        self.shared = {
            "x": rows(x), "padding": padding, "p_weight": p_weight, "p_second": p_second,
            "f_weight": f_weight, "f_numbers": f_numbers,
            "L": x.shape[2], "H": x.shape[1], "K": self.kv_heads,
            "D": d, "DP": dp, "A": a, "AP": max(16, triton.next_power_of_2(a)), "B": b,
            "W": dp if f_weight is None else min(width(dp), max(16, triton.next_power_of_2(b))),
            "P_KIND": p, "F_KIND": f, "UNIT": unit, "QUERY": query and f in ("softmax", "elu"),
            "PRECISION": "tf32" if half else "tf32x3",
        }  # fmt: skip

    def grid(self, tiles: dict[str, int]) -> tuple[int]:
        B, H, L = self.x.shape[:3]
        return (B * H * triton.cdiv(L, tiles["T"]),)

    def empty(self) -> tuple[Tensor, Tensor]:
        """Allocate P and F: (B, H, L, A), (B, H, L, B); empty if not computed here."""
        shape, none = self.x.shape[:3], self.x.new_empty(0, dtype=self.dtype)
        P, F = (self.x.new_empty(*shape, n, dtype=self.dtype) for n in (self.a, self.b))
        return (P if self.has_p else none), (F if self.has_f else none.clone())

    def forward(self) -> tuple[Tensor, Tensor]:
        P, F = self.empty()
        out = {"P": rows(P) if self.has_p else None, "F": rows(F) if self.has_f else None}
        _fwd(self.grid, self.key, self.x.shape[2], **self.shared, **out)
        return P, F

    def backward(self, dP: Tensor | None, dF: Tensor | None) -> Tensor:
        dx = torch.empty(self.x.shape, dtype=self.x.dtype, device=self.x.device)
        out = {
            "dP": rows(dP) if self.has_p and dP is not None else None,
            "dF": rows(dF) if self.has_f and dF is not None else None,
            "dx": rows(dx),
        }
        _bwd(self.grid, self.key, self.x.shape[2], **self.shared, **out)
        return dx


_SHARED = """
    Tensor x, Tensor? p_weight, Tensor? p_second, Tensor? f_weight, Tensor? f_numbers,
    Tensor? padding, str p, str f, bool unit, bool query, bool fine
"""


@torch.library.custom_op(
    "slay::features", mutates_args=(), schema=f"({_SHARED}) -> (Tensor, Tensor)"
)
def features(*arguments: Any) -> tuple[Tensor, Tensor]:
    """P and F of tokens, (B, H, L, A) and (B, H, L, B); empty if not computed here."""
    return Maps(*arguments).forward()


@features.register_fake
def _(*arguments):
    return Maps(*arguments).empty()


@torch.library.custom_op(
    "slay::features_backward",
    mutates_args=(),
    schema=f"({_SHARED}, Tensor? dP, Tensor? dF) -> Tensor",
)
def _features_backward(*arguments: Any) -> Tensor:
    *shared, dP, dF = arguments
    return Maps(*shared).backward(dP, dF)


@_features_backward.register_fake
def _(x, *rest):
    return torch.empty(x.shape, dtype=x.dtype, device=x.device)


def _keep(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, Tensor]) -> None:
    *tensors, ctx.p, ctx.f, ctx.unit, ctx.query, ctx.fine = inputs
    ctx.save_for_backward(*tensors)
    ctx.set_materialize_grads(False)


def _differentiate(ctx: Any, dP: Tensor | None, dF: Tensor | None) -> Any:
    if dP is None and dF is None:
        return (None,) * 11
    settings = ctx.p, ctx.f, ctx.unit, ctx.query, ctx.fine
    dx = torch.ops.slay.features_backward(*ctx.saved_tensors, *settings, dP, dF)
    return (dx, *[None] * 10)


features.register_autograd(_differentiate, setup_context=_keep)
