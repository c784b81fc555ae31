"""Latency and peak memory of a mechanism, timed round-robin with PyTorch's fused softmax."""

from __future__ import annotations

from contextlib import suppress
from statistics import median

import torch

from slay.attention.layer import Attention
from slay.benchmarks.calls import Inputs, timed_call
from slay.benchmarks.floors import Work, operations_of, product_of
from slay.benchmarks.summary import BASELINE, latency, versus
from slay.benchmarks.timing import Call, interleaved, peak_memory, seconds
from slay.experiments.guard import OutOfMemory, memory_guard
from slay.experiments.result import Progress, Result, choose_device, heads_only
from slay.pipeline.params import ScalingParams
from slay.pipeline.record import Number

PRODUCT = Work(bytes=0, operations=2 * 1024**3)  # the matrix product that gives the rate


def run(params: ScalingParams, progress: Progress) -> Result:
    """Metrics: latency quartiles, ratio to the baseline, floor, peak bytes, tokens per second.

    Only attention over heads is timed: the four projections cost the same under every mechanism.
    Memory is the peak of a call beyond q, k and v, its results included. The floor is the time of
    the mechanism's matrix products at the rate of one large product, timed in the same rounds. In
    decoding, a call is one token after `seq_len` others, always from the same state.

    If the mechanism runs out of memory or time, that is the result; if the baseline does, the
    baseline and the ratio are left out.
    """
    device = choose_device(params.device)
    with torch.set_grad_enabled(params.mode == "forward_backward"):
        try:
            own, call, once = _begun(params, params.attention, device)
            calls = {"own": call}
            if once * params.repeats > params.max_seconds:
                return Result({}, status="timeout", message=_slow(params, once))
            progress(f"{params.attention}: {1e3 * once:.3g} ms for the first call")
            with memory_guard():
                memory = peak_memory(calls["own"], device)
        except OutOfMemory as error:
            return Result({}, status="oom", message=f"{params.attention}: {error}")
        with suppress(OutOfMemory):
            _, call, once = _begun(params, BASELINE, device)
            if once * params.repeats <= params.max_seconds:
                calls["baseline"] = call
        calls["matmul"] = product_of(PRODUCT, getattr(torch, params.dtype), device)
        progress(f"timing {' and '.join(calls)} in {params.repeats} rounds")
        times = interleaved(calls, device, rounds=params.repeats)
    return Result(_metrics(params, own, times, memory))


def _begun(params: ScalingParams, name: str, device: torch.device) -> tuple[Attention, Call, float]:
    """A mechanism, its timed call on its own inputs, and the seconds that the first call took."""
    head_dim, shared = params.embed_dim // params.n_heads, {"epsilon": params.epsilon}
    options = params.options if name == params.attention else {}
    mechanism = heads_only(name, head_dim, params.n_heads, shared, options).to(device)
    size = (params.batch_size, params.n_heads, params.seq_len, head_dim)
    with memory_guard():
        tokens = Inputs.drawn(size, getattr(torch, params.dtype), device)
        call = timed_call(mechanism, params.mode, tokens)
        return mechanism, call, seconds(call, device)


def _slow(params: ScalingParams, once: float) -> str:
    return (
        f"one call takes {once:.3g} s, {params.repeats} of them more than max_seconds = "
        f"{params.max_seconds:g}"
    )


def _metrics(
    params: ScalingParams, own: Attention, times: dict[str, list[float]], memory: int
) -> dict[str, Number]:
    metrics = {**latency(times["own"]), "peak_memory_bytes": memory}
    tokens = 1 if params.mode == "decode" else params.seq_len
    metrics["tokens_per_second"] = params.batch_size * tokens / median(times["own"])
    rate = PRODUCT.operations / median(times["matmul"])  # operations per second
    metrics["matmul_gflops"] = rate / 1e9
    if params.mode != "decode":
        heads = params.batch_size * params.n_heads
        operations = operations_of(own, params.mode, heads, params.seq_len)
        metrics["floor_ms"] = 1e3 * operations / rate
    if "baseline" in times:
        metrics |= versus(times["own"], times["baseline"])
    return metrics
