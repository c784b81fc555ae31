"""Causal attention maps: each query near one key."""

from __future__ import annotations

from matplotlib.colors import PowerNorm
from matplotlib.figure import Figure

from slay.report.figures.parts import grid, pictures, square
from slay.report.results import Results


def draw(results: Results) -> Figure:
    """One panel per mechanism: the first head, on the same queries and keys."""
    points = pictures(results, "maps")
    figure, panels = grid(len(points), 6, 1.7)
    for panel, (name, p) in zip(panels, points.items(), strict=True):
        lower = p[p["j"] <= p["i"]]
        image = panel.imshow(square(lower, "weight"), norm=PowerNorm(0.5, 0, 1), cmap="cividis")
        panel.set_title(name, fontsize=7)
        panel.set_xlabel("key")
        panel.spines[:].set_visible(False)
    panels[0].set_ylabel("query")
    bar = figure.colorbar(image, ax=panels, fraction=0.03, pad=0.01)
    bar.outline.set_visible(False)
    bar.set_label("weight")
    return figure
