"""Distribution of the normalisers (row sums), relative to their mean magnitude."""

from __future__ import annotations

import numpy as np
from matplotlib.figure import Figure

from slay.report.figures.parts import curves, grid
from slay.report.results import Results
from slay.report.style import form

LEVELS = (0.0, 0.1, 0.5, 0.9, 1.0)  # quantiles that are drawn


def draw(results: Results) -> Figure:
    """One panel per kind of inputs, at the most common head dimension; mean over seeds.

    One row per mechanism: a line over the range, thick between the first and last decile, and a
    marker at the median.
    """
    points = curves(results, "quality")
    dims = [dim for p in points.values() for dim in p["head_dim"].unique()]
    points = {
        name: p[p["head_dim"] == max(set(dims), key=dims.count)] for name, p in points.items()
    }
    kinds = results.axis("quality", "inputs")
    figure, panels = grid(len(kinds), 3, 0.6 + 0.1 * len(points), sharey=True)
    for panel, inputs in zip(panels, kinds, strict=True):
        for row, (name, p) in enumerate(points.items()):
            found = p[p["inputs"] == inputs].groupby("share")["normaliser"].mean()
            if found.empty:
                continue
            least, low, median, high, most = np.interp(LEVELS, found.index, found)
            look = form(name)
            panel.plot([least, most], [row, row], color=look["color"], linewidth=0.7)
            panel.plot(
                [low, high], [row, row], color=look["color"], linewidth=2.5, solid_capstyle="butt"
            )
            panel.plot(median, row, **look | {"markersize": 4.5})
        panel.axvline(0.0, color="black", linewidth=0.5, linestyle=":")
        panel.set_xscale("asinh", linear_width=0.1)
        panel.set_xlim(-30, 30)
        panel.set_xticks([-10, -1, 0, 1, 10], ["−10", "−1", "0", "1", "10"])
        panel.set(xlabel="normaliser / mean size", title=inputs)
    panels[0].set_yticks(range(len(points)), list(points), fontsize=6.5)
    panels[0].set_ylim(len(points) - 0.4, -0.6)
    return figure
