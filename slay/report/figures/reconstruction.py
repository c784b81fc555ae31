"""Kernel matrices over points of a great circle: the target, then each mechanism's."""

from __future__ import annotations

from matplotlib.figure import Figure

from slay.report.figures.parts import TARGET, grid, pictures, square
from slay.report.results import Results


def draw(results: Results) -> Figure:
    """Each is scaled to the target by least squares; all share one colour scale."""
    points = pictures(results, "reconstruction")
    exact = square(next(iter(points.values())), "exact")
    matrices = {f"{TARGET} (target)": exact} | {
        name: square(p, "kernel") for name, p in points.items() if name != TARGET
    }
    figure, panels = grid(len(matrices), 6, 1.6)
    top = float(exact.max().max())
    for panel, (name, matrix) in zip(panels, matrices.items(), strict=True):
        image = panel.imshow(matrix, norm="asinh", vmin=0, vmax=top, cmap="cividis")
        degrees = [0, len(matrix) / 2, len(matrix) - 1]
        panel.set_xticks(degrees, ["0°", "180°", "360°"])
        panel.set_yticks(degrees, ["0°", "180°", "360°"])
        panel.set_title(name, fontsize=7)
    bar = figure.colorbar(image, ax=panels, fraction=0.03, pad=0.01)
    bar.set_ticks([tick for tick in (0, 1, 10, 100, 1000) if tick <= top])
    bar.outline.set_visible(False)
    bar.set_label("kernel")
    return figure
