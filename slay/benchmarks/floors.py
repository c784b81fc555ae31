"""Least memory traffic and matrix-product operations of a call: the floor of a method.

Both depend on the method, not on its implementation. Bytes are those of q, k, v, the output,
their gradients and the state that decoding keeps; features, chunk states and scores need not
leave the chip. Operations are those of `Attention.operations`. A model adds those of its weights.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import torch

from slay.attention.layer import Attention
from slay.benchmarks.settings import KernelParams, ModelParams
from slay.benchmarks.timing import Call

SIDE, ROWS = 4096, 65_536  # of the largest product; more work repeats it
# Per weight, in float32: read in the forward and the backward pass, and its gradient written; then
# AdamW reads weight, gradient and two moments, and writes weight and moments.
STEP_BYTES = 4 * (3 + 4 + 3)


class Work(NamedTuple):
    bytes: int
    operations: int


def work_of(params: KernelParams, mechanism: Attention, n_parameters: int = 0) -> Work:
    """Work of a call; `n_parameters` counts a model's weights that multiply every token."""
    if isinstance(params, ModelParams):
        return _step(params, mechanism, n_parameters)
    return Work(_bytes(params, mechanism), _operations(params, mechanism))


def _step(params: ModelParams, mechanism: Attention, n_parameters: int) -> Work:
    """Work of a training step: three products of every token with the weights, and attention."""
    tokens, heads = params.batch_size * params.seq_len, params.batch_size * params.n_heads
    attention = heads * mechanism.operations(params.seq_len, backward=True)
    operations = 6 * tokens * n_parameters + params.n_layers * attention
    return Work(STEP_BYTES * n_parameters, operations)


def _operations(params: KernelParams, mechanism: Attention) -> int:
    heads, L = params.batch_size * params.n_heads, params.seq_len
    if params.mode != "decode":
        return heads * mechanism.operations(L, backward=params.mode == "forward_backward")
    state = mechanism.state_size(params.head_dim)  # written and read, or the context's k and v read
    return 2 * heads * (2 * L * params.head_dim if state is None else 2 * state)


def _bytes(params: KernelParams, mechanism: Attention) -> int:
    heads = params.batch_size * params.n_heads
    token = params.head_dim * getattr(torch, params.dtype).itemsize
    if params.mode == "decode":
        state = mechanism.state_size(params.head_dim)
        held = 2 * params.seq_len * token if state is None else 8 * state  # float32, in and out
        return heads * (held + 4 * token)
    wide = token
    if params.backend == "fla":  # q and k are features
        wide = token * getattr(mechanism, "num_features", params.head_dim) // params.head_dim
    forward = 2 * wide + 2 * token  # q, k, v, y
    backward = 4 * wide + 4 * token  # those and dy are read, dq, dk and dv written
    both = forward + backward if params.mode == "forward_backward" else forward
    return heads * params.seq_len * both


def copy_of(work: Work, device: torch.device) -> Call:
    """Copy that reads and writes `work.bytes` in total."""
    source = torch.empty(max(1, work.bytes // 2), dtype=torch.uint8, device=device)
    target = torch.empty_like(source)
    return lambda: target.copy_(source)


def product_of(work: Work, dtype: torch.dtype, device: torch.device) -> Call:
    """Matrix product of `work.operations`, rounded up to whole rows; repeated if it is large."""
    side = int(min(SIDE, max(64, (work.operations / 2) ** (1 / 3) // 64 * 64)))
    rows = math.ceil(work.operations / (2 * side * side))
    times = math.ceil(rows / ROWS)
    rows = math.ceil(rows / times)
    a = torch.randn(rows, side, dtype=dtype, device=device)
    b = torch.randn(side, side, dtype=dtype, device=device)
    c = torch.empty(rows, side, dtype=dtype, device=device)

    def call() -> None:
        for _ in range(times):
            torch.mm(a, b, out=c)

    return call
