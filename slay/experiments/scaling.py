"""Latency and peak memory of a mechanism, timed in turns with PyTorch's fused softmax attention."""

from __future__ import annotations

from collections.abc import Callable
from statistics import median, quantiles

import torch

from slay.attention.layer import Attention
from slay.errors import SlayError
from slay.experiments.measure import interleaved, peak_memory
from slay.experiments.result import Progress, Result, choose_device, heads_only, stream
from slay.params import ScalingParams

OPPONENT = "standard"
MATRIX = 1024  # rows and columns of the product that gives the rate


def run(params: ScalingParams, progress: Progress) -> Result:
    """Metrics: latency quartiles, ratio to the opponent, floor, peak bytes, tokens a second.

    Only attention over heads is timed: the four projections cost the same under every mechanism.
    Memory is what a call holds at its peak above q, k and v, its results included. The floor is the
    time of the mechanism's matrix products at the rate of one large product, timed in the same
    rounds.
    """
    if params.embed_dim % params.n_heads:
        raise SlayError(
            f"embed_dim = {params.embed_dim} does not divide into n_heads = {params.n_heads} heads"
        )
    device = choose_device(params.device)
    head_dim = params.embed_dim // params.n_heads
    shape = (params.batch_size, params.n_heads, params.seq_len, head_dim)
    draw = stream(0, "scaling")
    dtype = getattr(torch, params.dtype)
    q, k, v, g = (torch.randn(shape, generator=draw).to(device, dtype) for _ in range(4))
    square = torch.randn(MATRIX, MATRIX, generator=draw).to(device, dtype)
    shared = {"epsilon": params.epsilon}
    own = heads_only(params.attention, head_dim, params.n_heads, shared, params.options).to(device)
    opponent = heads_only(OPPONENT, head_dim, params.n_heads, {}, {}).to(device)
    backward = params.mode == "forward_backward"
    inputs = [t.requires_grad_(backward) for t in (q, k, v)]

    def call(mechanism: Attention) -> Callable[[], object]:
        if not backward:
            return lambda: mechanism.attend(*inputs)
        return lambda: torch.autograd.grad(
            mechanism.attend(*inputs), inputs, g, materialize_grads=True
        )

    with torch.set_grad_enabled(backward):
        try:
            progress(f"timing {params.attention} and {OPPONENT} in {params.repeats} rounds")
            calls = {
                "own": call(own),
                "opponent": call(opponent),
                "matmul": lambda: square @ square,
            }
            times = interleaved(calls, device, rounds=params.repeats)
            memory = peak_memory(calls["own"], device)
        except (torch.OutOfMemoryError, MemoryError, RuntimeError) as error:
            message = str(error).partition("\n")[0]
            if isinstance(error, RuntimeError) and "memory" not in message:
                raise
            return Result({}, status="oom", message=message)
    first, middle, third = quantiles(times["own"], n=4, method="inclusive")
    ratios = [a / b for a, b in zip(times["own"], times["opponent"], strict=True)]
    low, ratio, high = quantiles(ratios, n=4, method="inclusive")
    rate = 2 * MATRIX**3 / median(times["matmul"])  # operations a second
    heads = params.batch_size * params.n_heads
    floor = heads * own.operations(params.seq_len, backward=backward) / rate
    return Result(
        {
            "latency_ms": middle * 1e3,
            "latency_ms_q1": first * 1e3,
            "latency_ms_q3": third * 1e3,
            "opponent_latency_ms": median(times["opponent"]) * 1e3,
            "ratio": ratio,
            "ratio_q1": low,
            "ratio_q3": high,
            "floor_ms": floor * 1e3,
            "matmul_gflops": rate / 1e9,
            "tokens_per_second": params.batch_size * params.seq_len / middle,
            "peak_memory_bytes": memory,
        }
    )
