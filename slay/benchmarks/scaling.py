"""Latency and peak memory of a mechanism, timed round-robin with PyTorch's fused softmax."""

from __future__ import annotations

from statistics import median, quantiles

import torch
from torch import Tensor

from slay.attention.layer import Attention
from slay.benchmarks.timing import Call, interleaved, peak_memory, seconds
from slay.experiments.guard import OutOfMemory, memory_guard
from slay.experiments.result import Progress, Result, choose_device, heads_only, stream
from slay.pipeline.params import ScalingParams
from slay.pipeline.record import Number

BASELINE = "standard"
MATRIX = 1024  # rows and columns of the matrix product that gives the rate


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
            own = _mechanism(params, params.attention, device)
            calls = {"own": _call(params, own, device)}
            once = _first(calls["own"], device)
            if _too_long(once, params):
                return Result({}, status="timeout", message=_slow(params, once))
            progress(f"{params.attention}: {1e3 * once:.3g} ms for the first call")
            with memory_guard():
                memory = peak_memory(calls["own"], device)
        except OutOfMemory as error:
            return Result({}, status="oom", message=f"{params.attention}: {error}")
        try:
            baseline = _mechanism(params, BASELINE, device)
            calls["baseline"] = _call(params, baseline, device)
            if _too_long(_first(calls["baseline"], device), params):
                del calls["baseline"]
        except OutOfMemory:
            calls.pop("baseline", None)
        square = _draw((MATRIX, MATRIX), params, device)
        calls["matmul"] = lambda: square @ square
        progress(f"timing {' and '.join(calls)} in {params.repeats} rounds")
        times = interleaved(calls, device, rounds=params.repeats)
    return Result(_metrics(params, own, times, memory))


def _mechanism(params: ScalingParams, name: str, device: torch.device) -> Attention:
    shared = {"epsilon": params.epsilon}
    options = params.options if name == params.attention else {}
    head_dim = params.embed_dim // params.n_heads
    return heads_only(name, head_dim, params.n_heads, shared, options).to(device)


def _call(params: ScalingParams, mechanism: Attention, device: torch.device) -> Call:
    """The timed call of a mechanism, on its own inputs."""
    shape = (params.batch_size, params.n_heads, params.seq_len, mechanism.head_dim)
    with memory_guard():
        q, k, v, g = (_draw(shape, params, device, i) for i in range(4))
    if params.mode == "decode":
        return _decoding(mechanism, (q, k, v))
    if params.mode == "forward":
        return lambda: mechanism.attend(q, k, v)
    inputs = [t.requires_grad_() for t in (q, k, v)]
    return lambda: torch.autograd.grad(mechanism.attend(*inputs), inputs, g, materialize_grads=True)


def _decoding(mechanism: Attention, context: tuple[Tensor, Tensor, Tensor]) -> Call:
    """Call that decodes one token after a context, always from the same unmodified state."""
    with memory_guard():
        _, state = mechanism.attend(*context, output_final_state=True)
    token = [t[:, :, -1:].contiguous() for t in context]  # (B, H, 1, d) each
    return lambda: mechanism.attend(*token, initial_state=state, output_final_state=True)


def _draw(
    shape: tuple[int, ...], params: ScalingParams, device: torch.device, i: int = 4
) -> Tensor:
    """The i-th standard normal input."""
    draw = stream(i, "scaling")
    return torch.randn(shape, generator=draw).to(device, getattr(torch, params.dtype))


def _first(call: Call, device: torch.device) -> float:
    """Duration of the first call, in seconds."""
    with memory_guard():
        return seconds(call, device)


def _too_long(once: float, params: ScalingParams) -> bool:
    return once * params.repeats > params.max_seconds


def _slow(params: ScalingParams, once: float) -> str:
    return (
        f"one call takes {once:.3g} s, {params.repeats} of them more than max_seconds = "
        f"{params.max_seconds:g}"
    )


def _metrics(
    params: ScalingParams, own: Attention, times: dict[str, list[float]], memory: int
) -> dict[str, Number]:
    first, middle, third = quantiles(times["own"], n=4, method="inclusive")
    metrics: dict[str, Number] = {
        "latency_ms": middle * 1e3,
        "latency_ms_q1": first * 1e3,
        "latency_ms_q3": third * 1e3,
        "peak_memory_bytes": memory,
    }
    tokens = 1 if params.mode == "decode" else params.seq_len
    metrics["tokens_per_second"] = params.batch_size * tokens / middle
    rate = 2 * MATRIX**3 / median(times["matmul"])  # operations per second
    metrics["matmul_gflops"] = rate / 1e9
    if params.mode != "decode":
        operations = own.operations(params.seq_len, backward=params.mode == "forward_backward")
        metrics["floor_ms"] = 1e3 * params.batch_size * params.n_heads * operations / rate
    if "baseline" in times:
        ratios = [a / b for a, b in zip(times["own"], times["baseline"], strict=True)]
        low, ratio, high = quantiles(ratios, n=4, method="inclusive")
        metrics["baseline_latency_ms"] = median(times["baseline"]) * 1e3
        metrics |= {"ratio": ratio, "ratio_q1": low, "ratio_q3": high}
    return metrics
