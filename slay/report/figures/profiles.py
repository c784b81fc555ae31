"""The kernels of the mechanisms: by cosine, by angle, and their slope."""

from __future__ import annotations

import numpy as np
from matplotlib import pyplot as plt
from matplotlib.figure import Figure

from slay.report.figures.parts import TARGET, legend_below, pictures
from slay.report.results import Results
from slay.report.style import PAGE, curve


def draw(results: Results) -> Figure:
    """Mean over heads and pairs, with a band between the first and last decile."""
    points = pictures(results, "profile")
    figure, axes = plt.subplots(1, 3, figsize=(PAGE, 2.2))
    by_cosine, by_angle, slope = axes
    target = next(iter(points.values()))
    for name, p in points.items():
        if name == TARGET:
            continue
        form = curve(name, len(p))
        for panel, x in ((by_cosine, p["x"]), (by_angle, np.degrees(p["angle"]))):
            panel.plot(x, p["kernel"], **form)
            panel.fill_between(x, p["low"], p["high"], color=form["color"], alpha=0.15, linewidth=0)
        slope.plot(p["x"], p["slope"], linewidth=0.7, **form)
    form = curve(TARGET, len(target))
    by_cosine.plot(target["x"], target["exact"], **form)
    by_angle.plot(np.degrees(target["angle"]), target["exact"], **form)
    slope.plot(target["x"], target["exact_slope"], linewidth=0.7, **form)
    for panel in (by_cosine, by_angle):
        panel.set_yscale("asinh", linear_width=0.1)
        panel.set_yticks([0, 0.1, 1, 10], ["0", "0.1", "1", "10"])
    slope.set_yscale("asinh", linear_width=1)
    slope.set_yticks([-100, -10, -1, 0, 1, 10, 100], ["−100", "−10", "−1", "0", "1", "10", "100"])
    slope.set_ylim(-300, 300)
    by_cosine.set(xlabel="cosine $x$", ylabel="kernel $k(x)$")
    by_angle.set(xlabel="angle (degrees)", xticks=range(0, 181, 45))
    slope.set(xlabel="cosine $x$", ylabel="slope $dk/dx$")
    legend_below(figure, axes, results.names)
    return figure
