"""Longest context whose attention fits into a memory budget, found by running it."""

from __future__ import annotations

import time
from collections.abc import Callable

import torch

from slay.attention.layer import Attention
from slay.benchmarks.calls import Inputs, passes
from slay.benchmarks.timing import peak_memory
from slay.experiments.guard import OutOfMemory, memory_guard
from slay.experiments.result import Progress, Result, choose_device, heads_only
from slay.pipeline.params import MaxContextParams
from slay.pipeline.record import Number

START = 256  # tokens of the first probe; all probes are multiples of STEP
STEP = 64
RESOLUTION = 16  # the longest length is found to one part in 16
MIB = 2**20


def run(params: MaxContextParams, progress: Progress) -> Result:
    """Metrics: the longest length that fits, its peak memory, and `capped`.

    The budget covers everything that a call holds: q, k and v, all further allocations and the
    result. Every probe runs the mechanism and is a point of the curve. `capped` is 1 if a limit
    other than memory ended the search: `max_len`, or a next probe that might exceed `max_seconds`.
    """
    device = choose_device(params.device)
    head_dim = params.embed_dim // params.n_heads
    shared = {"epsilon": params.epsilon}
    mechanism = heads_only(params.attention, head_dim, params.n_heads, shared, params.options)
    mechanism.to(device)
    budget = params.memory_mb * MIB
    curve: list[dict[str, Number]] = []
    slow = False

    def fits(length: int) -> bool:
        nonlocal slow
        begin = time.perf_counter()
        try:
            peak = held(mechanism, params, length, device)
        except OutOfMemory:
            peak = None
        taken = time.perf_counter() - begin
        # Twice the length may take four times as long.
        slow = slow or 4 * taken > params.max_seconds
        there = peak is not None and peak <= budget
        curve.append({"seq_len": length, "peak_memory_bytes": peak, "fits": int(there)})
        progress(f"L = {length}: {'fits' if there else 'does not fit'}  {taken:.2g} s")
        return there

    longest, capped = search(fits, params.max_len, lambda: slow)
    peaks = {row["seq_len"]: row["peak_memory_bytes"] for row in curve}
    return Result(
        {
            "longest": longest,
            "capped": int(capped),
            "probes": len(curve),
            "peak_memory_bytes": peaks.get(longest),
        },
        curve,
    )


def search(fits: Callable[[int], bool], max_len: int, stop: Callable[[], bool]) -> tuple[int, bool]:
    """Return the longest length that fits, to one part in 16, and True if another limit stopped it.

    Doubles the length until it does not fit, then bisects. Lengths are multiples of 64; 0 if the
    first one does not fit. `stop` is checked before a length doubles.
    """
    low, high = 0, min(START, max_len)
    while fits(high):
        low = high
        if low == max_len or stop():
            return low, True
        high = min(2 * low, max_len)
    while high - low > max(STEP, low // RESOLUTION):
        middle = (low + high) // 2 // STEP * STEP
        if middle in (low, high):
            break
        low, high = (middle, high) if fits(middle) else (low, middle)
    return low, False


def held(mechanism: Attention, params: MaxContextParams, length: int, device: torch.device) -> int:
    """Peak bytes held by q, k, v and a call on them."""
    size = (params.batch_size, params.n_heads, length, mechanism.head_dim)
    with memory_guard(), torch.set_grad_enabled(params.mode == "forward_backward"):
        inputs = Inputs.drawn(size, getattr(torch, params.dtype), device).qkv
        call = passes(params.mode, mechanism.attend, inputs)
        own = sum(t.numel() * t.element_size() for t in inputs)
        return own + peak_memory(call, device)
