"""Budgets of features: kernel error against m, output error against latency."""

from __future__ import annotations

import numpy as np
from matplotlib import pyplot as plt
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, LogLocator

from slay.report.figures.parts import apart, error_axis, legend_below, shown_error
from slay.report.results import Estimate, MissingError, Results
from slay.report.style import BOUND, PAGE, form

METRICS = ("num_features", "kernel_error", "ratio_standard", "rel_l2")


def draw(results: Results) -> Figure:
    """Left: kernel error and the Mercer bound. Right: output error and the Pareto front."""
    points = {name: found for name in results.names if (found := _points(results, name))}
    if not points:
        raise MissingError("ablation")
    figure, (size, cost) = plt.subplots(1, 2, figsize=(PAGE, 2.15), sharey=True)
    every = np.array([point for found in points.values() for point in found])
    most = 2 * max(2.0, every[:, 0].max())
    places = apart({name: [m for m, *_ in found] for name, found in points.items()}, 1, most)
    for name, found in points.items():
        _, kernel, ratio, output = np.array(found).T
        points_only = form(name) | {"linestyle": "none"}
        size.plot(places[name], [shown_error(e) for e in kernel], **points_only)
        cost.plot(ratio, [shown_error(e) for e in output], **points_only)
    _front(cost, every[:, 2], every[:, 3])
    dim = int(results.axis("ablation", "head_dim")[0])
    m = np.unique(np.geomspace(1, most, 200).astype(int))
    bound = [results.bound(dim, n) for n in m]
    size.plot(m, bound, color=BOUND, linestyle="--", linewidth=1.0, label="Mercer bound")
    size.fill_between(m, bound, color=BOUND, alpha=0.10, linewidth=0)
    size.set(xscale="log", xlabel="features $m$", ylabel="relative error", title="kernel")
    cost.set(xscale="log", xlabel="latency relative to standard", title="output")
    cost.xaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
    cost.xaxis.set_major_formatter(FuncFormatter(lambda ratio, _: f"{ratio:g}"))
    cost.minorticks_off()
    error_axis(size)
    error_axis(cost)
    legend_below(figure, (size, cost), results.names)
    return figure


def _points(results: Results, name: str) -> list[tuple[float, ...]]:
    """The four metrics of every variant, by m."""
    points = []
    for variant in results.axis("ablation", "variant", attention=name):
        found = [
            results.value("ablation", metric, attention=name, variant=variant) for metric in METRICS
        ]
        if all(isinstance(number, Estimate) for number in found[1:]):
            means = [n.mean if isinstance(n, Estimate) else np.nan for n in found]
            points.append(tuple(means))
    return sorted(points)


def _front(panel: Axes, cost: np.ndarray, error: np.ndarray) -> None:
    """Draw the Pareto front of cost and error as steps."""
    order = np.lexsort((error, cost))
    x, y = cost[order], error[order]
    best = np.minimum.accumulate(y)
    first = np.r_[True, best[1:] < best[:-1]]
    panel.step(
        x[first], [shown_error(e) for e in y[first]], where="post", color="black",
        linewidth=0.7, alpha=0.6, label="Pareto front", zorder=0,
    )  # fmt: skip
