"""Triton kernel for the prefix sum over chunks: each state becomes the sum of those before it.

S_n = exp(G_n) S_(n-1) + own_n, where G_n is the chunk's total log decay, with float32 sums. In the
backward pass, the gradient of the state after each chunk is passed from the last to the first.
"""

from __future__ import annotations

import triton
import triton.language as tl

from slay.ops.triton.configs import Config, Kernel
from slay.ops.triton.tiles import cast


@triton.jit
def decay_of(decay, spans, n, bk, C, L):
    """exp(G_n), the total decay of chunk n."""
    end = tl.minimum(n * C + C, L)
    if spans is not None:
        end = tl.load(spans + 3 * n + 1)
    return tl.exp(tl.minimum(tl.load(decay + bk * L + end - 1), 0.0))


@triton.jit(do_not_specialize=["L", "chunks", "sequences"])
def state_passing(
    # pointers
    X, initial, final, decay, spans, runs,
    # sizes
    chunks, sequences, N, C, L,
    # constants
    REVERSE: tl.constexpr, W: tl.constexpr, U: tl.constexpr,
):  # fmt: skip
    """X: (B K, chunks, N), in place; grid (blocks of W x sequences x B K,).

    Chunks runs[i] to runs[i + 1] are sequence i, whose sum starts from `initial` and is stored to
    `final`: (B K, sequences, N) float32. U chunks are read before the first of them is written.
    """
    blocks = tl.cdiv(N, W)
    block, rest = tl.program_id(0) % blocks, tl.program_id(0) // blocks
    sequence, bk = rest % sequences, (rest // sequences).to(tl.int64)
    c = block * W + tl.arange(0, W)
    there = c < N
    place = (bk * sequences + sequence) * N + c
    total = tl.zeros((W,), tl.float32)
    if initial is not None:
        total = tl.load(initial + place, mask=there, other=0.0)
    first, last = 0, chunks
    if runs is not None:
        first, last = tl.load(runs + sequence), tl.load(runs + sequence + 1)
    for i0 in range(first, last, U):
        own = ()
        for i in tl.static_range(U):
            n = first + last - 1 - i0 - i if REVERSE else i0 + i
            p = X + (bk * chunks + n) * N + c
            own = own + (tl.load(p, mask=there & (i0 + i < last), other=0.0),)
        for i in tl.static_range(U):
            n = first + last - 1 - i0 - i if REVERSE else i0 + i
            p = X + (bk * chunks + n) * N + c
            tl.store(p, cast(total, X.dtype.element_ty), mask=there & (i0 + i < last))
            if i0 + i < last:
                if decay is not None:
                    total *= decay_of(decay, spans, n, bk, C, L)
                total += own[i].to(tl.float32)
    if final is not None:
        tl.store(final + place, total, mask=there)


def _configs(key: str) -> list[Config]:
    sizes = [(4, 512, 4), (4, 256, 8), (1, 128, 8)]
    return [Config(warps, 1, (("W", W), ("U", U))) for warps, W, U in sizes]


kernel = Kernel(state_passing, _configs)
