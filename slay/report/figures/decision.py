"""Decision regions in the plane: which of five neurons answers a point most strongly."""

from __future__ import annotations

import numpy as np
from matplotlib.colors import ListedColormap
from matplotlib.figure import Figure

from slay.report.figures.parts import grid, pictures
from slay.report.results import Results

EDGE = 2.0  # of the plane that is shown
SHADES = ("#88CCEE", "#DDCC77", "#CC6677", "#44AA99", "#AA4499")


def draw(results: Results) -> Figure:
    """A panel a mechanism; lines are levels of the winner's kernel, by deciles.

    A neuron outside the frame is drawn where the frame is nearest to it.
    """
    points = pictures(results, "decision")
    figure, panels = grid(len(points), 3, 2.4)
    for panel, (name, p) in zip(panels, points.items(), strict=True):
        field = p.dropna(subset=["winner"])
        winner, kernel = (
            field.pivot_table(index="y", columns="x", values=v) for v in ("winner", "kernel")
        )
        x, y = winner.columns.to_numpy(), winner.index.to_numpy()
        panel.pcolormesh(
            x, y, winner, cmap=ListedColormap(SHADES), vmin=-0.5, vmax=4.5, alpha=0.6,
            shading="nearest", linewidth=0, rasterized=True,
        )  # fmt: skip
        levels = np.unique(np.quantile(kernel, np.linspace(0.1, 0.9, 9)))
        panel.contour(x, y, kernel, levels=levels, colors="black", linewidths=0.4, alpha=0.6)
        neurons = p.dropna(subset=["neuron"])
        panel.scatter(
            neurons["x"].clip(-EDGE, EDGE), neurons["y"].clip(-EDGE, EDGE),
            c=[SHADES[int(n)] for n in neurons["neuron"]],
            edgecolors="black", linewidths=0.8, s=30, zorder=3, clip_on=False,
        )  # fmt: skip
        panel.set(title=name, aspect="equal", xlim=(-EDGE, EDGE), ylim=(-EDGE, EDGE))
        panel.set(xticks=range(-2, 3), yticks=range(-2, 3))
    return figure
