"""Decoding in one Triton kernel: S <- f S + [v, 1]ᵀ phi(k), and y = o / z with [o, z] = S phi(q).

Each program handles some of the m features; the last to finish adds up the partial results in a
fixed order. The state has the public layout, (B, K, e + 1, m), and may be overwritten. f is the
token's decay, if any.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
import triton
import triton.language as tl
from torch import Tensor

from slay.features.spec import FeatureSpec
from slay.ops.triton.configs import Config, Kernel
from slay.ops.triton.launch import factors
from slay.ops.triton.tiles import Rows, divisor, load_tile, pointer, rows, saturating_cast
from slay.ops.triton.tiling import Tiling, tiling_of


class Token(NamedTuple):
    """Factors of one token, (B, H, 1, .); for keys also the value."""

    p: Rows | None
    f: Rows
    w: Rows | None


@triton.jit
def coordinate(x, at, i, M: tl.constexpr):
    """Coordinate i of w = (u, sqrt beta) of the token."""
    own = tl.load(pointer(x, at) + i, mask=i < M.B, other=0.0).to(tl.float32)
    return tl.where(i < M.B, own, M.root_beta)


@triton.jit
def some_features(side, at, first, M: tl.constexpr, W: tl.constexpr):
    """W features of the token, from `first` on: (W,)."""
    place = first + tl.arange(0, W)
    if M.score == "dense":
        phi = tl.load(pointer(side.f, at) + place, mask=place < M.B, other=0.0).to(tl.float32)
    elif M.score == "product":
        there = place < M.A * M.B
        p = tl.load(pointer(side.p, at) + place // M.B, mask=there, other=0.0).to(tl.float32)
        f = tl.load(pointer(side.f, at) + place % M.B, mask=there, other=0.0).to(tl.float32)
        phi = p * f
    else:
        rests: tl.constexpr = M.B + 1 if M.degree == 3 else 1
        n: tl.constexpr = M.letters
        both = place // rests
        i, j = both % n, (both % n + both // n) % n
        phi = coordinate(side.f, at, i, M) * coordinate(side.f, at, j, M)
        phi *= tl.where(i == j, 1.0, 1.4142135623730951)
        if M.degree == 3:
            rest = place % rests - 1
            own = coordinate(side.f, at, tl.maximum(rest, 0), M)
            phi *= tl.where(rest < 0, 1.0, own)
    return tl.where(place < M.features, phi, 0.0)


@triton.jit
def finish(partial, y, bh, M: tl.constexpr, N: tl.constexpr, NP: tl.constexpr):
    """y of a head from the partial results of all programs."""
    part, e = tl.arange(0, NP), tl.arange(0, M.EP)
    p = partial + (bh * N + part) * (M.E + 1)
    mask = (part < N)[:, None] & (e < M.E)[None, :]
    o = tl.sum(tl.load(p[:, None] + e[None, :], mask=mask, other=0.0, volatile=True), 0)
    z = tl.sum(tl.load(p + M.E, mask=part < N, other=0.0, volatile=True), 0)
    tl.store(y + bh * M.E + e, saturating_cast(o / divisor(z), y.dtype.element_ty), mask=e < M.E)


@triton.jit(do_not_specialize=["H", "K"])
def decode(
    # pointers
    queries, keys, padding, log_decay, S, S_new, partial, counters, y,
    # sizes
    H, K,
    # constants
    M: tl.constexpr, G: tl.constexpr, W: tl.constexpr, N: tl.constexpr, NP: tl.constexpr,
):  # fmt: skip
    """One token per sequence; grid (N x B K,).

    partial: (B H, N, E + 1); counters: (B K,), zeros.
    """
    part, bk = tl.program_id(0) % N, tl.program_id(0) // N
    b, kv = bk // K, bk % K
    place, e = part * W + tl.arange(0, W), tl.arange(0, M.EP)
    at = (b, kv, b * 0, b * 0 + 1)
    phi = some_features(keys, at, part * W, M, W)
    v = tl.sum(load_tile(keys.w, at, 1, M.E, M.EP).to(tl.float32), 0)
    kept = 1.0
    if log_decay is not None:
        kept = tl.exp(tl.load(log_decay + bk))
    if padding is not None:
        there = tl.load(padding + b) == 0
        phi = tl.where(there, phi, 0.0)
        v = tl.where(there, v, 0.0)
    there = place < M.features
    S += bk.to(tl.int64) * ((M.E + 1) * M.features)
    S_new += bk.to(tl.int64) * ((M.E + 1) * M.features)
    row = e[:, None] * M.features + place[None, :]
    mask = (e < M.E)[:, None] & there[None, :]
    new = kept * tl.load(S + row, mask=mask, other=0.0) + v[:, None] * phi[None, :]  # (EP, W)
    tl.store(S_new + row, new, mask=mask)
    row = M.E * M.features + place
    sums = kept * tl.load(S + row, mask=there, other=0.0) + phi
    tl.store(S_new + row, sums, mask=there)
    for g in range(G):
        h = kv * G + g
        phi = some_features(queries, (b, h, b * 0, b * 0 + 1), part * W, M, W)
        own = partial + ((b * H + h) * N + part) * (M.E + 1)
        tl.store(own + e, tl.sum(new * phi[None, :], 1), mask=e < M.E)
        tl.store(own + M.E, tl.sum(sums * phi, 0))
    tl.debug_barrier()
    if tl.atomic_add(counters + bk, 1) == N - 1:
        for g in range(G):
            finish(partial, y, b * H + kv * G + g, M, N, NP)


kernel = Kernel(decode, lambda key: [Config(8, 1), Config(2, 1)])


def width_of(M: Tiling) -> int:
    """Features per program, which then holds at most 4,096 elements of the state."""
    return min(128, max(16, 4096 // M.EP))


_ARGUMENTS = """
    Tensor? p_q, Tensor f_q, Tensor? p_k, Tensor f_k, Tensor v, Tensor? padding, Tensor? log_decay,
    Tensor state, Tensor(a!) new_state, str score, int degree, float[] coefficients
