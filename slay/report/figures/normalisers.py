"""Histograms of the row sums that outputs are divided by, over the mean of their size."""

from __future__ import annotations

import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from slay.report.figures.parts import curves, grid, legend_below
from slay.report.results import Results

SHADES = {"isotropic": "#0072B2", "planted": "#D55E00", "trained": "#009E73"}


def draw(results: Results) -> Figure:
    """A panel a mechanism, at the head dimension that most of them have; seeds together."""
    points = curves(results, "quality")
    dims = [dim for p in points.values() for dim in p["head_dim"].unique()]
    dim = max(set(dims), key=dims.count)
    points = {name: at for name, p in points.items() if len(at := p[p["head_dim"] == dim])}
    figure, panels = grid(len(points), 4, 0.95)
    for panel, (name, p) in zip(panels, points.items(), strict=True):
        for inputs, shade in SHADES.items():
            found = p[p["inputs"] == inputs]
            if not found.empty:
                x, density = _density(found)
                panel.fill_between(
                    x, density, step="mid", color=shade, alpha=0.35, linewidth=0, label=inputs
                )
        panel.axvline(0.0, color="black", linewidth=0.5, linestyle=":")
        panel.set(title=name, yticks=[])
        panel.spines["left"].set_visible(False)
        panel.tick_params(labelsize=6)
    legend_below(figure, panels, list(SHADES))
    return figure


def _density(found: pd.DataFrame) -> tuple[np.ndarray, np.ndarray]:
    """Middles of 80 bins, and the share of all rows in each over the largest share."""
    low, high = found["low"].min(), found["high"].max()
    edges = np.linspace(low, high if high > low else low + 1.0, 81)
    middles = (found["low"] + found["high"]) / 2
    counts, _ = np.histogram(middles, edges, weights=found["count"])
    return (edges[:-1] + edges[1:]) / 2, counts / counts.max()
