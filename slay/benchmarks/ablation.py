"""Error against the exact target and latency of the call, for a given number of features."""

from __future__ import annotations

from statistics import quantiles

import torch

from slay.benchmarks.timing import interleaved
from slay.experiments.quality import TARGET, draw_inputs
from slay.experiments.quality import run as quality
from slay.experiments.result import Progress, Result, choose_device, heads_only
from slay.pipeline.params import AblationParams

BASELINE = "standard"


def run(params: AblationParams, progress: Progress) -> Result:
    """Metrics: those of `quality`, the forward latency on the same inputs, and two latency ratios.

    `ratio` is the latency over that of the exact target, `ratio_standard` over that of fused
    softmax attention: medians over rounds in which all three are timed in turn.
    """
    result = quality(params, progress)
    device = choose_device(params.device)
    q, k, v = draw_inputs(params, progress)
    shared = {"epsilon": params.epsilon, "seed": params.seed}
    options = {params.attention: params.options}
    calls = {}
    for name in dict.fromkeys((params.attention, TARGET, BASELINE)):
        mechanism = heads_only(
            name, params.head_dim, params.n_heads, shared, options.get(name, {})
        ).to(device)
        calls[name] = lambda attend=mechanism.attend: attend(q, k, v)
    progress(f"timing {' and '.join(calls)} in {params.repeats} rounds")
    with torch.no_grad():
        times = interleaved(calls, device, rounds=params.repeats)
    own = times[params.attention]
    first, middle, third = quantiles(own, n=4, method="inclusive")
    latency = {"latency_ms": middle, "latency_ms_q1": first, "latency_ms_q3": third}
    ratios = {
        "ratio": _median([a / b for a, b in zip(own, times[TARGET], strict=True)]),
        "ratio_standard": _median([a / b for a, b in zip(own, times[BASELINE], strict=True)]),
    }
    metrics = result.metrics | {name: 1e3 * value for name, value in latency.items()} | ratios
    return Result(metrics, result.curve)


def _median(values: list[float]) -> float:
    return quantiles(values, n=4, method="inclusive")[1]
