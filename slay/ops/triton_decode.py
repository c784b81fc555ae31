"""Decoding by one Triton kernel: S + [v, 1]ᵀ phi(k), and y = o / z with [o, z] = S phi(q).

A program takes some of the m features; the one that ends last adds up what all have found, in a
fixed order. The state is that of everybody, (B, K, e + 1, m), and may be overwritten.
"""

from __future__ import annotations

from functools import lru_cache
from typing import Any

import torch
import triton
import triton.language as tl
from torch import Tensor

from slay.ops.recipe import Recipe
from slay.ops.triton_configs import Tuned, config
from slay.ops.triton_linear import SHARED, Call, arguments
from slay.ops.triton_maps import INTERPRETED, Map, nearest
from slay.ops.triton_output import both_factors
from slay.ops.triton_state import divisor, keys_there, normalised

T = tl.constexpr(16)  # the token is the first row of a block, whose others are empty
NUMBERS = 4096  # of the state that a program holds in registers


def features_of(M: Map) -> tuple[int, int, int]:
    """Groups of features a program takes, features, and how many programs there are."""
    width = min(128, max(16, NUMBERS // M.EP))
    if M.degree:
        m = M.letters * (M.letters + 1) // 2 * (M.D + 1 if M.degree == 3 else 1)
        return 1, width, -(-m // width)
    if M.a == "none":
        return 1, M.BB, M.blocks
    groups = max(1, min(M.AP, width // M.BB))
    return groups, groups * M.BB, -(-M.A // groups)


@triton.jit
def first_row(F):
    """(16, W) -> (W,)."""
    return tl.sum(tl.where((tl.arange(0, T) == 0)[:, None], F, 0.0), 0)


@triton.jit
def coordinate(x, b, h, i, r, M: tl.constexpr):
    """w_i of w = (u, sqrt beta), straight from memory."""
    p = x.data + b * x.batch + h * x.head + i
    own = tl.load(p, mask=i < M.D, other=0.0).to(tl.float32) * r
    return tl.where(i < M.D, own, M.root_beta)


@triton.jit
def some_features(
    side, b, h, kv, f, M: tl.constexpr, QUERY: tl.constexpr, GROUPS: tl.constexpr,
    W: tl.constexpr,
):  # fmt: skip
    """phi of the only token in program f's part, and where it stands among the m: (W,)."""
    t = tl.arange(0, T)
    u, norms = normalised(side.u, b, h, t, 1, M)
    w = tl.arange(0, W)
    if M.degree:
        place = f * W + w
        n: tl.constexpr = M.letters
        rests: tl.constexpr = M.D + 1 if M.degree == 3 else 1
        pair = place // rests
        r = tl.sum(tl.where(t == 0, norms, 0.0), 0)
        i, j = pair % n, (pair % n + pair // n) % n
        phi = coordinate(side.u, b, h, i, r, M) * coordinate(side.u, b, h, j, r, M)
        phi *= tl.where(i == j, 1.0, 1.4142135623730951)
        if M.degree == 3:
            rest = place % rests - 1
            own = coordinate(side.u, b, h, tl.maximum(rest, 0), r, M)
            phi *= tl.where(rest < 0, 1.0, own)
        there = place < n * (n + 1) // 2 * rests
    elif M.a == "none":
        _, F = both_factors(side, u, b, h, kv, t, 1, f * M.BB, M, QUERY)
        phi, place = first_row(F), f * M.BB + w
        there = place < M.B
    else:
        P, F = both_factors(side, u, b, h, kv, t, 1, 0, M, QUERY)
        g, a = f * GROUPS + tl.arange(0, GROUPS), tl.arange(0, M.AP)
        p = tl.sum(tl.where(g[:, None] == a[None, :], first_row(P)[None, :], 0.0), 1)
        phi = tl.reshape(p[:, None] * first_row(F)[None, :], (W,))
        place, there = (f * GROUPS + w // M.BB) * M.B + w % M.BB, w % M.BB < M.B
        there &= f * GROUPS + w // M.BB < M.A
    return tl.where(there, phi, 0.0), place, there


@triton.jit
def finish(partial, y, bh, M: tl.constexpr, NF: tl.constexpr, NFP: tl.constexpr):
    """y of a head from what all programs have found."""
    part, e = tl.arange(0, NFP), tl.arange(0, M.EP)
    p = partial + (bh * NF + part) * (M.E + 1)
    mask = (part < NF)[:, None] & (e < M.E)[None, :]
    o = tl.sum(tl.load(p[:, None] + e[None, :], mask=mask, other=0.0, volatile=True), 0)
    z = tl.sum(tl.load(p + M.E, mask=part < NF, other=0.0, volatile=True), 0)
    o = o / divisor(z)
    if INTERPRETED and y.dtype.element_ty == tl.bfloat16:
        o = nearest(o)
    tl.store(y + bh * M.E + e, o, mask=e < M.E)


@triton.jit
def decode(
    queries, keys, S, S_new, partial, counters, y, m, H, K,
    M: tl.constexpr, G: tl.constexpr, GROUPS: tl.constexpr, W: tl.constexpr, NF: tl.constexpr,
    NFP: tl.constexpr,
):  # fmt: skip
    """One token a sequence; grid (NF, B K). partial: (B H, NF, E + 1); counters: (B K,), zeros."""
    f, bk = tl.program_id(0), tl.program_id(1)
    b, kv = bk // K, bk % K
    e = tl.arange(0, M.EP)
    phi, place, there = some_features(keys, b, kv, kv, f, M, False, GROUPS, W)
    if keys.padding is not None:
        kept = keys_there(keys.padding, b, tl.arange(0, T), 1, 1)
        phi *= tl.sum(kept.to(tl.float32), 0)
    values = keys.w.data + b * keys.w.batch + kv * keys.w.head + e
    v = tl.load(values, mask=e < M.E, other=0.0).to(tl.float32)
    S += bk.to(tl.int64) * (M.E + 1) * m
    S_new += bk.to(tl.int64) * (M.E + 1) * m
    at = e[:, None] * m + place[None, :]
    mask = (e < M.E)[:, None] & there[None, :]
    new = tl.load(S + at, mask=mask, other=0.0) + v[:, None] * phi[None, :]  # (EP, W)
    tl.store(S_new + at, new, mask=mask)
    at = M.E * m + place
    sums = tl.load(S + at, mask=there, other=0.0) + phi
    tl.store(S_new + at, sums, mask=there)
    for g in range(G):
        h = kv * G + g
        phi, _, _ = some_features(queries, b, h, kv, f, M, True, GROUPS, W)
        own = partial + ((b * H + h) * NF + f) * (M.E + 1)
        tl.store(own + e, tl.sum(new * phi[None, :], 1), mask=e < M.E)
        tl.store(own + M.E, tl.sum(sums * phi, 0))
    tl.debug_barrier()
    if tl.atomic_add(counters + bk, 1) == NF - 1:
        for g in range(G):
            finish(partial, y, b * H + kv * G + g, M, NF, NFP)
        tl.store(counters + bk, 0)


_decode = {"64": Tuned(decode, []), "128": Tuned(decode, [], config(8, 1))}


@lru_cache(maxsize=64)
def _counters(number: int, device: torch.device, stream: int) -> Tensor:
    """Zeros, which every launch leaves as it found them; launches of a stream come in turns."""
    return torch.zeros(number, dtype=torch.int32, device=device)


def stream_of(device: torch.device) -> int:
    """Where a launch goes."""
    return torch.cuda.current_stream(device).cuda_stream if device.type == "cuda" else 0


def decode_launch(call: Call, state: Tensor, new_state: Tensor) -> Tensor:
    """y: (B, H, 1, E) of a call for one token."""
    M, bh, bk = call.M, call.B * call.H, call.B * call.K
    groups, width, parts = features_of(M)
    y = call.v.new_empty(call.B, call.H, 1, M.E)
    partial = call.new(bh, parts, M.E + 1)
    counters = _counters(bk, y.device, stream_of(y.device))
    _decode["128" if max(M.DP, M.EP) > 64 else "64"](
        (parts, bk),
        call.queries(call.q), call.keys(), state, new_state, partial, counters, y,
        state.shape[-1], call.H, call.K,
        M, call.H // call.K, groups, width, parts, triton.next_power_of_2(parts),
    )  # fmt: skip
    return y


@torch.library.custom_op(
    "slay::decode",
    mutates_args=("new_state",),
    schema=f"({SHARED}, Tensor state, Tensor(a!) new_state) -> Tensor",
)
def _operator(*arguments: Any) -> Tensor:
    *shared, state, new_state = arguments
    return decode_launch(Call(*shared), state, new_state)


@_operator.register_fake
def _(q, k, v, *rest):
    return q.new_empty(*q.shape[:3], v.shape[3])


def decode_attention(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    recipe: Recipe,
    state: Tensor,
    *,
    key_padding_mask: Tensor | None = None,
    overwrite: bool = False,
) -> tuple[Tensor, Tensor]:
    """One token, L = 1, after a state (B, K, e + 1, m): y and the next state.

    With `overwrite` the next state takes the place of this one. There is no gradient.
    """
    tensors, kinds = arguments(recipe, key_padding_mask)
    state = state.contiguous()
    new_state = state if overwrite else torch.empty_like(state)
    y = torch.ops.slay.decode(q, k, v, *tensors, None, *kinds, True, 0, state, new_state)
    return y, new_state