"""


@torch.library.custom_op(
    "slay::decode", mutates_args=("new_state",), schema=f"({_ARGUMENTS}) -> Tensor"
)
def _decode(
    p_q: Tensor | None, f_q: Tensor, p_k: Tensor | None, f_k: Tensor, v: Tensor,
    padding: Tensor | None, log_decay: Tensor | None, state: Tensor, new_state: Tensor,
    score: str, degree: int, coefficients: list[float],
) -> Tensor:  # fmt: skip
    (B, H), K = f_q.shape[:2], v.shape[1]
    widths = 1 if p_k is None else p_k.shape[3], f_k.shape[3]
    M = tiling_of(score, degree, tuple(coefficients), widths, v.shape[3], v.dtype)
    W = width_of(M)
    N = triton.cdiv(M.features, W)
    y = v.new_empty(B, H, 1, M.E)
    partial = torch.empty(B * H, N, M.E + 1, dtype=torch.float32, device=v.device)
    query, key = (None if p is None else rows(p) for p in (p_q, p_k))
    kernel(
        (N * B * K,), M.key, 1,
        queries=Token(query, rows(f_q), None), keys=Token(key, rows(f_k), rows(v)),
        padding=padding, log_decay=log_decay, S=state, S_new=new_state, partial=partial,
        counters=torch.zeros(B * K, dtype=torch.int32, device=v.device), y=y, H=H, K=K,
        M=M, G=H // K, W=W, N=N, NP=triton.next_power_of_2(N),
    )  # fmt: skip
    return y


@_decode.register_fake
def _(p_q, f_q, p_k, f_k, v, *rest):
    return v.new_empty(*f_q.shape[:3], v.shape[3])


def decode_attention(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    spec: FeatureSpec,
    state: Tensor,
    *,
    key_padding_mask: Tensor | None = None,
    log_decay: Tensor | None = None,
    overwrite: bool = False,
) -> tuple[Tensor, Tensor]:
    """Decode one token, L = 1, from a state (B, K, e + 1, m); returns y and the next state.

    With `overwrite` the next state is written over this one. Not differentiable.
    """
    widths = spec.widths(q.shape[3])
    M = tiling_of(spec.score, spec.degree, spec.coefficients, widths, v.shape[3], v.dtype)
    padding = None if key_padding_mask is None else key_padding_mask.to(torch.uint8)
    p_q, f_q = factors(q, spec, M, None, query=True)
    p_k, f_k = factors(k, spec, M, padding, query=False)
    state = state.contiguous()
    new_state = state if overwrite else torch.empty_like(state)
    decay = None if log_decay is None else log_decay.float().contiguous()
    settings: Any = spec.score, spec.degree, spec.coefficients
    y = torch.ops.slay.decode(p_q, f_q, p_k, f_k, v, padding, decay, state, new_state, *settings)
    return y, new_state
