"""Numbers that summarise the rounds in which calls were timed in turn; needs no torch."""

from __future__ import annotations

from collections.abc import Sequence
from statistics import median, quantiles

from slay.pipeline.record import Number

BASELINE = "standard"  # the mechanism that others are timed with


def latency(times: Sequence[float]) -> dict[str, Number]:
    """Median and quartiles of durations in seconds, as metrics in milliseconds."""
    first, middle, third = (1e3 * t for t in quantiles(times, n=4, method="inclusive"))
    return {"latency_ms": middle, "latency_ms_q1": first, "latency_ms_q3": third}


def ratio(times: Sequence[float], others: Sequence[float]) -> dict[str, Number]:
    """Median and quartiles of one call's duration over another's, round by round."""
    ratios = [a / b for a, b in zip(times, others, strict=True)]
    low, middle, high = quantiles(ratios, n=4, method="inclusive")
    return {"ratio": middle, "ratio_q1": low, "ratio_q3": high}


def versus(times: Sequence[float], baseline: Sequence[float]) -> dict[str, Number]:
    """The baseline's latency, and the ratio to it."""
    return {"baseline_latency_ms": 1e3 * median(baseline), **ratio(times, baseline)}
