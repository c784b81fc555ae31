"""Latency, peak memory and the ratio to `standard`, against the length."""

from __future__ import annotations

import pandas as pd
from matplotlib import pyplot as plt
from matplotlib.figure import Figure

from slay.report.figures.parts import legend_below
from slay.report.results import MissingError, Results
from slay.report.style import PAGE, form, look

PANELS = [
    ("latency_ms", "latency (ms)", 1.0),
    ("peak_memory_bytes", "peak memory above inputs (MiB)", 2.0**20),
    ("ratio", "latency relative to standard", 1.0),
]


def draw(results: Results) -> Figure:
    """Medians with quartiles of the forward pass."""
    lengths = sorted(results.axis("scaling", "seq_len", mode="forward"))
    if not lengths:
        raise MissingError("scaling")
    figure, axes = plt.subplots(1, len(PANELS), figsize=(PAGE, 2.2))
    for panel, (metric, label, unit) in zip(axes, PANELS, strict=True):
        for name in results.names:
            middle, low, high = (
                _by_length(results, f"{metric}{suffix}", name) for suffix in ("", "_q1", "_q3")
            )
            if middle.empty:
                continue
            panel.plot(middle.index, middle / unit, **form(name))
            if not low.empty:
                panel.fill_between(
                    middle.index, low / unit, high / unit,
                    color=look(name).colour, alpha=0.15, linewidth=0,
                )  # fmt: skip
        panel.set(xscale="log", yscale="log", xlabel="sequence length $L$", ylabel=label)
        panel.set_xticks(lengths, [f"{n // 1024}k" if n > 8192 else str(n) for n in lengths])
        panel.tick_params(axis="x", labelrotation=45 if len(lengths) > 5 else 0)
        panel.minorticks_off()
    axes[2].axhline(1.0, color="black", linewidth=0.5, linestyle=":")
    legend_below(figure, axes, results.names)
    return figure


def _by_length(results: Results, metric: str, name: str) -> pd.Series:
    frame = results.select("scaling", metric, attention=name, mode="forward")
    return frame.drop_duplicates("seq_len").set_index("seq_len")["mean"].sort_index()
