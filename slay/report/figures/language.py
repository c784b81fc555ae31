"""Language models: held-out loss, and its difference from softmax's, against training steps."""

from __future__ import annotations

import pandas as pd
from matplotlib import pyplot as plt
from matplotlib.figure import Figure

from slay.report.figures.parts import curves, legend_below
from slay.report.results import Results
from slay.report.scores import BASELINE
from slay.report.style import PAGE, form


def draw(results: Results) -> Figure:
    """One column per width of the short convolution; mean over seeds."""
    points = curves(results, "language")
    convs = sorted({int(conv) for p in points.values() for conv in p["short_conv"].unique()})
    rows = 2 if BASELINE in points else 1
    figure, axes = plt.subplots(
        rows, len(convs), figsize=(PAGE, 0.6 + 1.2 * rows),
        squeeze=False, sharex=True, sharey="row",
        height_ratios=[1, 1.3][:rows],
    )  # fmt: skip
    for column, conv in zip(axes.T, convs, strict=True):
        losses = {name: loss for name, p in points.items() if len(loss := _mean(p, conv))}
        for name, loss in losses.items():
            column[0].plot(loss.index, loss, **form(name))
            if BASELINE in losses:
                column[-1].plot(loss.index, loss - losses[BASELINE], **form(name))
        column[0].set_title(f"convolution of width {conv}" if conv else "without convolution")
        column[-1].set_xlabel("step")
    axes[0, 0].set_ylabel("loss (nats)")
    if rows == 2:
        axes[1, 0].set_ylabel(f"loss above {BASELINE}'s")
    figure.align_ylabels(axes)
    legend_below(figure, axes.flat, results.names)
    return figure


def _mean(points: pd.DataFrame, conv: int) -> pd.Series:
    """Held-out loss by step, mean over seeds."""
    found = points[(points["short_conv"] == conv) & points["validation_loss"].notna()]
    return found.groupby("step")["validation_loss"].mean()
