"""How the row sums that outputs are divided by are distributed, over the mean of their size."""

from __future__ import annotations

from matplotlib.figure import Figure

from slay.report.figures.parts import curves, grid, legend_below
from slay.report.results import Results
from slay.report.style import curve


def draw(results: Results) -> Figure:
    """A panel a kind of inputs, at the head dimension that most of them have; mean over seeds."""
    points = curves(results, "quality")
    dims = [dim for p in points.values() for dim in p["head_dim"].unique()]
    points = {
        name: p[p["head_dim"] == max(set(dims), key=dims.count)] for name, p in points.items()
    }
    kinds = results.axis("quality", "inputs")
    figure, panels = grid(len(kinds), 3, 2.3, sharey=True)
    for panel, inputs in zip(panels, kinds, strict=True):
        for name, p in points.items():
            found = p[p["inputs"] == inputs].groupby("share")["normaliser"].mean()
            if not found.empty:
                panel.plot(found, found.index, linewidth=0.9, **curve(name, len(found)))
        panel.axvline(0.0, color="black", linewidth=0.5, linestyle=":")
        panel.set_xscale("asinh", linear_width=0.1)
        panel.set_xlim(-30, 30)
        panel.set_xticks(
            [-10, -1, -0.1, 0, 0.1, 1, 10], ["−10", "−1", "−0.1", "0", "0.1", "1", "10"]
        )
        panel.set(xlabel="normaliser / mean size", title=inputs)
    panels[0].set_ylabel("share of rows at or below")
    legend_below(figure, panels, results.names)
    return figure
