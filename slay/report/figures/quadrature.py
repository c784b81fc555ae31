"""Gauss-Laguerre quadrature: error against number of nodes, share of each node by cosine."""

from __future__ import annotations

from itertools import cycle

import numpy as np
from matplotlib import pyplot as plt
from matplotlib.figure import Figure

from slay.report.figures.parts import pictures
from slay.report.results import Results
from slay.report.style import BOUND, PAGE, form

DASHES = ("-", "-.", ":", (0, (6, 1.2, 1, 1.2, 1, 1.2)))  # the sum has "--"


def draw(results: Results) -> Figure:
    """Left: error of R nodes over all pairs. Right: share of the kernel by node."""
    name, points = next(iter(pictures(results, "quadrature").items()))
    figure, (convergence, nodes) = plt.subplots(1, 2, figsize=(PAGE, 2.0))
    errors = points.dropna(subset=["error"])
    convergence.plot(errors["nodes"], errors["error"], **form(name))
    convergence.set(yscale="log", xlabel="nodes $R$", ylabel="relative error of the kernel")
    shares = points.dropna(subset=["share"])
    shares = shares[shares["x"] != 0]  # where the kernel is zero
    numbers = sorted(shares["node"].unique())
    shades = plt.get_cmap("viridis")(np.linspace(0.2, 0.8, len(numbers)))
    for node, shade, dashes in zip(numbers, shades, cycle(DASHES)):
        share = shares[shares["node"] == node]
        line = {"color": shade, "linestyle": dashes, "label": f"node {node:.0f}"}
        nodes.plot(share["x"], share["share"], **line)
    total = shares.groupby("x")["share"].sum()
    nodes.plot(total.index, total, color=BOUND, linestyle="--", linewidth=1.0, label="sum")
    nodes.axhline(1.0, color="black", linewidth=0.4, linestyle=":")
    nodes.set(xlabel="cosine $x$", ylabel="share of the kernel")
    nodes.legend(fontsize=6.5)
    return figure
