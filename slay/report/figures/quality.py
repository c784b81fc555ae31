"""Kernel error against the number of features, with the Mercer bound, by head dimension."""

from __future__ import annotations

import numpy as np
from matplotlib.figure import Figure

from slay.report.figures.parts import apart, error_axis, grid, legend_below, shown_error
from slay.report.results import Estimate, MissingError, Results
from slay.report.style import BOUND, form


def draw(results: Results) -> Figure:
    """One panel per head dimension; raises `MissingError` if nothing was measured."""
    dims = sorted(results.axis("quality", "head_dim"))
    if not dims:
        raise MissingError("quality")
    figure, panels = grid(len(dims), len(dims), 2.2, sharey=True)
    for panel, dim in zip(panels, dims, strict=True):
        every = {name: p for name in results.names if (p := _kernel_errors(results, name, dim))}
        top = max((m for points in every.values() for m, _ in points), default=1)
        places = apart({name: [m for m, _ in found] for name, found in every.items()}, 1, 2 * top)
        for name, points in every.items():
            panel.errorbar(
                places[name],
                [shown_error(e.mean) for _, e in points],
                yerr=[_half_width(e) for _, e in points],
                linewidth=0.8, capsize=2, zorder=3,
                **form(name) | ({} if len(points) > 1 else {"linestyle": "none"}),
            )  # fmt: skip
        m = np.unique(np.geomspace(1, 2 * top, 200).astype(int))
        bound = [results.bound(dim, n) for n in m]
        panel.plot(m, bound, color=BOUND, linestyle="--", linewidth=1.0, label="Mercer bound")
        panel.fill_between(m, bound, color=BOUND, alpha=0.10, linewidth=0)
        panel.set(xscale="log", xlabel="features $m$", title=f"$d={dim}$")
        error_axis(panel)
    panels[0].set_ylabel("relative kernel error")
    legend_below(figure, panels, results.names)
    return figure


def _half_width(error: Estimate) -> float:
    """Half-width of the interval; 0 if there is none or the error is off the axis."""
    if shown_error(error.mean) != error.mean:
        return 0.0
    return float(np.nan_to_num((error.high - error.low) / 2))


def _kernel_errors(results: Results, name: str, dim: int) -> list[tuple[int, Estimate]]:
    """(m, kernel error) of every variant of a mechanism, by m."""
    points = []
    for variant in results.axis("quality", "variant", attention=name, head_dim=dim):
        where = {"attention": name, "head_dim": dim, "variant": variant}
        m = results.value("quality", "num_features", **where)
        error = results.value("quality", "kernel_error", **where)
        if isinstance(m, Estimate) and isinstance(error, Estimate):
            points.append((int(m.mean), error))
    return sorted(points, key=lambda point: point[0])
