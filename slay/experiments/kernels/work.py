"""Bytes that a call moves and operations of its matrix products: the floor of its method.

Of our kernels both are read from their launches: every tensor that one is given it reads or writes
once, and the `Map` and chunk length among its arguments say which products it takes. Of others they
are those of q, k, v, the output and their gradients, and of `Attention.operations`: lower bounds.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import torch
from torch import Tensor

from slay.attention.layer import Attention
from slay.experiments.kernels.settings import KernelParams
from slay.experiments.result import heads_only

Launch = tuple[str, dict[str, Any]]  # a kernel and its arguments by name
Call = Callable[[], Any]
SIDE, ROWS = 4096, 65_536  # of the largest product, which is made several times


class Work(NamedTuple):
    bytes: int
    operations: int


def launched(call: Call) -> list[Launch]:
    """The launches of a call that kernels compute, none of which is made."""
    from slay.ops.triton_compile import launches

    return [
        (tuned.kernel.__name__, dict(zip(tuned.kernel.arg_names, args, strict=False)))
        for tuned, args in launches(call)
    ]


def work_of(params: KernelParams, mechanism: Attention | None, launches: list[Launch]) -> Work:
    """What a call takes; `mechanism` is None for softmax, `launches` is empty for others' code."""
    if mechanism is None:
        mechanism = heads_only("standard", params.head_dim, params.n_heads, {}, {})
    counted = [operations_of(*launch) for launch in launches]
    known = [n for n in counted if n is not None]
    total = sum(known) if counted and len(known) == len(counted) else _operations(params, mechanism)
    moved = sum(bytes_of(*launch) for launch in launches) or _bytes(params, mechanism)
    return Work(moved, total)


def bytes_of(kernel: str, arguments: dict[str, Any]) -> int:
    """Bytes that a launch reads and writes; a tensor that stands twice in one argument counts once.

    Where there is nothing to multiply a query's features by, the queries stand in its place.
    """
    total = 0
    for argument in arguments.values():
        distinct = {id(t): t for t in _tensors(argument)}.values()
        total += sum(t.numel() * t.element_size() for t in distinct)
    if kernel == "scan_states":  # in place
        total += arguments["X"].numel() * arguments["X"].element_size()
    return total


def operations_of(kernel: str, arguments: dict[str, Any]) -> int | None:
    """Operations of a launch's matrix products; None for a kernel that is not of linear attention.

    A multiplication and an addition are two. States count as kernels lay them out. Maps count once
    a token, scores half of a chunk's pairs: what a kernel does again, or masks, is no need of the
    method.
    """
    from slay.ops.triton_maps import Map

    if kernel == "scan_states":
        return 0
    if not isinstance(arguments.get("M"), Map):
        return None
    if kernel == "decode":
        m, partial, state = (arguments[name] for name in ("m", "partial", "S"))
        return 2 * (state.numel() // m + partial.shape[0] * partial.shape[-1]) * m
    M, L, C = (arguments[name] for name in ("M", "L", "C"))
    side = arguments["side" if kernel == "chunk_states" else "queries"].u.data
    tokens = side.shape[0] * side.shape[1] * L  # of all heads
    if kernel == "key_gradients":
        keys = arguments["keys"].u.data
        own = keys.shape[0] * keys.shape[1] * keys.shape[2]
    else:
        own = tokens
    width = M.D if M.degree else M.B if M.a == "none" else M.A + M.B
    a = {"square": M.A, "product": 2 * M.A}.get(M.a, 0)
    maps = M.D * (a + (M.B if M.weights else 0)) if not M.degree else 0
    per_token = {  # products with the state, and through the maps, there and back
        "chunk_states": M.state + maps,
        "outputs": M.state + maps,
        "query_gradients": M.state + 2 * maps,
        "key_gradients": M.state + M.rows * M.E + 2 * maps,
    }[kernel]
    per_pair = {  # scores and their product with v; on the way back those of dA too
        "chunk_states": 0,
        "outputs": width + M.E,
        "query_gradients": 2 * width + M.E,
        "key_gradients": 2 * width + 2 * M.E,
    }[kernel]
    heads = side.shape[0] * side.shape[1]
    pairs = heads * _pairs(L, C) if arguments.get("CAUSAL") else 0
    return 2 * (own * per_token + pairs * per_pair)


def _pairs(length: int, chunk: int) -> int:
    """Pairs of a query and a key at or before it, in the same chunk."""
    whole, rest = divmod(length, chunk)
    return whole * chunk * (chunk + 1) // 2 + rest * (rest + 1) // 2


def _tensors(value: Any) -> Iterator[Tensor]:
    if isinstance(value, Tensor):
        yield value
    elif isinstance(value, tuple):
        for item in value:
            yield from _tensors(item)


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
        held = 2 * params.seq_len * token if state is None else 8 * state  # float32, both ways
        return heads * (held + 4 * token)
    wide = token
    if params.backend == "fla":  # q and k are features
        wide = token * getattr(mechanism, "num_features", params.head_dim) // params.head_dim
    forward = 2 * wide + 2 * token  # q, k, v, y
    backward = 4 * wide + 4 * token  # those and dy are read, dq, dk and dv written
    both = forward + backward if params.mode == "forward_backward" else forward
    return heads * params.seq_len * both


def copy_of(work: Work, device: torch.device) -> Call:
    """A copy that reads and writes as many bytes."""
    source = torch.empty(max(1, work.bytes // 2), dtype=torch.uint8, device=device)
    target = torch.empty_like(source)
    return lambda: target.copy_(source)


def product_of(work: Work, dtype: torch.dtype, device: torch.device) -> Call:
    """A matrix product of as many operations, or one more row's, several times if it is large."""
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
