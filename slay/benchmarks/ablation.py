"""Error against the exact target and latency of the call, for a given number of features."""

from __future__ import annotations

import torch

from slay.benchmarks.calls import passes
from slay.benchmarks.summary import BASELINE, latency, ratio
from slay.benchmarks.timing import interleaved
from slay.experiments.quality import TARGET, draw_inputs
from slay.experiments.quality import run as quality
from slay.experiments.result import Progress, Result, choose_device, heads_only
from slay.pipeline.params import AblationParams


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
        calls[name] = passes("forward", mechanism.attend, (q, k, v))
    progress(f"timing {' and '.join(calls)} in {params.repeats} rounds")
    with torch.no_grad():
        times = interleaved(calls, device, rounds=params.repeats)
    own = times[params.attention]
    ratios = {
        "ratio": ratio(own, times[TARGET])["ratio"],
        "ratio_standard": ratio(own, times[BASELINE])["ratio"],
    }
    return Result(result.metrics | latency(own) | ratios, result.curve)
